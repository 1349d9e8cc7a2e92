"""Records of steps as tables: a wide one in Markdown, a narrow one for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.results.table import grid

Record = dict[str, Any]

COLUMNS = {
    "model, domains x examples": lambda r: describe(r),
    "dtype": lambda r: r["dtype"],
    "method": lambda r: setup_name(r),
    "time / ERM's": lambda r: f"{r['time_ratio']:.2f}",
    "quartiles of it": lambda r: f"{r['time_ratio_low']:.2f}-{r['time_ratio_high']:.2f}",
    "FLOPs / ERM's": lambda r: f"{r['flops_ratio']:.3f}",
    "memory / ERM's": lambda r: f"{r['memory_ratio']:.2f}",
    "ms": lambda r: f"{r['milliseconds']:.{1 if r['milliseconds'] < 100 else 0}f}",
    "images/s": lambda r: f"{r['images_per_second']:.3g}".replace("e+0", "e"),
    "memory, MB": lambda r: f"{r['memory_bytes'] / 1e6:.1f}",
    "of it temporary": lambda r: f"{r['temporary_bytes'] / 1e6:.1f}",
    "kept for the way back": lambda r: f"{r['kept_bytes'] / 1e6:.1f}",
    "compile, s": lambda r: f"{r['compile_seconds']:.1f}",
}
NARROW = [name for name in [*COLUMNS][:8] if name != "quartiles of it"]


def describe(record: Record) -> str:
    """The model of a record with the size of its batch."""
    pixels = f" {record['image_size']} px" if record["image_size"] else ""
    per_domain = record["batch_size"] // record["domains"]
    return f"{record['model']}{pixels}, {record['domains']} x {per_domain}"


def setup_name(record: Record) -> str:
    """The method of a record and what is particular in how it was compiled."""
    remat = ", rematerialized" if record["remat"] else ""
    return record["method"] + remat + ("" if record["donated"] else ", not donated")


def markdown(records: Sequence[Record], left_out: Sequence[Record]) -> str:
    """A Markdown table, with a line per model on the methods that were left out."""
    # What is read as a number stands to the right.
    rules = [" --- "] * 3 + [" ---: "] * (len(COLUMNS) - 3)
    rows = [[cell(r) for cell in COLUMNS.values()] for r in records]
    missing: dict[str, list[str]] = {}
    for left in left_out:
        missing.setdefault(f"{left['model']}, {left['why']}", []).append(left["method"])
    notes = [
        f"- Not measured on {of}: {'; '.join(names)}." for of, names in missing.items()
    ]
    return "\n".join([grid([*COLUMNS], rows, rules), "", *notes]).rstrip() + "\n"


def show(records: Sequence[Record]) -> None:
    """Prints the columns that matter most."""
    table = Table(*NARROW)
    for r in records:
        table.add_row(*(COLUMNS[name](r) for name in NARROW))
    Console().print(table)
