"""What an icon shows, in English words, from what its set calls it."""

import re
from collections.abc import Collection, Iterable, Mapping

from experiments.data.emoji_styles.concepts import normalize

# Words of interfaces: such an icon shows a mark on a thing, or nothing at all.
_INTERFACE = frozenset(
    re.findall(
        r"\w+",
        "add align arrow arrows badge border box bracket brand caret center check checkbox "
        "chevron circle circled code collapse column columns crop cursor dash delete "
        "disabled double down edit error expand export file files filter folder format "
        "forward frame github grid half import info item items layer layout left letter "
        "list loading logo lock menu minus multiple negative none number octagon off page "
        "pane panel plus positive question rectangle refresh remove resize right row rows "
        "search selection setting settings share slash sort split square sync tab table "
        "tag text toggle tooltip triangle unlock up update upload vertical horizontal view "
        "window x zoom",
    )
)
_STYLE = {"outline", "outlined", "filled", "fill", "solid", "variant", "alt", "alternate"}
_STYLE |= {"one", "two"}
_TONES = re.compile(r"(-(light|medium|dark|skin-tone))+$")
_IGNORED = re.compile("1f3f[b-f]|2640|2642|200d|27a1")  # skin, gender, joiner, facing right
_MOST_WORDS = 5


class Names:
    """English names of icons: CLDR's where a set means an emoji, else its own words."""

    def __init__(
        self,
        emoji: Iterable[Mapping[str, str]],
        others: Iterable[Mapping[str, str | list[str]]] = (),
    ):
        """Reads the names of emoji.

        Args:
          emoji: entries of emojibase's data.json.
          others: other names, by code points: emojibase's shortcodes.
        """
        labels = {entry["hexcode"]: entry["label"] for entry in emoji}
        self._emoji = {_squeeze(label): label for label in labels.values()}
        for names in others:
            for codepoints in names.keys() & labels.keys():
                found = names[codepoints]
                for name in [found] if isinstance(found, str) else found:
                    self._emoji.setdefault(_squeeze(name), labels[codepoints])

    def find(self, icon: str, aliases: Iterable[str], styles: Collection[str]) -> str:
        """What an icon shows, or nothing where its name does not tell.

        Args:
          icon: its name.
          aliases: its other names.
          styles: endings by which its set tells drawings of one thing apart.
        """
        plain = _words(icon, styles)
        spellings = map(_squeeze, (icon, *aliases, " ".join(plain)))
        known = (self._emoji[name] for name in spellings if name in self._emoji)
        found = next(known, "")
        if icon.startswith("flag-") or found.startswith("flag:"):
            return ""
        if found or not plain or len(plain) > _MOST_WORDS or _INTERFACE & set(plain):
            return found
        return " ".join(plain)


def is_toned(icon: str, icons: Collection[str]) -> bool:
    """Whether an icon is another one in a tone of skin, or drawn light or dark."""
    plain = _TONES.sub("", icon)
    return plain != icon and plain in icons


def bare(codepoints: str) -> str:
    """Code points without skin, gender and the way that somebody faces.

    Emoji that differ in no more are all but the same drawing.
    """
    parts = normalize(codepoints).split("-")
    return "-".join(part for part in parts if not _IGNORED.fullmatch(part))


def _squeeze(text: str) -> str:
    """A name without what icon sets spell differently: case, hyphens, blanks."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def _words(icon: str, styles: Collection[str]) -> list[str]:
    for style in sorted(styles, key=len, reverse=True):
        if style and icon.endswith(f"-{style}"):
            icon = icon.removesuffix(f"-{style}")
            break
    words = [word for word in icon.split("-") if not word[:1].isdigit()]
    while words and words[-1] in _STYLE:
        words.pop()
    return words
