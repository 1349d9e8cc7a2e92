"""The README as a package index shows it: its links lead into the repository."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def with_whole_links(text: str, repository: str, version: str) -> str:
    """The text with `](docs/page.md)` as a link to that file of the version's tag."""

    def whole(link: re.Match[str]) -> str:
        start, target = link.groups()
        kind = "raw" if start.startswith("!") else "blob"
        return f"{start}({repository}/{kind}/v{version}/{target})"

    return re.sub(r"(!?\[[^\]]*\])\((?!\w+:|#)([^)\s]+)\)", whole, text)


class Readme(MetadataHookInterface):
    """Makes the readme of the distributions."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Is called with pyproject.toml's project table."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_whole_links(
                text, metadata["urls"]["Repository"], metadata["version"]
            ),
        }
