"""The finished studies as their report tells them: sections, claims, answers."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.files import read_json
from experiments.results.table import Table
from experiments.studies.kit.claims import ANSWERS, OURS, PAPERS, Finding
from experiments.studies.kit.scope import scope_table
from experiments.studies.kit.study import (
    VALUES,
    Figure,
    Study,
    read_numbers,
    seconds_spent,
)
from experiments.studies.kit.summary import read_summary
from experiments.studies.kit.values import Values

HEADLINE = "unseen_concept_accuracy"
WHOSE = {PAPERS: "the papers' claims", OURS: "our own"}
UNKNOWN = (
    "The code that made this report does not have this study; its question, its protocol "
    "and its tables are in `page.md` in its folder."
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, and what a study answers to it in each setting.

    Attributes:
      text: the claim.
      source: who claims it.
      answers: of its settings.
    """

    text: str
    source: str
    answers: list[Finding]


@dataclasses.dataclass(frozen=True)
class Section:
    """A finished study, as the report tells it.

    Attributes:
      number: of the section.
      folder: of the study; it has the study's name and holds its figures.
      title: the question.
      protocol: what is measured and how.
      scope: the setting in words, where no network was trained.
      made: how the numbers were made.
      values: that were measured.
      findings: what they answer.
      figures: that were drawn.
      headline: whether its accuracies stand in the first figure.
    """

    number: int
    folder: Path
    title: str
    protocol: str
    scope: str
    made: dict[str, Any]
    values: Values
    findings: Sequence[Finding]
    figures: Sequence[Figure]
    headline: bool

    @property
    def anchor(self) -> str:
        """What links to the section point to."""
        return "study-" + re.sub(r"[^\w-]+", "-", self.folder.name)

    @property
    def claims(self) -> list[Claim]:
        """Each claim once, with its answers."""
        claims: dict[tuple[str, str], Claim] = {}
        for finding in self.findings:
            key = (finding.claim, finding.source)
            claims.setdefault(key, Claim(*key, [])).answers.append(finding)
        return list(claims.values())


@dataclasses.dataclass(frozen=True)
class Report:
    """What is told, in its order.

    Attributes:
      summary: the first screen, in Markdown.
      sections: the finished studies.
      waiting: name -> title of the others.
    """

    summary: str
    sections: Sequence[Section]
    waiting: Mapping[str, str]

    @property
    def findings(self) -> list[Finding]:
        """Of all sections."""
        return [finding for section in self.sections for finding in section.findings]

    @property
    def abstract(self) -> str:
        """How much was tested, and in what time; the answers' counts come after it."""
        finished = len(self.sections)
        claims = len({(finding.claim, finding.source) for finding in self.findings})
        waiting = f" Not run yet: {len(self.waiting)} of {finished + len(self.waiting)}."
        return (
            f"{_count(finished, 'study', 'studies')} put "
            f"{_count(claims, 'claim', 'claims')} to "
            f"{_count(len(self.findings), 'test', 'tests')}, in at most {self.time} "
            f"of one process.{waiting if self.waiting else ''} The answers:"
        )

    @property
    def counts(self) -> Table:
        """How often each answer was given, to the papers' claims and to ours apart."""
        of = {w: dict(tally(f for f in self.findings if f.whose == w)) for w in WHOSE}
        rows = [[a, *(str(of[whose][a]) for whose in WHOSE)] for a in ANSWERS]
        return Table("Answers", ("answer", *WHOSE.values()), rows)

    @property
    def headline(self) -> list[Finding]:
        """Those about what was not trained on, which the first figure shows."""
        shown = [s for s in self.sections if s.headline]
        return [f for s in shown for f in s.findings if f.measure == HEADLINE]

    @property
    def scope(self) -> Table:
        """What was trained, each setting once."""
        rows = [row for section in self.sections for row in section.made["scope"]]
        return scope_table(rows)

    @property
    def power(self) -> Table:
        """The smallest difference in the score that each study's comparisons show."""
        rows = []
        for section in self.sections:
            found = [f for f in section.findings if f.measure == HEADLINE]
            for where in dict.fromkeys(f.where for f in found):
                own = [f for f in found if f.where == where]
                seen = sorted(100 * f.detectable for f in own)
                seeds = f"{min(f.seeds for f in own)}"
                span = f"{seen[0]:.1f} to {seen[-1]:.1f}"
                rows.append((section.folder.name, where, seeds, span))
        columns = ("study", "setting", "seeds", "points that its pairs show")
        return Table(
            "Power: the smallest true difference that such seeds show in 80 % of all "
            "studies (two-sided, 5 %, not adjusted); the papers print gains of 0.6 to 2.5",
            columns,
            rows,
        )

    @property
    def time(self) -> str:
        """Of all studies, added up."""
        seconds = sum(seconds_spent(section.made) for section in self.sections)
        if seconds < 7200:
            return f"{seconds / 60:.1f} minutes"
        return f"{seconds / 3600:.1f} hours"

    @property
    def machines(self) -> list[str]:
        """That the studies were run on, each once."""
        return _once(_machine(section.made["environment"]) for section in self.sections)

    @property
    def commits(self) -> list[str]:
        """That anything was made with, each once."""
        return _once(c for section in self.sections for c in section.made["commits"])


def read_report(studies: Path, registry: Mapping[str, Study]) -> Report:
    """What the folders of the studies hold.

    Args:
      studies: the folder of their folders.
      registry: name -> study, in the order of the report; finished studies that it does
        not have follow by name.

    Returns:
      The report.

    Raises:
      ValueError: no study is finished.
    """
    finished = sorted(file.parent.name for file in studies.glob(f"*/{VALUES}"))
    if not finished:
        raise ValueError(
            f"{studies} holds no finished study; make one: {command_of('NAME')}, "
            f"where NAME is one of {', '.join(registry)}."
        )
    known = [name for name in registry if name in finished]
    unknown = [name for name in finished if name not in registry]
    sections = [
        _read_section(number, studies / name, registry.get(name))
        for number, name in enumerate([*known, *unknown], start=1)
    ]
    waiting = {name: s.title for name, s in registry.items() if name not in finished}
    findings = {section.folder.name: section.findings for section in sections}
    return Report(read_summary(studies, findings), sections, waiting)


def _read_section(number: int, folder: Path, study: Study | None) -> Section:
    made, values, _ = read_numbers(folder)
    page = read_json(folder / "page.json")
    return Section(
        number,
        folder,
        study.title if study else folder.name,
        study.protocol if study else UNKNOWN,
        study.scope if study else "",
        made,
        values,
        [Finding(**finding) for finding in page["findings"]],
        [Figure(**figure) for figure in page["figures"]],
        study is not None and study.headline,
    )


def tally(findings: Iterable[Finding]) -> list[tuple[str, int]]:
    """How often each answer was given."""
    counts = Counter(finding.answer for finding in findings)
    return [(answer, counts[answer]) for answer in ANSWERS]


def command_of(name: str) -> str:
    """What makes the study of this name."""
    return f"python -m experiments study {name}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _machine(environment: Mapping[str, Any]) -> str:
    packages = environment["packages"]
    return (
        f"{environment['cpu_count']} cores of {environment['processor']}, "
        f"Python {environment['python']}, jax {packages['jax']}"
    )


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
