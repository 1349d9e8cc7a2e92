"""Pictures and their English names, for pretraining, from pinned sets of free icons.

`python -m experiments.data.icon_pairs.pairs --out DIR` fetches the sets of icon_sets.csv,
draws them, and writes an archive for each; those that are there already are kept. At last
it writes the notices beside the weights of icons_clip. It needs npm, pillow and resvg-py
0.5.0. Nothing under a share-alike license gets in, and no drawing that `emoji_concepts`
shows.
"""

import argparse
import csv
import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from experiments.data.emoji_styles import ARCHIVE, archive, sources
from experiments.data.emoji_styles.render import rasterize, svg_of
from experiments.data.icon_pairs.names import Names, bare, is_toned
from experiments.data.icon_pairs.notices import check_license, notices
from experiments.files import writing
from experiments.models.icons_clip import NOTICES

SIZE = 64
ICON_SETS = Path(__file__).with_name("icon_sets.csv")
# Sets whose drawings emoji_concepts shows, with the set that knows their code points. The
# flat ones are those of `fluent` in other colors, line for line.
EVALUATED = {
    "noto": "noto",
    "twemoji": "twemoji",
    "fluent-emoji": "fluent-emoji-high-contrast",
    "fluent-emoji-flat": "fluent-emoji-high-contrast",
    "fluent-emoji-high-contrast": "fluent-emoji-high-contrast",
}
_SHORTCODES = ("cldr", "emojibase", "joypixels", "iamcal", "github", "emojibase-legacy")
_DRAWINGS_OF_ONE_NAME = 2  # in one set: filled and outlined


class IconSet(NamedTuple):
    """An icon set as its package has it.

    Attributes:
      info: its name, author, license and whether it is colored.
      icons: the drawings.
      styles: endings that tell drawings of one thing apart.
      codepoints: of the icons that are emoji, where the package knows.
    """

    info: Mapping[str, Any]
    icons: dict[str, Any]
    styles: frozenset[str]
    codepoints: Mapping[str, str]


def packages(path: Path = ICON_SETS) -> dict[str, sources.Package]:
    """The pinned packages by the name of their set."""
    with path.open(newline="") as lines:
        found = [sources.Package(**row) for row in csv.DictReader(lines)]
    return {package.name.partition("/")[2]: package for package in found}


def read_set(tarball: Path) -> IconSet:
    """The icon set of a package.

    Raises:
      ValueError: its license is not allowed.
    """
    read = functools.partial(sources.read_json, tarball)
    info = read("info.json")
    check_license(info)
    styles = frozenset(read("metadata.json").get("suffixes", {}))
    names = {icon: codepoints for codepoints, icon in read("chars.json").items()}
    return IconSet(info, read("icons.json"), styles, names)


def read_names(tarball: Path) -> Names:
    """The names of emoji, from emojibase's package."""
    read = functools.partial(sources.read_json, tarball)
    others = [read(f"en/shortcodes/{name}.json") for name in _SHORTCODES]
    return Names(read("en/data.json"), others)


def choose(icon_set: IconSet, names: Names) -> dict[str, str]:
    """The icons of a set that are drawn, and what each is called."""
    icons = icon_set.icons["icons"]
    aliases: dict[str, list[str]] = {}
    for alias, target in icon_set.icons.get("aliases", {}).items():
        if target.keys() == {"parent"}:  # neither turned nor mirrored
            aliases.setdefault(target["parent"], []).append(alias)
    counts: Counter[str] = Counter()
    chosen = {}
    for icon in icons:
        found = names.find(icon, aliases.get(icon, ()), icon_set.styles)
        if found and not is_toned(icon, icons) and counts[found] < _DRAWINGS_OF_ONE_NAME:
            counts[found] += 1
            chosen[icon] = found
    return chosen


def others(
    chosen: Mapping[str, str], codepoints: Mapping[str, str], evaluated: set[str]
) -> dict[str, str]:
    """The icons that are known to be emoji of none of the evaluated concepts.

    Args:
      chosen: what icons are called.
      codepoints: of icons that are emoji.
      evaluated: code points of the concepts.
    """
    shown = set(map(bare, evaluated))
    return {
        icon: name
        for icon, name in chosen.items()
        if icon in codepoints and bare(codepoints[icon]) not in shown
    }


def draw(icon_set: IconSet, chosen: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pictures of the icons that can be drawn; the blank ones are left out."""
    for icon, name in chosen.items():
        try:
            picture = rasterize(svg_of(icon_set.icons, icon, SIZE), SIZE)
        except ValueError:  # the renderer cannot read the drawing
            continue
        if picture.std() > 1:
            yield name, picture


def build(out: Path) -> None:
    """Writes DIR/SET-VERSION.npz for every set, each whole or not at all."""
    cache = out / "packages"
    cache.mkdir(parents=True, exist_ok=True)
    pinned = packages()
    evaluated = set(archive.read(ARCHIVE)["codepoints"].tolist())
    names = read_names(sources.fetch(sources.UNICODE_SUBGROUPS, cache))
    infos = {}
    for name, package in track(pinned.items(), "Drawing"):
        icon_set = read_set(sources.fetch(package, cache))
        infos[package] = icon_set.info
        path = out / f"{name}-{package.version}.npz"
        if path.exists():
            continue
        chosen = choose(icon_set, names)
        if name in EVALUATED:
            knowing = read_set(sources.fetch(pinned[EVALUATED[name]], cache))
            chosen = others(chosen, knowing.codepoints, evaluated)
        _write(path, icon_set, chosen)
    NOTICES.write_text(notices(infos), encoding="utf-8")


def _write(path: Path, icon_set: IconSet, chosen: Mapping[str, str]) -> None:
    words, pictures = zip(*draw(icon_set, chosen), strict=True)
    with writing(path) as whole:
        np.savez_compressed(
            whole,
            images=np.stack(pictures),
            names=np.array(words),
            colored=np.array(icon_set.info["palette"]),
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the archives")
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
