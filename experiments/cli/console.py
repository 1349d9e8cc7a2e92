"""What the command line prints through: names come out as they are, brackets and all."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments.devices import Layout

console = Console(markup=False, emoji=False)
stderr = Console(markup=False, emoji=False, highlight=False, soft_wrap=True, stderr=True)


def tell(kind: str, text: str, style: str) -> None:
    """Prints one line on stderr, e.g. `error: there is no such folder`."""
    stderr.print(f"{kind}:", style=style, end=" ")
    stderr.print(" ".join(text.split()))


def bars(layout: Layout | None = None) -> Progress:
    """Bars with counts, times and a note, where the process that writes has a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not console.is_terminal or not _writes(layout),
    )


def line_without_bars(text: str, layout: Layout | None = None) -> None:
    """Prints a line of progress where there is no terminal for bars, as under nohup."""
    if not console.is_terminal and _writes(layout):
        console.print(text, soft_wrap=True, highlight=False)


def _writes(layout: Layout | None) -> bool:
    return layout is None or layout.writes
