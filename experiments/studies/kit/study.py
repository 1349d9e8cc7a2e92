"""A study: claims, the numbers that answer them, figures, and the page that says it all.

values.csv.gz  every value that the answers follow from
numbers.json   curves, with the command, the commits, the setting, the machine and the time
*.png          drawn from the two
page.md        setting, claim, figure, answer, command
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.data import STUDIED
from experiments.files import read_json, write_json, write_whole
from experiments.results.table import Table, grid
from experiments.studies.kit.claims import Claim, Finding, answer_claims
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.scope import scope_of, scope_table
from experiments.studies.kit.values import Value, Values, read_values, write_values
from experiments.training.numerics import environment

Curves = dict[str, Any]
VALUES = "values.csv.gz"


class Measured(NamedTuple):
    """What a study measured.

    Attributes:
      values: that its claims are tested on.
      curves: what else its figures show, which JSON can hold.
    """

    values: Sequence[Value]
    curves: Curves


class Numbers(NamedTuple):
    """What a study's folder holds.

    Attributes:
      made: how: command, commits, setting, machine, time.
      values: that its claims are tested on.
      curves: what else its figures show.
    """

    made: dict[str, Any]
    values: Values
    curves: Curves


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
      measure: a setting -> what was measured.
      claims: values -> the claims that are tested on them.
      draw: (values, curves, folder) -> the figures, their PNGs written.
      tables: (values, curves) -> the tables of the page.
      scope: the setting in words, where no network is trained.
      told: fields of `scope.FIXED` that the configs of the runs do not tell.
      data: the data sets it is run on unless others are asked for.
      headline: whether its accuracies stand in the report's first figure: tuned methods,
        and no sweep of a hyperparameter.
    """

    name: str
    title: str
    protocol: str
    measure: Callable[[Setting], Measured]
    claims: Callable[[Values], list[Claim]]
    draw: Callable[[Values, Curves, Path], list[Figure]]
    tables: Callable[[Values, Curves], list[Table]] = lambda values, curves: []
    scope: str = ""
    told: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data: tuple[str, ...] = STUDIED
    headline: bool = False

    def find(self, values: Values) -> list[Finding]:
        """The answers to the claims."""
        return answer_claims(self.claims(values), values)


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
    values, curves = study.measure(setting)
    made = {
        "study": study.name,
        "command": command,
        "seconds": time.perf_counter() - started,
        "seconds_of_runs": setting.store.seconds_used,
        "commits": sorted(setting.store.commits_used | {environment()["commit"]}),
        "scope": [{**s, **study.told} for s in scope_of(setting.store.configs_used)],
        "first_batches": dict(sorted(setting.store.batches_used.items())),
        "environment": environment(),
    }
    write_values(out / VALUES, [(study.name, values)])
    write_json(out / "numbers.json", {"made": made, "curves": curves})
    return write_page(study, out)


def write_page(study: Study, out: Path) -> list[Finding]:
    """Draws the figures and writes the page from the numbers in the study's folder.

    Args:
      study: whose numbers they are.
      out: its folder.

    Returns:
      The findings.
    """
    made, values, curves = read_numbers(out)
    figures, findings = study.draw(values, curves, out), study.find(values)
    parts = [f"# {study.title}", study.protocol, "## Setting", told_scope(study, made)]
    parts += ["## Answers", titled(findings_table(findings)), "## Figures"]
    parts += [f"![{f.title}]({f.file})\n\n*{f.caption}*" for f in figures]
    tables = study.tables(values, curves)
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


def read_numbers(out: Path) -> Numbers:
    """How the numbers of a study's folder were made, and themselves.

    Raises:
      ValueError: the folder holds none.
    """
    file = out / "numbers.json"
    if not file.exists():
        raise ValueError(f"{out} holds no finished study: there is no {file.name} in it.")
    found = read_json(file)
    if not {"made", "curves"} <= found.keys() or not (out / VALUES).exists():
        raise ValueError(f"{file} and {VALUES} hold no numbers of a study.")
    made = found["made"]
    return Numbers(made, read_values(out / VALUES)[made["study"]], found["curves"])


def told_scope(study: Study, made: dict[str, Any]) -> str:
    """What was trained, with which numbers."""
    return study.scope or titled(scope_table(made["scope"]))


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
        "of one process. Every value is in `values.csv.gz`, curves are in `numbers.json`; "
        "the figures and this page are made from them alone."
    )


def seconds_spent(made: dict[str, Any]) -> float:
    """On a study, its runs included whichever call trained them."""
    return max(made["seconds"], made["seconds_of_runs"])
