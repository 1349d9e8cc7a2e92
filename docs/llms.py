"""llms.txt and llms-full.txt, written beside the site's pages at every build of them.

The first lists the pages for a language model (llmstxt.org), the second is all their text;
where a page of the reference names an object, its signature and docstring stand.
"""

import ast
import importlib
import inspect
import json
import os
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
LINKED = ("studies/report.md",)  # evidence, as long as a quarter of the rest: named alone


def pages(nav: Any, section: str = "Overview") -> Iterator[tuple[str, str, str]]:
    """(section, title, path) of every page of mkdocs.yml's nav, in its order."""
    for entry in nav:
        for title, value in entry.items():
            if isinstance(value, str):
                yield section, title, value
            else:
                yield from pages(value, title)


def overview(config: Any) -> str:
    """llms.txt: the pages by section, each with its first sentence."""
    listed: dict[str, list[str]] = {}
    for section, title, path in pages(config["nav"]):
        page = f"[{title}]({path.rpartition('.')[0]}.html)"
        listed.setdefault(section, []).append(f"- {page}: {_first_sentence(path)}")
    sections = [f"## {name}\n\n" + "\n".join(lines) for name, lines in listed.items()]
    return "\n\n".join(
        [
            f"# {config['site_name']}\n\n> {config['site_description']}",
            "All pages in one file: [llms-full.txt](llms-full.txt)",
            *sections,
        ]
    )


def everything(config: Any) -> str:
    """llms-full.txt: every page after the other, but those that are only linked."""
    paths = [path for _, _, path in pages(config["nav"]) if path not in LINKED]
    texts = [f"<!-- {path} -->\n\n{_expanded(_text(path))}" for path in paths]
    return "\n\n".join(texts)


def _text(path: str) -> str:
    """Of a page, or of the notebook that the site makes it of."""
    if (DOCS / path).exists():
        return (DOCS / path).read_text()
    cells = json.loads((DOCS / path).with_suffix(".ipynb").read_text())["cells"]
    sources = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    return "\n\n".join(
        f"```python\n{text}\n```" if kind == "code" else text for text, kind in sources
    )


def _first_sentence(path: str) -> str:
    """What a page says of itself: of its first paragraph of prose, the first sentence."""
    paragraphs = re.split(r"\n\s*\n", _text(path))
    prose = [p for p in paragraphs if re.match(r"[`*]?\w", p)]
    unlinked = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(prose[0].split()))
    return unlinked.partition(". ")[0].rstrip(".:") + "."


def _expanded(text: str) -> str:
    """The page with the objects that it names in place of their names."""
    directive = r"^::: (\S+)\n?((?: +.*\n?)*)"
    return re.sub(directive, lambda found: _described(found[1]), text, flags=re.MULTILINE)


def _described(path: str) -> str:
    """Signature and docstring of a public object, and of a class's methods."""
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    except (OSError, TypeError):  # a type's other name has no source
        return f"### {path}\n"
    inner = node.body if isinstance(node, ast.ClassDef) else []
    methods = [m for m in inner if isinstance(m, ast.FunctionDef) and m.name[0] != "_"]
    return "\n".join([_told(node, path), *(_told(m, f"{path}.{m.name}") for m in methods)])


def _told(node: Any, path: str) -> str:
    arguments = f"({ast.unparse(node.args)})" if hasattr(node, "args") else ""
    return f"### {path}{arguments}\n\n{ast.get_docstring(node) or ''}\n"


def on_config(config: Any) -> None:
    """On a host that says its address, pages name it, and the repository they are from."""
    if "READTHEDOCS_CANONICAL_URL" in os.environ:
        project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
        config["site_url"] = os.environ["READTHEDOCS_CANONICAL_URL"]
        config["repo_url"] = project["urls"]["Repository"]


def on_post_build(config: Any) -> None:
    """Is called by mkdocs when the pages are there."""
    site = Path(config["site_dir"])
    (site / "llms.txt").write_text(overview(config))
    (site / "llms-full.txt").write_text(everything(config))
