"""A hook of MkDocs: every notebook becomes a page of Markdown and the images that it shows.

So it looks, links and is searched like any other, and nothing is fetched from elsewhere.
"""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

Cell = dict[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page and the images of every notebook among the site's files."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        uri = Path(notebook.src_uri)
        cells = json.loads(notebook.content_string)["cells"]
        text = [f'<a href="{uri.name}" download>This page as a notebook</a>\n']
        for i, cell in enumerate(cells):
            text.append(_source(cell))
            for shown in _shown(cell):
                if isinstance(shown, str):
                    text.append(_fenced("text", shown))
                    continue
                image = f"{uri.stem}_{i}.png"
                files.append(
                    File.generated(config, str(uri.with_name(image)), content=shown)
                )
                text.append(f"![{_alt(cell)}]({image})\n")
        page = str(uri.with_suffix(".md"))
        files.append(File.generated(config, page, content="\n".join(text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks, as they lead in the repository, lead to their pages here."""
    return re.sub(r"\]\(([\w/.]+)\.ipynb\)", r"](\1.md)", markdown)


def _source(cell: Cell) -> str:
    source = "".join(cell["source"])
    return _fenced("python", source) if cell["cell_type"] == "code" else source + "\n"


def _shown(cell: Cell) -> Iterator[str | bytes]:
    """The text and the PNGs below a cell, in order."""
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream":
            yield "".join(output["text"])
        elif "image/png" in output.get("data", {}):
            yield base64.b64decode(output["data"]["image/png"])


def _alt(cell: Cell) -> str:
    """Of a figure: the comment that its cell begins with."""
    return "".join(cell["source"]).splitlines()[0].removeprefix("#").strip()


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"
