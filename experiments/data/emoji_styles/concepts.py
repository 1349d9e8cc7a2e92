"""Which emoji are in the data set, of which class, and by what name each style has them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

SUBGROUPS_OF_CLASS = {
    "animal": (
        "animal-mammal",
        "animal-bird",
        "animal-amphibian",
        "animal-reptile",
        "animal-marine",
        "animal-bug",
    ),
    "face": (
        "face-smiling",
        "face-affection",
        "face-tongue",
        "face-hand",
        "face-neutral-skeptical",
        "face-sleepy",
        "face-unwell",
        "face-hat",
        "face-glasses",
        "face-concerned",
        "face-negative",
        "face-costume",
        "cat-face",
        "monkey-face",
    ),
    "food": (
        "food-fruit",
        "food-vegetable",
        "food-prepared",
        "food-asian",
        "food-sweet",
    ),
    "hand": (
        "hand-fingers-open",
        "hand-fingers-partial",
        "hand-single-finger",
        "hand-fingers-closed",
        "hands",
        "hand-prop",
    ),
    "person": (
        "person",
        "person-gesture",
        "person-role",
        "person-fantasy",
        "person-activity",
        "person-sport",
        "person-resting",
    ),
    "place": ("place-geographic", "place-building", "place-religious"),
    "vehicle": ("transport-ground", "transport-water", "transport-air"),
}
CLASSES = tuple(SUBGROUPS_OF_CLASS)

_CLASS_OF_SUBGROUP = {s: c for c, group in SUBGROUPS_OF_CLASS.items() for s in group}
_PRESENTATION = "fe0f"  # asks for a colored drawing; says nothing of what is drawn
_GENDER_SIGNS = {"2640", "2642"}


class Concept(NamedTuple):
    """One emoji of the data set.

    Attributes:
      codepoints: its Unicode code points, lower-case hexadecimal, joined by hyphens.
      label: index into `CLASSES`.
      name: in English, as CLDR has it.
      icons: name of its drawing in each style.
    """

    codepoints: str
    label: int
    name: str
    icons: dict[str, str]


def normalize(codepoints: str) -> str:
    """Code points as every source spells them: lower case, no presentation selector."""
    return "-".join(p for p in codepoints.lower().split("-") if p != _PRESENTATION)


def icon_names(icon_sets: dict[str, Any], chars: dict[str, Any]) -> dict[str, Any]:
    """Per style, the name of the drawing of each emoji that the style has.

    Args:
      icon_sets: per style, its icons by name.
      chars: per style, icon names by code points. That of fluent is empty; its icons go
        by the same names as those of mono, the other style of the same artists.

    Returns:
      Per style, icon names by normalized code points.
    """
    chars = chars | {"fluent": chars["mono"]}
    return {
        style: {normalize(c): n for c, n in chars[style].items() if n in icons}
        for style, icons in icon_sets.items()
    }


def choose(
    emoji: Iterable[dict[str, Any]], subgroups: dict[str, str], names: dict[str, Any]
) -> list[Concept]:
    """The emoji of a class of ours that every style has drawn, by code points.

    Skin tones are not listed on their own in the metadata, and flags and families belong
    to no class; a man or woman spelled with a gender sign is left out, for it is all but
    the same drawing as the person without one.

    Args:
      emoji: entries of emojibase's data.json.
      subgroups: names of the Unicode sub-groups by number.
      names: per style, icon names by code points, from `icon_names`.
    """
    concepts = []
    for entry in emoji:
        codepoints = normalize(entry["hexcode"])
        kind = _CLASS_OF_SUBGROUP.get(subgroups.get(str(entry.get("subgroup")), ""))
        if kind is None or _GENDER_SIGNS & set(codepoints.split("-")):
            continue
        if all(codepoints in of_style for of_style in names.values()):
            label = CLASSES.index(kind)
            icons = {style: of_style[codepoints] for style, of_style in names.items()}
            concepts.append(Concept(codepoints, label, entry["label"], icons))
    return sorted(concepts)
