"""Licenses of icon sets: which are taken, and what is said of them."""

from collections.abc import Mapping
from typing import Any

from experiments.data.emoji_styles.sources import Package

# Those that ask for no more than attribution.
ALLOWED = ("Apache-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT")

_HEAD = """\
# Licenses of icons_clip

Written by `experiments/data/icon_pairs/pairs.py`. The weights in `icons_clip.safetensors`
are trained on drawings that are the work of others, and on their English names. The
drawings are not in this repository. Each set is named here with its authors and its
license, as its package says them; every license is one of {allowed}.
None is share-alike.

**What was changed:** of each set a part was chosen, drawn at 64x64 pixels on white, named
by the words of its file name or by Unicode's English name, and changed at random in place,
size and color while training. The authors have not endorsed the model.

The names of emoji are those of [emojibase-data](https://github.com/milesj/emojibase)
17.0.0, Copyright (c) 2017-2019 Miles Johnson, MIT.

| set | by | license | taken from |
|---|---|---|---|
"""


def check_license(info: Mapping[str, Any]) -> None:
    """Refuses an icon set unless its license is known to ask for attribution at most.

    Args:
      info: the set's info.json.

    Raises:
      ValueError: the license is another, or is not said, or its text is not.
    """
    said = info.get("license", {})
    if said.get("spdx") not in ALLOWED or "url" not in said:
        raise ValueError(
            f"the license of {info.get('name')} is {said}: only {', '.join(ALLOWED)} are "
            "taken, with the url of the text; take the set out of icon_sets.csv."
        )


def notices(infos: Mapping[Package, Mapping[str, Any]]) -> str:
    """The page that names every set, its authors and its license."""
    return _HEAD.format(allowed=", ".join(ALLOWED)) + "".join(
        f"| {info['name']} | [{info['author']['name']}]({info['author']['url']}) | "
        f"[{info['license']['spdx']}]({info['license']['url']}) | "
        f"`{package.name}` {package.version} |\n"
        for package, info in infos.items()
    )
