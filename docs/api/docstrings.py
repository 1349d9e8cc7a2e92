"""How the reference reads the docstrings: as plain text with formulas, not as Markdown."""

import re
from typing import Any

import griffe


def to_markdown(text: str) -> str:
    """A docstring in which `>= 0`, `<g, p>` and `T**2` stay as they are written.

    `Example:` becomes Google's `Examples:`, doctests outside of it are fenced, and a line
    for several arguments becomes one for each.

    Args:
      text: a docstring.

    Returns:
      The docstring for the reference.
    """
    lines, in_examples, in_doctest = [], False, False
    for line in _one_line_per_name(text).splitlines():
        if re.fullmatch(r"[A-Z]\w+:", line):
            in_examples = line == "Example:"
            line = "Examples:" if in_examples else line
        starts = not in_doctest and line.lstrip().startswith(">>>")
        ends = in_doctest and not line.strip()
        if (starts or ends) and not in_examples:
            indent = " " * (len(line) - len(line.lstrip()))
            lines.append(f"{indent}```pycon" if starts else "```")
        in_doctest = (in_doctest or starts) and not ends
        lines.append(line if in_doctest else _escaped(line))
    return "\n".join(lines)


def _one_line_per_name(text: str) -> str:
    """Under `Args:`, a line `mask, descent: ...` becomes one for each of the names."""
    args, several = r"^Args:\n(?: .*\n?|\n)*", r"^( +)(\w+(?:, \w+)+)(:.*(?:\n\1 +.*)*)"

    def expanded(line: re.Match[str]) -> str:
        indent, names, said = line.groups()
        return "\n".join(f"{indent}{name}{said}" for name in names.split(", "))

    def expand(section: re.Match[str]) -> str:
        return re.sub(several, expanded, section[0], flags=re.MULTILINE)

    return re.sub(args, expand, text, flags=re.MULTILINE)


def _escaped(line: str) -> str:
    """The line with Markdown's and HTML's signs escaped outside of `code`."""
    parts = re.split(r"(`[^`]*`)", line)
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("<", "&lt;").replace(">", "&gt;").replace("*", r"\*")
    return "".join(parts)


class PlainText(griffe.Extension):
    """Applies `to_markdown` to every docstring that is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Is called once for every object."""
        del kwargs
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)
