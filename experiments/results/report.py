"""The report of a comparison: Markdown tables around the figures."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from experiments.config.protocols import find_protocol
from experiments.files import write_whole
from experiments.methods.registry import find_method
from experiments.results import figures
from experiments.results.summary import Row, summarize
from experiments.results.table import grid
from experiments.training.compare import Comparison
from experiments.training.numerics import environment

LEGEND = """\
In-domain: the held-out parts of the source domains. Out-of-domain: all images of the unseen
domain; held out: only its held-out part. Both are means over the unseen domains at the last
step: nothing was selected. Worst: the unseen domain of lowest accuracy. Loss spread:
standard deviation over the source domains of the training loss, mean of the last logged
steps. Gradients: steps times gradients of a whole batch per step."""

SELECTION = """\
Accuracy on the part of the unseen domain that was not held out (DomainBed's 80 %, which
the papers report and `python -m experiments table` prints). Training-domain validation: the
checkpoint with the best mean accuracy on the held-out parts of the source domains. Oracle:
chosen by the unseen domain's held-out part among the last checkpoints alone, so it differs
from the last step only between several configurations. SWAD: weights averaged over the loss
valley."""

Column = tuple[str, Callable[[Row], str]]


def write_report(comparison: Comparison, out: Path, command: str) -> list[Row]:
    """Writes `report.md` and its PNGs; curves only for as many methods as have a colour.

    Args:
      comparison: to report.
      out: the folder.
      command: that makes the numbers again.

    Returns:
      The rows of the table.
    """
    rows = summarize(comparison.records)
    if rows:
        methods = [row.method for row in rows]
        unseen = list(rows[0].by_domain)
        if len(rows) > len(figures.COLORS):
            figures.ranking(rows, out / "accuracy.png")
        else:
            figures.bars(rows, out / "accuracy.png")
            figures.spread(comparison.curves, methods, unseen, out / "spread.png")
            for domain in unseen:
                path = out / f"convergence_{domain}.png"
                figures.convergence(comparison.curves, methods, domain, path)
    write_whole(out / "report.md", _markdown(comparison, rows, command))
    return rows


# Of the main table. How long a step took is not among them: runs that follow one another
# on a machine with other work cannot be compared in time; `benchmarks` interleaves steps.
HEADLINE: tuple[Column, ...] = (
    ("method", lambda row: figures.label(row.method)),
    ("in-domain %", lambda row: row.in_domain.percent()),
    ("out-of-domain %", lambda row: row.out_of_domain.percent()),
    ("held out %", lambda row: row.out_of_domain_heldout.percent()),
    ("worst %", lambda row: f"{row.worst_domain[1].percent()} ({row.worst_domain[0]})"),
    ("loss spread", lambda row: row.loss_spread.plain()),
    ("gradients", lambda row: f"{row.steps} x {row.gradients_per_step:.2f}"),
)


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    names, cells = zip(*columns, strict=True)
    return grid(names, [[cell(row) for cell in cells] for row in rows])


def _domain_columns(rows: Sequence[Row]) -> list[Column]:
    def column(domain: str) -> Column:
        return domain, lambda row: row.by_domain[domain].percent()

    average: Column = ("average", lambda row: row.out_of_domain.percent())
    names = [column(domain) for domain in rows[0].by_domain]
    return [("method", lambda row: figures.label(row.method)), *names, average]


def _selection_columns(rows: Sequence[Row]) -> list[Column]:
    def column(rule: str) -> Column:
        name = "SWAD" if rule == "swad" else rule.replace("_", " ")
        return (
            name,
            lambda row: row.selected[rule].percent() if rule in row.selected else "",
        )

    rules = dict.fromkeys(rule for row in rows for rule in row.selected)
    method: Column = ("method", lambda row: figures.label(row.method))
    return [method, *(column(rule) for rule in rules)]


def _markdown(comparison: Comparison, rows: list[Row], command: str) -> str:
    parts = [f"# {comparison.configs[0].data}: leave one domain out"]
    if rows:
        parts += _tables(rows)
    if 0 < len(rows) <= len(figures.COLORS):
        parts += _curves(rows)
    if comparison.failures:
        parts += [
            "## Runs that did not finish",
            "\n".join(f"- `{config.name}`: {why}" for config, why in comparison.failures),
        ]
    return "\n\n".join([*parts, *_how_it_was_made(comparison, command)]) + "\n"


def _tables(rows: Sequence[Row]) -> list[str]:
    return [
        "Each method is trained on all domains but one and tested on that one; "
        f"seeds: {rows[0].seeds}; mean ± standard deviation over seeds.",
        _table(HEADLINE, rows),
        LEGEND,
        "## By unseen domain",
        _table(_domain_columns(rows), rows),
        "## By selection rule",
        SELECTION,
        _table(_selection_columns(rows), rows),
        "![Out-of-domain accuracy](accuracy.png)",
    ]


def _curves(rows: Sequence[Row]) -> list[str]:
    return [
        "## Do the domains converge alike?",
        "![Spread of the domain losses](spread.png)",
        *(
            f"![Convergence with {domain} unseen](convergence_{quote(domain)}.png)"
            for domain in rows[0].by_domain
        ),
    ]


def _how_it_was_made(comparison: Comparison, command: str) -> list[str]:
    first, machine = comparison.configs[0], environment()
    commits = ", ".join(sorted({r["commit"] for r in comparison.records})) or "none"
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    values = {c.method: c.hyperparameters for c in comparison.configs}
    methods = [(find_method(name), chosen) for name, chosen in values.items()]
    return [
        "## How it was made",
        f"    {command}",
        f"Commit {commits}; {machine['processor']}, {machine['cpu_count']} CPUs, "
        f"{machine['device_count']} {machine['device']['kind']} device(s); {packages}.",
        f"Protocol {first.protocol}: "
        f"{find_protocol(first.data, first.protocol)[1].reference}.",
        ", ".join(f"{k} {v}" for k, v in dataclasses.asdict(first.preset).items()) + ".",
        "\n".join(
            f"- {figures.label(method.name)}: "
            + ", ".join(f"{name} {getattr(chosen, name)}" for name in method.reads)
            for method, chosen in methods
            if method.reads
        ),
    ]
