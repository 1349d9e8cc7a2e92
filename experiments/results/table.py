"""A table of text: in Markdown, CSV and LaTeX."""

import csv
import dataclasses
import io
from collections.abc import Sequence

LATEX = {
    **{character: f"\\{character}" for character in "%&_#${}"},
    **{character: f"{{{character}}}" for character in "[]"},  # else of a row's end
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
      caption: what the table shows.
      columns: headings.
      rows: cells; one that is not known is empty.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """With the caption above."""
        return f"{self.caption}\n\n{grid(self.columns, self.rows)}\n"

    def csv(self) -> str:
        """A line of headings and a line for each row."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows((self.columns, *self.rows))
        return text.getvalue()

    def latex(self) -> str:
        """A table environment, two columns of names first; needs the package booktabs."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join(map(_escape, cells)) + r" \\"

        return "\n".join(
            (
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_escape(self.caption)}}}",
                rf"\begin{{tabular}}{{ll{'c' * (len(self.columns) - 2)}}}",
                r"\toprule",
                line(self.columns),
                r"\midrule",
                *map(line, self.rows),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            )
        )


def grid(
    columns: Sequence[str], rows: Sequence[Sequence[str]], rules: Sequence[str] = ()
) -> str:
    """Columns and rows in Markdown.

    Args:
      columns: headings.
      rows: cells; a bar in one is escaped.
      rules: what stands below each heading, e.g. `---:` where numbers stand to the right.

    Returns:
      The lines, no line end after the last.
    """

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rule = "|".join(rules or ["---"] * len(columns))
    return "\n".join((line(columns), f"|{rule}|", *map(line, rows)))


def _escape(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
