"""All finished studies as one report: an HTML file that needs no other, and Markdown.

report.html    figures and style inside; from report.html.jinja and report.css
report.md      figures linked where they lie
effects.png    the first figure: every difference in the score, with its interval
values.csv.gz  every value of every study
"""

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from experiments.files import write_whole
from experiments.results.table import Table
from experiments.studies.kit.claims import ANSWERS, Finding
from experiments.studies.kit.forest import KEY, draw_rows
from experiments.studies.kit.margins import margins_table
from experiments.studies.kit.scope import scope_table
from experiments.studies.kit.sections import (
    Report,
    Section,
    command_of,
    read_report,
    tally,
)
from experiments.studies.kit.study import VALUES, Study, how_it_was_made, titled
from experiments.studies.kit.values import write_values

TITLE = "SAM, SAGM and DISAM under domain shift: the papers' claims, tested"
EFFECTS = "effects.png"
MARKS: dict[str, str] = dict(zip(ANSWERS, "✓✗≈?", strict=True))
LEGEND = (
    "An answer comes from the differences of two methods, seed by seed, and their 95 % "
    "interval in brackets. **No difference that matters here**: the interval lies within "
    "the margin, by two one-sided tests. **Seen here**, **the opposite seen here**: "
    "otherwise, where the difference is apart from 0. **Cannot be told**: anything else; "
    "more seeds may tell. Both kinds of p-values are adjusted by Holm over the claims that "
    "a study tests in a setting, whichever way they point; they stand on a study's page, "
    "with those of the sign-flip test, which asks for no normal distribution. Intervals "
    "speak of seeds (first weights, batches, held-out concepts), for these domains and "
    "images alone."
)
EFFECTS_TITLE = "Accuracy on what was not trained on: every comparison"
SHARED = (
    "Times are of one process. A run that several studies share was made once and counts "
    "in each of them, so the total is an upper bound."
)


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
    if report.headline:
        out.mkdir(parents=True, exist_ok=True)
        draw_rows(report.headline, out / EFFECTS)
    kept = [(section.folder.name, section.values.rows) for section in report.sections]
    write_values(out / VALUES, kept)
    html, markdown = as_html(report, out), as_markdown(report, out)
    write_whole(out / "report.html", html)
    write_whole(out / "report.md", markdown)
    return report.findings


def as_html(report: Report, out: Path) -> str:
    """The report as one HTML file, figures and style inside; the first lies in `out`."""
    effects = out / EFFECTS if report.headline else None
    return _TEMPLATES.get_template("report.html.jinja").render(
        report=report, effects=effects
    )


def as_markdown(report: Report, out: Path) -> str:
    """The report in Markdown.

    Args:
      report: to tell.
      out: the folder that it will lie in, where links to figures start.

    Returns:
      The text.
    """
    parts = [f"# {TITLE}", report.summary]
    if report.headline:
        parts += [f"![{EFFECTS_TITLE}]({EFFECTS})", f"**{EFFECTS_TITLE}.** {KEY}"]
    parts += [report.abstract, _plain_table(report.counts)]
    parts += ["## Setting and power", _plain_table(report.scope), titled(report.power)]
    parts += ["## Contents", _contents(report)]
    parts += ["## How to read an answer", LEGEND]
    for section in report.sections:
        parts += _section_parts(section, out)
    if report.waiting:
        parts += ["## Not run yet"]
        parts += [f"{_text(t)}\n\n    {command_of(n)}" for n, t in report.waiting.items()]
    parts += ["## The whole set", titled(margins_table())]
    parts += [f"Total time: {report.time}. {SHARED} Every value: [{VALUES}]({VALUES})."]
    parts += [f"Machines: {'; '.join(report.machines)}."]
    parts += [f"Commits: {', '.join(report.commits)}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain_table(table: Table) -> str:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return titled(Table(table.caption, table.columns, rows))


def _contents(report: Report) -> str:
    lines = []
    for section in report.sections:
        counts = " ".join(f"{MARKS[a]} {n}" for a, n in tally(section.findings) if n)
        lines.append(
            f"{section.number}. [{_text(section.title)}](#{section.anchor}) ({counts})"
        )
    return "\n".join(lines)


def _section_parts(section: Section, out: Path) -> list[str]:
    """The blocks of a study."""
    heading = f"## {section.number}. {_text(section.title)}"
    parts = [f'<a id="{section.anchor}"></a>', heading]
    for i, figure in enumerate(section.figures, start=1):
        file = Path(os.path.relpath(section.folder / figure.file, out)).as_posix()
        title = _text(figure.title)
        parts.append(f"![{title}]({quote(file)})")
        parts.append(f"**Figure {section.number}.{i}. {title}** {_text(figure.caption)}")
    parts += ["### Answers"]
    for i, claim in enumerate(section.claims, start=1):
        told = f"**{section.number}.{i}** {_text(claim.text)} ({_text(claim.source)})"
        parts.append("\n".join([told, *("- " + _answer(f) for f in claim.answers)]))
    page = Path(os.path.relpath(section.folder / "page.md", out)).as_posix()
    parts.append(f"[Protocol, setting, p-values and numbers]({quote(page)}); made by")
    return [*parts, f"    {section.made['command']}"]


def _answer(finding: Finding) -> str:
    note = f"; {finding.note}" if finding.note else ""
    told = f"{MARKS[finding.answer]} **{finding.answer}**, {_text(finding.where)}: "
    return f"{told}{_text(finding.effect + note)}"


def _text(text: str) -> str:
    """Markdown that holds no HTML: `<` is meant as it stands, but for links."""
    pieces = text.split("`")  # every other one is code, where nothing is escaped
    pieces[::2] = [re.sub(r"<(?=[A-Za-z/!?])(?!https?:)", "&lt;", p) for p in pieces[::2]]
    return "`".join(pieces)


def _cell(text: str) -> str:
    """The same, on one line: a cell of a table, which escapes its own bars."""
    return " ".join(_text(text).split())


# No HTML and no images: the report asks for nothing from outside.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable("image")


def _plain(text: str) -> str:
    """Markdown without its marks."""
    tokens = _MARKDOWN.parseInline(text)[0].children or []
    return " ".join("".join(token.content for token in tokens).split())


def _unbroken(text: str) -> str:
    """No line ends within an interval or around an equals sign."""
    pattern = r"\[[-+\d., ]+\]|\S+ [=<] \S+"
    return re.sub(pattern, lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


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
    "how_it_was_made": how_it_was_made,
    "scope_table": scope_table,
    "slug": lambda answer: answer.replace(" ", "-"),
}
_TEMPLATES.globals |= {
    "title": TITLE,
    "marks": MARKS,
    "legend": LEGEND,
    "shared": SHARED,
    "effects_title": EFFECTS_TITLE,
    "key": KEY,
    "margins": margins_table(),
    "tally": tally,
    "command": command_of,
}
