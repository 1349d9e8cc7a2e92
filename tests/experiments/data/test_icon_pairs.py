import io
import json
import tarfile
from typing import NamedTuple

import numpy as np
import pytest

from experiments.data import DomainData
from experiments.data.emoji_styles.sources import Package
from experiments.data.icon_pairs import zero_shot
from experiments.data.icon_pairs.names import Names, bare, is_toned
from experiments.data.icon_pairs.notices import check_license, notices
from experiments.data.icon_pairs.pairs import (
    EVALUATED,
    IconSet,
    choose,
    draw,
    others,
    packages,
    read_set,
)
from experiments.models.icons_clip import NOTICES

EMOJI = [
    {"hexcode": "1F42F", "label": "tiger face"},
    {"hexcode": "1F1EB-1F1F7", "label": "flag: France"},
    {"hexcode": "1F600", "label": "grinning face"},
]
NAMES = Names(EMOJI, [{"1F42F": ["tiger_face", "tigerface2"], "1F98A": "fox"}])
SOMEONE = {"name": "Someone", "url": "https://made.up"}
MIT = {"spdx": "MIT", "url": "https://made.up/license"}
INFO = {"name": "Made up", "author": SOMEONE, "license": MIT, "palette": True}
SQUARE = {"body": '<path fill="#f00" d="M0 0h16v16H0z"/>'}


def icon_set(icons, aliases=(), styles=("", "outline", "24-line")):
    drawings = {"icons": dict.fromkeys(icons, SQUARE), "aliases": dict(aliases)}
    return IconSet(INFO, drawings, frozenset(styles), {})


@pytest.mark.parametrize(
    ("icon", "name"),
    [
        ("grinning-face", "grinning face"),
        ("grinningface", "grinning face"),
        ("grinning-face-1", "grinning face"),
        ("tigerface2", "tiger face"),  # by a shortcode
        ("traffic-light", "traffic light"),
        ("traffic-light-outline", "traffic light"),
        ("cat-24-line", "cat"),
        ("2-cats", "cats"),
        ("folder-open", ""),  # of an interface
        ("flag-france", ""),
        ("a-b-c-d-e-f", ""),  # too long to be a name
        ("24", ""),
    ],
)
def test_the_name_of_an_icon_is_cldrs_or_its_own_words(icon, name):
    assert NAMES.find(icon, (), ("", "outline", "24-line")) == name


def test_a_set_gives_two_drawings_of_a_name_and_no_tones_of_skin():
    icons = ["cat", "cat-outline", "cat-alt", "man", "man-dark", "man-light-skin-tone"]
    icons += ["traffic-light", "file", "cheeky"]
    aliases = {
        "grinning-face": {"parent": "cheeky"},
        "left-cat": {"parent": "cat", "hFlip": 1},
    }
    assert choose(icon_set(icons, aliases), NAMES) == {
        "cat": "cat",
        "cat-outline": "cat",
        "man": "man",
        "traffic-light": "traffic light",
        "cheeky": "grinning face",  # by its other name
    }
    assert is_toned("man-dark", icons) and not is_toned("traffic-light", icons)


def test_no_evaluated_concept_is_drawn_whatever_the_skin_or_the_gender():
    chosen = dict.fromkeys(["mage", "woman-mage", "cloud", "unknown"], "name")
    codepoints = {
        "mage": "1f9d9",
        "woman-mage": "1f9d9-200d-2640-fe0f",
        "cloud": "2601-fe0f",
    }
    assert [*others(chosen, codepoints, {"1f9d9"})] == ["cloud"]
    assert bare("1F9D1-1F3FD-200D-1F33E") == bare("1f9d1-200d-1f33e") != bare("1f9d1")


@pytest.mark.parametrize(
    "license",
    [
        MIT | {"spdx": "CC-BY-SA-4.0"},
        MIT | {"spdx": "GPL-3.0-or-later"},
        {"title": "Free", "url": "https://made.up"},
        {"spdx": "MIT"},  # whose text is nowhere
        {},
    ],
)
def test_a_license_that_is_share_alike_or_unclear_is_refused(license):
    with pytest.raises(ValueError, match=r"license of Made up is .*: only Apache-2\.0, "):
        check_license(INFO | {"license": license})


def tarball(path, info):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {
            "info": info,
            "icons": icon_set(["cat"]).icons,
            "metadata": {"suffixes": {"": "Plain", "bold": "Bold"}},
            "chars": {"1f431": "cat"},
        }.items():
            text = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}.json")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path


def test_a_package_is_read_where_its_own_license_allows_it(tmp_path):
    read = read_set(tarball(tmp_path / "a.tgz", INFO))
    assert read.codepoints == {"cat": "1f431"}
    assert read.styles == {"", "bold"}
    share_alike = INFO | {"license": MIT | {"spdx": "CC-BY-SA-4.0"}}
    with pytest.raises(ValueError, match="CC-BY-SA-4"):
        read_set(tarball(tmp_path / "b.tgz", share_alike))


def test_pairs_are_pictures_with_names_and_blank_ones_are_left_out():
    pytest.importorskip("resvg_py")
    made = icon_set(["cat", "nothing", "broken"])
    made.icons["icons"] |= {"nothing": {"body": ""}, "broken": {"body": "<path"}}
    made.icons["icons"]["cat"] = {"body": '<path fill="#f00" d="M0 0h8v16H0z"/>'}
    ((name, picture),) = draw(made, {icon: f"a {icon}" for icon in made.icons["icons"]})
    assert name == "a cat"
    np.testing.assert_array_equal(
        picture[:, :32], np.broadcast_to([255, 0, 0], (64, 32, 3))
    )
    assert (picture[:, 32:] == 255).all()


def test_every_pinned_set_is_named_with_its_license():
    pinned = packages()
    page = NOTICES.read_text()
    assert EVALUATED.keys() <= pinned.keys()
    for package in pinned.values():
        assert package.integrity.startswith("sha512-")
        assert f"| `{package.name}` {package.version} |\n" in page
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`@" in line]
    assert len(rows) == len(pinned)
    assert "BY-SA" not in page and "GPL" not in page


def test_the_page_of_notices_links_what_the_package_links():
    page = notices({Package("@icons/x", "1.0", ""): INFO})
    assert page.endswith(
        "| Made up | [Someone](https://made.up) | [MIT](https://made.up/license) | "
        "`@icons/x` 1.0 |\n"
    )


# Zero-shot


class Told(NamedTuple):
    """A CLIP that knows the images by their first pixel, and the names by their order."""

    def text_features(self, texts):
        return np.eye(len(texts))

    def image_features(self, images):
        seen = np.asarray(images)[:, 0, 0, 0]
        order = np.unique(seen, return_inverse=True)[1]
        return np.array([[3.0, 2, 1], [3, 1, 2], [1, 2, 3]])[order]


def test_the_rank_of_the_right_name_is_the_number_of_better_ones():
    images = (
        np.zeros((3, 2, 2, 3), np.uint8)
        + np.array([0, 9, 99], np.uint8)[:, None, None, None]
    )
    labels = np.array([0, 1, 0], np.int32)
    data = DomainData(
        "made_up", ("d",), ("a", "b", "c"), (images,), (labels,), (labels,), False, ""
    )
    assert zero_shot.ranks(Told(), data)["d"].tolist() == [0, 2, 2]  # pyright: ignore[reportArgumentType]
