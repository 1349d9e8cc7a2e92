"""Builds emoji_styles_64.npz and concept_names.txt from pinned npm packages.

`--check` compares with what is there, and writes nothing.

Run as `python -m experiments.data.emoji_styles.build`. It needs pillow and
resvg-py 0.5.0, for the pixels depend on the renderer.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from experiments.data.emoji_styles import ARCHIVE, DOMAINS, NAMES, archive, sources
from experiments.data.emoji_styles.concepts import CLASSES, Concept, choose, icon_names
from experiments.data.emoji_styles.render import rasterize, svg_of

SIZE = 64


def build(cache: Path) -> tuple[dict[str, np.ndarray], str]:
    """All arrays of the archive, from packages downloaded into the cache, and all names.

    Returns:
      The arrays, and the concepts' names in the same order, a line each. The arrays are
      label: uint8 [concepts]; codepoints: str [concepts]; classes: str [classes]; and
      image_STYLE: uint8 [concepts, 64, 64, 3] for each of the four styles.
    """
    cache.mkdir(parents=True, exist_ok=True)
    packages = [sources.ICON_SETS[style] for style in DOMAINS]
    tarballs = [
        sources.fetch(package, cache)
        for package in track([*packages, sources.UNICODE_SUBGROUPS], "Downloading")
    ]
    metadata = tarballs.pop()
    sets = {
        style: sources.read_json(tarball, "icons.json")
        for style, tarball in zip(DOMAINS, tarballs, strict=True)
    }
    chars = {
        style: sources.read_json(tarball, "chars.json")
        for style, tarball in zip(DOMAINS, tarballs, strict=True)
    }
    concepts = choose(
        sources.read_json(metadata, "en/data.json"),
        sources.read_json(metadata, "meta/groups.json")["subgroups"],
        icon_names({style: icon_set["icons"] for style, icon_set in sets.items()}, chars),
    )
    arrays = {
        "label": np.array([concept.label for concept in concepts], np.uint8),
        "codepoints": np.array([concept.codepoints for concept in concepts]),
        "classes": np.array(CLASSES),
    }
    for style in DOMAINS:
        arrays[f"image_{style}"] = _draw(concepts, style, sets[style])
    return arrays, "".join(f"{concept.name}\n" for concept in concepts)


def differences(arrays: dict[str, np.ndarray], path: Path) -> list[str]:
    """What a build and a written archive do not have in common, one line per array."""
    written = archive.read(path)
    lines = [f"{name}: only in the build" for name in arrays.keys() - written.keys()]
    lines += [f"{name}: only in the archive" for name in written.keys() - arrays.keys()]
    for name in arrays.keys() & written.keys():
        sums = {archive.content_sha256({name: a[name]}) for a in (arrays, written)}
        if len(sums) > 1:
            lines.append(f"{name}: the contents differ")
    return sorted(lines)


def _draw(concepts: list[Concept], style: str, icon_set: dict[str, Any]) -> np.ndarray:
    names = [concept.icons[style] for concept in concepts]
    return np.stack(
        [
            rasterize(svg_of(icon_set, name, SIZE), SIZE)
            for name in track(names, f"Drawing {style}")
        ]
    )


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ARCHIVE, help="the archive to write")
    parser.add_argument("--cache", type=Path, help="keep the downloads here")
    parser.add_argument("--check", action="store_true", help="compare with the archive")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        arrays, names = build(args.cache or Path(temporary))
    print(f"{len(arrays['label'])} concepts, sha256 {archive.content_sha256(arrays)}")
    if args.check:
        found = differences(arrays, args.out)
        if names != NAMES.read_text(encoding="utf-8"):
            found.append(f"{NAMES.name}: the contents differ")
        print("\n".join(found) or f"equal to {args.out}")
        return 1 if found else 0
    archive.write(args.out, arrays)
    NAMES.write_text(names, encoding="utf-8")
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
