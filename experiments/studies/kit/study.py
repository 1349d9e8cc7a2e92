"""A study: claims, the numbers that answer them, figures, and the page that says it all.

numbers.json   what was measured, with the command, the commits, the machine and the time
*.png          drawn from the numbers alone
page.md        claim, figure, answer, command
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.data import DATASETS
from experiments.files import read_json, write_json, write_whole
from experiments.results.table import Table, grid
from experiments.studies.kit.runs import Setting
from experiments.training.numerics import environment

Numbers = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim, and what the numbers answer.

    Attributes:
      claim: a sentence that can be wrong.
      source: who claims it, and where.
      where: the data it was tested on.
      answer: `holds`, `does not hold` or `cannot be told`.
      because: the numbers, e.g. a paired difference with its interval.
    """

    claim: str
    source: str
    where: str
    answer: str
    because: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure that was drawn.

    Attributes:
      file: name of the PNG in the study's folder.
      title: what it shows, for a reader who cannot see it too.
      caption: how to read it.
    """

    file: str
    title: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Study:
    """One question to the papers.

    Attributes:
      name: of its command, and of its folder.
      title: the question.
      protocol: what is measured and how, in a few sentences; what was chosen by whom.
      measure: a setting -> the numbers, which JSON can hold.
      draw: (numbers, folder) -> the figures, their PNGs written.
      find: numbers -> the findings.
      tables: numbers -> the tables of the page.
      data: the data sets it is run on unless others are asked for.
    """

    name: str
    title: str
    protocol: str
    measure: Callable[[Setting], Numbers]
    draw: Callable[[Numbers, Path], list[Figure]]
    find: Callable[[Numbers], list[Finding]]
    tables: Callable[[Numbers], list[Table]] = lambda numbers: []
    data: tuple[str, ...] = tuple(DATASETS)


def run_study(study: Study, setting: Setting, out: Path, command: str) -> list[Finding]:
    """Measures, draws and writes the page; runs that were finished before are only read.

    Args:
      study: to run.
      setting: seeds, data and where runs are kept.
      out: the study's folder.
      command: that does this again.

    Returns:
      The findings.
    """
    started = time.perf_counter()
    numbers = study.measure(setting)
    made = {
        "study": study.name,
        "command": command,
        "seconds": time.perf_counter() - started,
        "seconds_of_runs": setting.store.seconds_used,
        "commits": sorted(setting.store.commits_used | {environment()["commit"]}),
        "first_batches": dict(sorted(setting.store.batches_used.items())),
        "environment": environment(),
    }
    write_json(out / "numbers.json", {"made": made, "numbers": numbers})
    return write_page(study, out)


def write_page(study: Study, out: Path) -> list[Finding]:
    """Draws the figures and writes the page from the numbers in the study's folder.

    Args:
      study: whose numbers they are.
      out: its folder.

    Returns:
      The findings.
    """
    made, numbers = read_numbers(out)
    figures, findings = study.draw(numbers, out), study.find(numbers)
    parts = [f"# {study.title}", study.protocol, "## Answers"]
    parts += [titled(findings_table(findings))]
    parts.append("## Figures")
    parts += [f"![{f.title}]({f.file})\n\n*{f.caption}*" for f in figures]
    tables = study.tables(numbers)
    if tables:
        parts += ["## Numbers", *map(titled, tables)]
    parts += ["## How it was made", how_it_was_made(made)]
    write_whole(out / "page.md", "\n\n".join(parts) + "\n")
    page = {
        "figures": [dataclasses.asdict(figure) for figure in figures],
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    write_json(out / "page.json", page)
    return findings


def read_numbers(out: Path) -> tuple[dict[str, Any], Numbers]:
    """How the numbers of a study's folder were made, and themselves.

    Raises:
      ValueError: the folder holds none.
    """
    file = out / "numbers.json"
    if not file.exists():
        raise ValueError(f"{out} holds no finished study: there is no {file.name} in it.")
    found = read_json(file)
    if not {"made", "numbers"} <= found.keys():
        raise ValueError(f"{file} holds no numbers of a study.")
    return found["made"], found["numbers"]


def findings_table(findings: Sequence[Finding]) -> Table:
    """The claims and their answers."""
    rows = [
        [f"{f.claim} ({f.source})", f.where, f"**{f.answer}**", f.because] for f in findings
    ]
    return Table("Claims", ("claim", "on", "answer", "because"), rows)


def titled(table: Table) -> str:
    """A table in Markdown, its caption above it as a title."""
    rules = [" --- "] * len(table.columns)
    return f"{table.caption}:\n\n{grid(table.columns, table.rows, rules)}"


def how_it_was_made(made: dict[str, Any]) -> str:
    """Command, commits, machine and time."""
    machine, minutes = made["environment"], seconds_spent(made) / 60
    return (
        f"    {made['command']}\n\n"
        f"Commits {', '.join(made['commits'])}; {machine['cpu_count']} cores of "
        f"{machine['processor']}, jax {machine['packages']['jax']}; {minutes:.1f} minutes "
        "of one process. Every number is in `numbers.json`; the figures and this page are "
        "made from it alone."
    )


def seconds_spent(made: dict[str, Any]) -> float:
    """On a study, its runs included whichever call trained them."""
    return max(made["seconds"], made["seconds_of_runs"])
