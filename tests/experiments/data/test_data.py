import base64
import hashlib
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from experiments.data import DATASETS, DomainData, contact_sheet, load, split_groups
from experiments.data.emoji_styles import (
    ARCHIVE,
    archive,
    build,
    concepts,
    emoji_styles,
    render,
    sources,
)


def made_up(**changes) -> DomainData:
    """Two domains of three and two 1x1 images."""
    fields = {
        "name": "made_up",
        "domains": ("left", "right"),
        "classes": ("a", "b"),
        "images": (np.zeros((3, 1, 1, 3), np.uint8), np.zeros((2, 1, 1, 3), np.uint8)),
        "labels": (np.array([0, 1, 1], np.int32), np.array([0, 1], np.int32)),
        "groups": (np.array([0, 1, 2], np.int32), np.array([0, 1], np.int32)),
        "flip": False,
        "description": "",
    }
    return DomainData(**(fields | changes))


# What a data set is


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": ("a", "a")},
            "classes of made_up must be .* each once",
        ),
        ({"labels": (np.zeros(3, np.int32),)}, "2 domains but 1 arrays of labels"),
        (
            {"images": (np.zeros((3, 1, 1, 3)), np.zeros((2, 1, 1, 3), np.uint8))},
            "images of domain 'left' .* not float64",
        ),
        (
            {
                "images": (
                    np.zeros((3, 1, 1, 3), np.uint8),
                    np.zeros((2, 2, 2, 3), np.uint8),
                )
            },
            r"images of domain 'right' .* of one size .* \(2, 2, 2, 3\)",
        ),
        (
            {"groups": (np.arange(3), np.arange(2, dtype=np.int32))},
            "groups of domain 'left' of made_up must be int32",
        ),
        (
            {"labels": (np.zeros(3, np.int32), np.zeros(3, np.int32))},
            r"labels of domain 'right' .* \(2,\), one per image",
        ),
        (
            {"labels": (np.array([0, 1, 2], np.int32), np.zeros(2, np.int32))},
            r"label 2 in domain 'left' of made_up is outside 0\.\.1",
        ),
        (
            {"labels": (np.zeros(3, np.int32), np.array([0, -1], np.int32))},
            r"label -1 in domain 'right' of made_up is outside 0\.\.1",
        ),
    ],
)
def test_inconsistent_data_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made_up(**changes)


def test_counts_are_per_domain_and_class():
    np.testing.assert_array_equal(made_up().counts(), [[1, 2], [1, 1]])
    more = made_up(classes=("a", "b", "absent"))
    np.testing.assert_array_equal(more.counts(), [[1, 2, 0], [1, 1, 0]])


def test_a_subset_keeps_what_the_masks_say_in_order():
    kept = made_up().subset([np.array([True, False, True]), np.array([False, True])])
    assert [y.tolist() for y in kept.labels] == [[0, 1], [1]]
    assert [g.tolist() for g in kept.groups] == [[0, 2], [1]]
    assert [len(x) for x in kept.images] == [2, 1]


def test_masks_of_positions_or_of_another_length_are_refused():
    with pytest.raises(ValueError, match="mask of domain 'left' must be bool"):
        made_up().subset([np.array([0, 2]), np.array([True, True])])
    with pytest.raises(ValueError, match="mask of domain 'right' must be bool"):
        made_up().subset([np.ones(3, bool), np.ones(3, bool)])


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown data set 'PACS'; there are: emoji_styles,"
    ):
        load("PACS")
    known = "unknown domain of emoji_styles 'x'; there are: noto, twemoji, fluent, mono"
    with pytest.raises(ValueError, match=known):
        load("emoji_styles").domain_index("x")
    assert load("emoji_styles").domain_index("fluent") == 2


@pytest.mark.parametrize(
    ("name", "size", "allowed"),
    [
        ("emoji_styles", 48, "64, 32, 16, 8"),
        ("emoji_concepts", 48, "64, 32, 16, 8"),
        ("rotated_digits", 32, "16, 8"),
        ("colored_digits", 0, "16, 8"),
    ],
)
def test_a_size_that_is_not_there_is_refused(name, size, allowed):
    message = f"image_size of {name} must be one of {allowed}, not {size}"
    with pytest.raises(ValueError, match=message):
        load(name, image_size=size)


@pytest.mark.parametrize("name", DATASETS)
def test_smaller_images_are_those_of_the_default_size_averaged(name):
    default, small = load(name), load(name, image_size=8)
    block = default.images[0].shape[1] // 8
    for images, smaller in zip(default.images, small.images, strict=True):
        blocks = images.reshape(len(images), 8, block, 8, block, 3).astype(float)
        # An average of averages is rounded twice, hence the step of one.
        np.testing.assert_allclose(smaller, blocks.mean(axis=(2, 4)), atol=1.0)


# Held-out groups


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 1.5])
def test_a_fraction_outside_0_and_1_is_refused(fraction):
    with pytest.raises(ValueError, match="holdout_fraction must be between 0 and 1"):
        split_groups(made_up(), holdout_fraction=fraction, seed=0)


def test_a_fraction_that_would_hold_out_nothing_is_refused():
    with pytest.raises(ValueError, match="leaves one of the two parts empty"):
        split_groups(made_up(), holdout_fraction=0.01, seed=0)


def test_the_same_concepts_are_held_out_in_every_style():
    train, heldout = split_groups(load("emoji_styles"), seed=3)
    for part in (train, heldout):
        for groups in part.groups:
            np.testing.assert_array_equal(groups, part.groups[0])
    assert not set(train.groups[0]) & set(heldout.groups[0])
    assert len(set(train.groups[0]) | set(heldout.groups[0])) == 687


def test_five_seeds_hold_out_every_concept_once_and_then_again():
    data = load("emoji_styles")
    folds = [split_groups(data, seed=seed)[1] for seed in range(6)]
    concepts = np.concatenate([fold.groups[0] for fold in folds[:5]])
    np.testing.assert_array_equal(np.sort(concepts), np.sort(data.groups[0]))
    np.testing.assert_array_equal(folds[5].groups[0], folds[0].groups[0])
    share = data.counts() / 5
    for fold in folds:
        assert (abs(fold.counts() - share) < 1).all()  # of every class, to rounding


@pytest.mark.parametrize("name", ["rotated_digits", "colored_digits"])
def test_every_class_of_every_domain_holds_out_its_share_of_scans(name):
    data = load(name)
    train, heldout = split_groups(data, holdout_fraction=0.25, seed=3)
    assert (abs(heldout.counts() - 0.25 * data.counts()) < 1).all()
    np.testing.assert_array_equal(train.counts() + heldout.counts(), data.counts())
    assert not set(np.concatenate(train.groups)) & set(np.concatenate(heldout.groups))


def test_a_split_does_not_depend_on_the_order_of_the_images():
    data = load("rotated_digits")
    reverse = DomainData(
        **vars(data)
        | {
            field: tuple(array[::-1] for array in getattr(data, field))
            for field in ("images", "labels", "groups")
        }
    )
    heldout, of_reverse = split_groups(data, seed=0)[1], split_groups(reverse, seed=0)[1]
    for groups, reversed_groups in zip(heldout.groups, of_reverse.groups, strict=True):
        np.testing.assert_array_equal(groups, reversed_groups[::-1])


def test_a_domain_that_would_hold_out_nothing_is_refused():
    data = load("rotated_digits")
    masks = [np.arange(len(y)) < (60 if d else 2) for d, y in enumerate(data.labels)]
    with pytest.raises(ValueError, match=r"domain 0 of rotated_digits has 2 .* larger"):
        split_groups(data.subset(masks), seed=0)


# emoji_styles


def test_every_style_has_the_documented_concepts():
    data = load("emoji_styles")
    assert data.domains == ("noto", "twemoji", "fluent", "mono")
    assert data.classes == tuple(
        ["animal", "face", "food", "hand", "person", "place", "vehicle"]
    )
    assert data.counts().tolist() == [[130, 129, 103, 42, 169, 42, 72]] * 4
    assert {x.shape for x in data.images} == {(687, 32, 32, 3)}
    assert data.flip


def test_images_of_32_pixels_are_the_rounded_box_average_of_those_of_64():
    stored, halved = load("emoji_styles", image_size=64), load("emoji_styles")
    for large, small in zip(stored.images, halved.images, strict=True):
        total = large.reshape(687, 32, 2, 32, 2, 3).astype(int).sum(axis=(2, 4))
        np.testing.assert_array_equal(small, np.floor(total / 4 + 0.5))


def test_only_the_mono_style_is_free_of_color():
    data = load("emoji_styles")
    saturated = [np.mean(np.ptp(x.astype(int), axis=3) > 30) for x in data.images]
    assert saturated[data.domain_index("mono")] == 0
    assert min(saturated[:3]) > 0.2


def test_only_the_documented_concepts_share_a_drawing():
    data = load("emoji_styles", image_size=64)
    distinct = [len({image.tobytes() for image in images}) for images in data.images]
    assert dict(zip(data.domains, distinct, strict=True)) == {
        "noto": 687 - 2,
        "twemoji": 687,
        "fluent": 687,
        "mono": 687 - 4,
    }


# emoji_concepts


def test_the_image_of_a_name_is_that_of_the_concept_in_every_style():
    styles, data = load("emoji_styles", image_size=64), load("emoji_concepts")
    assert data.domains == styles.domains
    place = archive.read(ARCHIVE)["codepoints"].tolist().index
    for name, codepoints in [("fox", "1f98a"), ("T-Rex", "1f996"), ("zebra", "1f993")]:
        label, concept = data.classes.index(name), place(codepoints)
        for d in range(4):
            assert data.labels[d][label] == label
            np.testing.assert_array_equal(data.images[d][label], styles.images[d][concept])
    for of_concepts, of_styles in zip(data.images, styles.images, strict=True):
        assert Counter(map(bytes, of_concepts)) == Counter(map(bytes, of_styles))


def test_every_concept_is_a_class_sorted_as_folders_are_and_one_image_a_style():
    data = load("emoji_concepts")
    assert len(set(data.classes)) == 687
    assert list(data.classes) == sorted(data.classes)
    assert (data.counts() == 1).all()
    assert {x.shape for x in data.images} == {(687, 64, 64, 3)}
    assert not data.flip  # "left-facing fist" and "right-facing fist" are two classes


def test_a_fifth_of_every_style_is_held_out_and_its_concepts_are_seen_in_others():
    data = load("emoji_concepts")
    folds = [split_groups(data, seed=seed)[1] for seed in range(5)]
    for d in range(4):
        assert {len(fold.labels[d]) for fold in folds} <= {137, 138}
        held = np.concatenate([fold.labels[d] for fold in folds])
        np.testing.assert_array_equal(np.sort(held), np.arange(687))
    train, _ = split_groups(data, seed=0)
    # Left out of all three others, one in 125: 5.5 of 687; deviation 2.3.
    for unseen in range(4):
        sources = [train.labels[d] for d in range(4) if d != unseen]
        assert 687 - len(set(np.concatenate(sources))) <= 5.5 + 4 * 2.3


def copy_of_archive(folder: Path) -> Path:
    for file in (ARCHIVE, archive.checksum_file(ARCHIVE)):
        shutil.copy(file, folder)
    return folder / ARCHIVE.name


def test_images_of_another_checksum_are_refused(tmp_path):
    path = copy_of_archive(tmp_path)
    committed = archive.checksum_file(path).read_text().strip()
    archive.checksum_file(path).write_text("0" * 64 + "\n")
    message = f"emoji_styles_64.npz have sha256 {committed}, .* says 0000"
    with pytest.raises(ValueError, match=message):
        emoji_styles(path=path)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[:-1000], lambda b: b[:1000] + b[1001:]],
    ids=["empty", "cut short", "a byte lost"],
)
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = copy_of_archive(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"emoji_styles_64.npz is damaged .* rebuild it"):
        emoji_styles(path=path)


# The digits


@pytest.mark.parametrize("name", ["rotated_digits", "colored_digits"])
def test_every_scan_is_in_exactly_one_domain(name):
    data = load(name)
    assert sorted(np.concatenate(data.groups)) == list(range(1797))
    assert not data.flip


def test_rotated_digits_have_the_documented_counts_and_the_scans_own_labels():
    data, digits = load("rotated_digits"), load_digits().target
    assert data.domains == ("0", "15", "30", "45", "60", "75")
    assert data.counts().sum(axis=1).tolist() == [300, 300, 300, 299, 299, 299]
    assert data.counts().min() == 29
    assert data.counts().max() == 31
    for labels, groups in zip(data.labels, data.groups, strict=True):
        np.testing.assert_array_equal(labels, digits[groups])


def enlarged_scans() -> np.ndarray:
    """Bilinear enlargement of the scans by 1.6, one pixel of margin, written with maps."""
    scans = np.pad(load_digits().images * (255 / 16), ((0, 0), (1, 1), (1, 1)))
    centers = (np.arange(16) + 0.5) / 1.6 - 0.5
    grid = np.meshgrid(centers, centers, indexing="ij")
    return np.stack(
        [ndimage.map_coordinates(s, grid, order=1, mode="nearest") for s in scans]
    )


def test_domain_0_shows_the_plain_enlarged_scans():
    data = load("rotated_digits")
    expected = enlarged_scans()[data.groups[0]]
    for channel in range(3):
        np.testing.assert_allclose(data.images[0][..., channel], expected, atol=0.51)


def test_digits_are_turned_counterclockwise_by_the_domain_s_angle():
    data, scans = load("rotated_digits"), enlarged_scans()
    rows, columns = np.indices((16, 16)) - 7.5
    for domain, angle in enumerate(np.deg2rad([0, 15, 30, 45, 60, 75])):
        turned = data.images[domain][..., 0].astype(float)
        # Where each pixel of the turned image lay before; rows run downwards.
        before = (
            rows * np.cos(angle) + columns * np.sin(angle) + 7.5,
            columns * np.cos(angle) - rows * np.sin(angle) + 7.5,
        )
        for image, group in zip(turned[:10], data.groups[domain][:10], strict=True):
            expected = ndimage.map_coordinates(scans[group], before, order=1)
            np.testing.assert_allclose(image, expected, atol=1.0)


def colors(data: DomainData, domain: int) -> np.ndarray:
    """0 for red and 1 for green; fails on an image of any other color."""
    peaks = data.images[domain].max(axis=(1, 2))
    assert not peaks[:, 2].any()
    assert ((peaks[:, 0] > 0) ^ (peaks[:, 1] > 0)).all()
    return (peaks[:, 1] > 0).astype(int)


def test_color_agrees_with_the_label_as_often_as_the_domain_says():
    data = load("colored_digits")
    assert data.domains == ("+90%", "+80%", "-90%")
    agree = [np.sum(colors(data, d) == data.labels[d]) for d in range(3)]
    assert agree == [526, 478, 65]
    # Three standard deviations of a binomial of 599 draws.
    np.testing.assert_allclose(np.array(agree) / 599, [0.9, 0.8, 0.1], atol=0.05)


def test_a_quarter_of_the_labels_is_flipped_in_every_domain():
    data, digits = load("colored_digits"), load_digits().target
    flipped = [
        np.sum(labels != (digits[groups] < 5))
        for labels, groups in zip(data.labels, data.groups, strict=True)
    ]
    assert flipped == [165, 145, 158]
    np.testing.assert_allclose(np.array(flipped) / 599, 0.25, atol=0.054)


def test_colored_digits_have_the_documented_counts():
    assert load("colored_digits").counts().tolist() == [[311, 288], [298, 301], [297, 302]]


# Building emoji_styles, without a network

SUBGROUPS = {"0": "cat-face", "1": "person-role", "2": "person-symbol", "3": "flag"}


def emoji(hexcode: str, subgroup: int | None) -> dict:
    return {"hexcode": hexcode, "label": f"name of {hexcode}"} | (
        {} if subgroup is None else {"subgroup": subgroup}
    )


def test_classes_and_sub_groups_are_those_of_the_documentation():
    assert tuple(concepts.SUBGROUPS_OF_CLASS) == load("emoji_styles").classes
    subgroups = [s for group in concepts.SUBGROUPS_OF_CLASS.values() for s in group]
    assert len(subgroups) == len(set(subgroups)) == 44


def test_concepts_are_emoji_of_a_class_that_every_style_has():
    chars = {
        "noto": {"1F63A": "cat", "1f9d1-200d-2695": "doctor", "1f64d": "frown"},
        "twemoji": {"1f63a": "cat", "1f9d1-200d-2695-fe0f": "medic", "1f64d": "frown"},
        "mono": {"1f63a": "cat", "1f9d1-200d-2695": "medic", "1f64d": "frown"},
        "fluent": {},
    }
    icons = dict.fromkeys(chars, ("cat", "doctor", "medic", "frown"))
    icons["fluent"] = ("cat", "medic")  # no frown
    names = concepts.icon_names(icons, chars)
    metadata = [
        emoji("1F9D1-200D-2695-FE0F", 1),
        emoji("1F63A", 0),
        emoji("1F64D", 1),  # not drawn by every style
        emoji("1F464", 2),  # of no class of ours
        emoji("1F1E6", None),  # of no sub-group at all
    ]
    chosen = concepts.choose(metadata, SUBGROUPS, names)
    assert [c.codepoints for c in chosen] == ["1f63a", "1f9d1-200d-2695"]
    assert [concepts.CLASSES[c.label] for c in chosen] == ["face", "person"]
    assert chosen[0].name == "name of 1F63A"
    assert chosen[1].icons == {
        "noto": "doctor",
        "twemoji": "medic",
        "mono": "medic",
        "fluent": "medic",
    }


def test_men_and_women_spelled_with_a_gender_sign_are_left_out():
    spellings = ["1f9d9", "1f9d9-200d-2642", "1f9d9-200d-2640"]
    names = {"noto": {spelling: "mage" for spelling in spellings}}
    metadata = [emoji(f"{spelling}-FE0F", 1) for spelling in spellings]
    chosen = concepts.choose(metadata, SUBGROUPS, names)
    assert [c.codepoints for c in chosen] == ["1f9d9"]


def small_arrays() -> dict[str, np.ndarray]:
    return {"label": np.arange(4, dtype=np.uint8), "classes": np.array(["a", "bc"])}


def test_an_archive_is_written_as_the_same_bytes_each_time(tmp_path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    archive.write(first, small_arrays())
    archive.write(second, small_arrays())
    assert first.read_bytes() == second.read_bytes()
    # The two were written within one tick of a zip file's clock, so look at the time too.
    with zipfile.ZipFile(first) as members:
        assert {m.date_time for m in members.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    np.testing.assert_equal(archive.read(first), small_arrays())


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.array([0, 1, 2, 4], np.uint8)},
        {"label": np.arange(4, dtype=np.int8)},
        {"label": np.arange(4, dtype=np.uint8).reshape(2, 2)},
        {"classes": np.array(["ab", "c"])},
        {"more": np.zeros(0)},
    ],
    ids=["value", "type", "shape", "text", "array"],
)
def test_the_checksum_and_the_check_notice_every_change(change, tmp_path):
    changed = small_arrays() | change
    assert archive.content_sha256(changed) != archive.content_sha256(small_arrays())
    archive.write(tmp_path / "a.npz", small_arrays())
    (line,) = build.differences(changed, tmp_path / "a.npz")
    assert line.startswith(next(iter(change)))


def test_an_archive_has_no_differences_to_what_was_written(tmp_path):
    archive.write(tmp_path / "a.npz", small_arrays())
    assert build.differences(small_arrays(), tmp_path / "a.npz") == []


NPM = """#!/bin/sh
echo "$@" > {said}
[ -n "{fails}" ] && echo "npm error 404 {fails}" >&2 && exit 1
printf "%s" "the tarball" > "$4/icons-of-noto-1.2.9.tgz"
"""


def an_npm(folder, monkeypatch, fails=""):
    """An npm that keeps what it was asked in a file, which is returned."""
    said = folder / "said"
    (folder / "npm").write_text(NPM.format(said=said, fails=fails))
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return said


def pinned(content):
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return sources.Package("@icons/of-noto", "1.2.9", f"sha512-{digest}")


def test_a_package_is_fetched_by_npm_once_by_name_and_version(tmp_path, monkeypatch):
    said, cache = an_npm(tmp_path, monkeypatch), tmp_path / "cache"
    cache.mkdir()
    tarball = sources.fetch(pinned(b"the tarball"), cache)
    assert said.read_text().startswith("pack @icons/of-noto@1.2.9 --pack-destination")
    assert [*cache.iterdir()] == [tarball]
    assert tarball.read_bytes() == b"the tarball"
    said.unlink()
    assert sources.fetch(pinned(b"the tarball"), cache) == tarball
    assert not said.exists()


def test_a_package_of_another_hash_does_not_get_into_the_cache(tmp_path, monkeypatch):
    an_npm(tmp_path, monkeypatch)
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(ValueError, match=r"of-noto@1.2.9 is pinned to sha512-"):
        sources.fetch(pinned(b"another tarball"), cache)
    assert not [*cache.iterdir()]


def test_an_npm_that_fails_or_is_missing_is_named(tmp_path, monkeypatch):
    an_npm(tmp_path, monkeypatch, fails="no such package")
    with pytest.raises(ValueError, match=r"npm pack @icons/of-noto@1.2.9 failed:\s.*404"):
        sources.fetch(pinned(b""), tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"npm, which fetches .*@1.2.9, is not inst"):
        sources.fetch(pinned(b""), tmp_path)


def test_a_tarball_with_another_hash_is_refused(tmp_path):
    package = sources.ICON_SETS["noto"]
    (tmp_path / package.filename).write_bytes(b"not the package")
    with pytest.raises(ValueError, match=r"noto@1.2.9 is pinned to sha512-DQiu"):
        sources.fetch(package, tmp_path)


def test_a_drawing_is_rendered_on_white_at_its_place():
    pytest.importorskip("resvg_py")
    pytest.importorskip("PIL")
    body = '<path fill="#f00" d="M0 0h4v4H0z"/><path fill="currentColor" d="M4 4h4v4H4z"/>'
    svg = render.svg_of({"icons": {"x": {"body": body}}, "width": 8, "height": 8}, "x", 4)
    pixels = render.rasterize(svg, 4)
    red, white, black = (255, 0, 0), (255, 255, 255), (0, 0, 0)
    top, bottom = [red, red, white, white], [white, white, black, black]
    np.testing.assert_array_equal(pixels, [top, top, bottom, bottom])


# Contact sheets


def test_a_contact_sheet_shows_the_same_concepts_in_every_style():
    data = load("emoji_styles")
    chosen = contact_sheet.choose(data, seed=0)
    assert chosen.shape == (4, 7, 3)
    for domain in range(4):
        np.testing.assert_array_equal(chosen[domain], chosen[0])
        np.testing.assert_array_equal(
            data.labels[domain][chosen[domain]], np.repeat(np.arange(7)[:, None], 3, 1)
        )


@pytest.mark.parametrize("name", ["rotated_digits", "colored_digits"])
def test_a_contact_sheet_shows_the_classes_of_domains_that_share_nothing(name):
    data = load(name)
    for labels, chosen in zip(data.labels, contact_sheet.choose(data, seed=0), strict=True):
        assert (labels[chosen] == np.arange(len(data.classes))[:, None]).all()


def test_a_class_of_too_few_images_for_a_contact_sheet_is_named():
    with pytest.raises(ValueError, match=r"class a has 1 in domain left to choose from"):
        contact_sheet.choose(made_up(), seed=0)
