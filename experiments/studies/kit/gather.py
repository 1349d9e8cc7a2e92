"""All finished studies as one report: an HTML file that needs no other, and Markdown.

report.html   figures and style inside; from report.html.jinja and report.css
report.md     figures linked where they lie
"""

import base64
import dataclasses
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from experiments.files import read_json, write_whole
from experiments.studies.kit.statistics import CANNOT_TELL, DOES_NOT, HOLDS
from experiments.studies.kit.study import Figure, Finding, Study, Table, how, read_numbers

TITLE = "SAM, SAGM and DISAM under domain shift: the papers' claims, tested"
MARKS = {HOLDS: "✓", DOES_NOT: "✗", CANNOT_TELL: "?"}
COLUMNS = ("claim", "source", "answers")
LEGEND = (
    "Unless a study says otherwise, an answer comes from a difference of two methods, seed "
    "by seed, with its 95 % confidence interval in brackets. **Does not hold**: the whole "
    "interval is below the smallest difference that would matter. **Holds**: otherwise, "
    "where the whole interval is above 0 and p, adjusted by Holm where a study tests many "
    "such differences, is below 0.05. **Cannot be told**: anything else; more seeds may "
    "tell."
)
UNKNOWN = (
    "The code that made this report does not have this study; its question, its protocol "
    "and its tables are in `page.md` in its folder."
)
SHARED = (
    "Times are of one process. A run that several studies share was made once and counts "
    "in each of them, so the total is an upper bound."
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, and what it was answered on all data by all studies.

    Attributes:
      text: the claim.
      source: who claims it.
      answers: (anchor, finding).
    """

    text: str
    source: str
    answers: list[tuple[str, Finding]]


@dataclasses.dataclass(frozen=True)
class Section:
    """A finished study, as the report tells it.

    Attributes:
      number: of the section.
      folder: of the study; it has the study's name and holds its figures.
      title: the question.
      protocol: what is measured and how.
      made: how the numbers were made.
      findings: what they answer.
      figures: that were drawn.
      tables: of the numbers.
    """

    number: int
    folder: Path
    title: str
    protocol: str
    made: dict[str, Any]
    findings: Sequence[Finding]
    figures: Sequence[Figure]
    tables: Sequence[Table]

    @property
    def anchor(self) -> str:
        """What links to the section point to; those to its findings end in `-1`, `-2`."""
        return "study-" + re.sub(r"[^\w-]+", "-", self.folder.name)


@dataclasses.dataclass(frozen=True)
class Report:
    """What is told, in its order.

    Attributes:
      sections: the finished studies.
      waiting: name -> title of the others.
    """

    sections: Sequence[Section]
    waiting: Mapping[str, str]

    @property
    def findings(self) -> list[Finding]:
        """Of all sections."""
        return [finding for section in self.sections for finding in section.findings]

    @property
    def claims(self) -> list[tuple[Section, list[Claim]]]:
        """Each claim once, with the study that answers it first."""
        first: dict[tuple[str, str], int] = {}
        answers: dict[tuple[str, str], list[tuple[str, Finding]]] = defaultdict(list)
        for section in self.sections:
            for i, finding in enumerate(section.findings, start=1):
                key = (finding.claim, finding.source)
                first.setdefault(key, section.number)
                answers[key].append((f"{section.anchor}-{i}", finding))
        told = [
            (s, [Claim(*key, answers[key]) for key, n in first.items() if n == s.number])
            for s in self.sections
        ]
        return [(section, claims) for section, claims in told if claims]

    @property
    def abstract(self) -> str:
        """How much was tested, and in what time; the answers' counts come after it."""
        finished = len(self.sections)
        claims = sum(len(claims) for _, claims in self.claims)
        waiting = f" Not run yet: {len(self.waiting)} of {finished + len(self.waiting)}."
        return (
            f"{_count(finished, 'study', 'studies')} put "
            f"{_count(claims, 'claim', 'claims')} to "
            f"{_count(len(self.findings), 'test', 'tests')}, in {self.time} "
            f"of one process.{waiting if self.waiting else ''} The answers:"
        )

    @property
    def time(self) -> str:
        """Of all studies, added up."""
        made = [section.made for section in self.sections]
        seconds = sum(max(m["seconds"], m["seconds_of_runs"]) for m in made)
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


def gather(studies: Path, registry: Mapping[str, Study], out: Path) -> list[Finding]:
    """Writes `report.html` and `report.md` of the studies that are finished.

    Args:
      studies: the folder of their folders.
      registry: name -> study, in the order of the report.
      out: where the report goes.

    Returns:
      The findings of all studies.

    Raises:
      ValueError: no study is finished.
    """
    report = read_report(studies, registry)
    html, markdown = as_html(report), as_markdown(report, out)
    write_whole(out / "report.html", html)
    write_whole(out / "report.md", markdown)
    return report.findings


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
    finished = sorted(file.parent.name for file in studies.glob("*/page.json"))
    if not finished:
        raise ValueError(
            f"{studies} holds no finished study; make one: {_command('NAME')}, where NAME "
            f"is one of {', '.join(registry)}."
        )
    known = [name for name in registry if name in finished]
    unknown = [name for name in finished if name not in registry]
    sections = [
        _read_section(number, studies / name, registry.get(name))
        for number, name in enumerate([*known, *unknown], start=1)
    ]
    waiting = {name: s.title for name, s in registry.items() if name not in finished}
    return Report(sections, waiting)


def _read_section(number: int, folder: Path, study: Study | None) -> Section:
    made, numbers = read_numbers(folder)
    page = read_json(folder / "page.json")
    return Section(
        number,
        folder,
        study.title if study else folder.name,
        study.protocol if study else UNKNOWN,
        made,
        [Finding(**finding) for finding in page["findings"]],
        [Figure(**figure) for figure in page["figures"]],
        study.tables(numbers) if study else [],
    )


def as_html(report: Report) -> str:
    """The report as one HTML file, figures and style inside."""
    return _TEMPLATES.get_template("report.html.jinja").render(report=report)


def as_markdown(report: Report, out: Path) -> str:
    """The report in Markdown.

    Args:
      report: to tell.
      out: the folder that it will lie in, where links to figures start.

    Returns:
      The text.
    """
    counts = [f"- {MARKS[answer]} {answer}: {n}" for answer, n in tally(report.findings)]
    parts = [f"# {TITLE}", report.abstract, "\n".join(counts)]
    parts += ["## Contents", _contents(report)]
    parts += ["## Claims and answers", LEGEND, _claims(report)]
    for section in report.sections:
        parts += _section_parts(section, out)
    if report.waiting:
        parts += ["## Not run yet"]
        parts += [f"{_text(t)}\n\n    {_command(n)}" for n, t in report.waiting.items()]
    parts += ["## The whole set", f"Total time: {report.time}. {SHARED}"]
    parts += [f"Machines: {'; '.join(report.machines)}."]
    parts += [f"Commits: {', '.join(report.commits)}."]
    return "\n\n".join(parts) + "\n"


def tally(findings: Iterable[Finding]) -> list[tuple[str, int]]:
    """How often each of the three answers was given."""
    counts = Counter(finding.answer for finding in findings)
    return [(answer, counts[answer]) for answer in MARKS]


def _contents(report: Report) -> str:
    lines = []
    for section in report.sections:
        counts = " ".join(f"{MARKS[a]} {n}" for a, n in tally(section.findings) if n)
        lines.append(
            f"{section.number}. [{_text(section.title)}](#{section.anchor}) ({counts})"
        )
    return "\n".join(lines)


def _claims(report: Report) -> str:
    rows = [
        (
            _cell(claim.text),
            _cell(claim.source),
            "<br>".join(
                f"{_told(f)}: [{_cell(f.where)}](#{anchor})" for anchor, f in claim.answers
            ),
        )
        for _, claims in report.claims
        for claim in claims
    ]
    return Table("All claims", COLUMNS, rows).markdown()


def _section_parts(section: Section, out: Path) -> list[str]:
    """The blocks of a study."""
    heading = f"## {section.number}. {_text(section.title)}"
    parts = [f'<a id="{section.anchor}"></a>', heading, _text(section.protocol)]
    parts += ["### Answers"]
    for i, f in enumerate(section.findings, start=1):
        parts.append(
            f'<a id="{section.anchor}-{i}"></a>**{section.number}.{i}** {_text(f.claim)} '
            f"({_text(f.source)}; {_text(f.where)}) {_told(f)}: {_text(f.because)}"
        )
    parts += ["### Figures"]
    for i, figure in enumerate(section.figures, start=1):
        file = Path(os.path.relpath(section.folder / figure.file, out)).as_posix()
        title = _text(figure.title)
        parts.append(f"![{title}]({quote(file)})")
        parts.append(f"**Figure {section.number}.{i}. {title}** {_text(figure.caption)}")
    if section.tables:
        parts += ["### Numbers"]
    for i, table in enumerate(section.tables, start=1):
        title = f"**Table {section.number}.{i}.** {_text(table.title)}"
        columns, *rows = [[_cell(c) for c in row] for row in (table.columns, *table.rows)]
        parts.append(Table(title, columns, rows).markdown())
    return [*parts, "### How it was made", how(section.made)]


def _told(finding: Finding) -> str:
    return f"{MARKS[finding.answer]} **{finding.answer}**"


def _text(text: str) -> str:
    """Markdown that holds no HTML: `<` is meant as it stands, but for links."""
    pieces = text.split("`")  # every other one is code, where nothing is escaped
    pieces[::2] = [re.sub(r"<(?=[A-Za-z/!?])(?!https?:)", "&lt;", p) for p in pieces[::2]]
    return "`".join(pieces)


def _cell(text: str) -> str:
    """The same, on one line: a cell of a table, which escapes its own bars."""
    return " ".join(_text(text).split())


def _command(name: str) -> str:
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


# No HTML and no images: the report asks for nothing from outside.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable("image")


def _plain(text: str) -> str:
    """Markdown without its marks."""
    tokens = _MARKDOWN.parseInline(text)[0].children or []
    return " ".join("".join(token.content for token in tokens).split())


def _unbroken(text: str) -> str:
    """No line ends within an interval or around an equals sign."""
    found = r"\[[-+\d., ]+\]|\S+ [=<] \S+"
    return re.sub(found, lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def _data_uri(image: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "inline": lambda text: Markup(_MARKDOWN.renderInline(text)),
    "blocks": lambda text: Markup(_MARKDOWN.render(text)),
    "plain": _plain,
    "unbroken": _unbroken,
    "data_uri": _data_uri,
    "how": how,
}
_TEMPLATES.globals |= {
    "title": TITLE,
    "marks": MARKS,
    "columns": COLUMNS,
    "legend": LEGEND,
    "shared": SHARED,
    "tally": tally,
    "command": _command,
}
