import dataclasses
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data import check_images, load
from experiments.data.builder import Folder
from experiments.data.export import export
from experiments.data.prepare import open_prepared, prepare

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """A tree of 4 domains with 30 emoji each."""
    data = load("emoji_styles", image_size=16)
    masks = [np.arange(len(labels)) % 23 == 0 for labels in data.labels]
    root = tmp_path_factory.mktemp("emoji")
    export(data.subset(masks), root)
    return root


@pytest.fixture
def tree(emoji, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(emoji, tmp_path / "tree")


def picture(seed=0, size=(9, 7), channels=3):
    """Random pixels, uint8."""
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def records(data):
    """Everything that is read of a data set."""
    return {
        domain: [
            (bytes(record["image"]), int(record["label"]), record["filename"].decode())
            for record in map(data.records(domain).__getitem__, range(data.counts[domain]))
        ]
        for domain in data.domains
    }


def stages(calls):
    """A progress callback that keeps its calls."""
    return lambda *call: calls.append(call)


def journal(data):
    lines = (data.folder / "checked.jsonl").read_text().splitlines()
    return [json.loads(line)[0] for line in lines]


# What is prepared


def test_the_records_are_the_files_in_the_order_of_image_folder(emoji, tmp_path):
    data = prepare("folder", emoji, tmp_path)
    assert data.domains == ("fluent", "mono", "noto", "twemoji")
    assert data.classes == tuple(sorted(p.name for p in (emoji / "noto").iterdir()))
    for domain, found in records(data).items():
        files = sorted((emoji / domain).glob("*/*.png"))
        names = [f"{file.parent.name}/{file.name}" for file in files]
        labels = [data.classes.index(file.parent.name) for file in files]
        bytes_of = [file.read_bytes() for file in files]
        assert found == list(zip(bytes_of, labels, names, strict=True))
        assert data.filenames(domain) == names
        np.testing.assert_array_equal(data.labels(domain), labels)
        assert data.labels(domain).dtype == np.int32
    assert data.counts == dict.fromkeys(data.domains, 30)
    assert data.domain_index("noto") == 2
    with pytest.raises(
        ValueError, match="unknown domain of folder 'ink'; there are: fluent"
    ):
        data.domain_index("ink")


def encode(image, **options):
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


def over_white(color, alpha):
    alpha = alpha.astype(float)[..., None] / 255
    return color * alpha + 255 * (1 - alpha)


def palette_image():
    image = Image.fromarray(picture(1, channels=1) % 4, mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 99, 199])
    return image


COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 99, 199]])
RGB, GRAY, ALPHA = picture(2), picture(3, channels=1), picture(4, channels=1)
CMYK = picture(5, channels=4)
# name: the file, whether its bytes are kept, and the pixels it shows
FILES = {
    "rgb.jpg": (encode(Image.fromarray(RGB), format="JPEG"), True, None),
    "gray.jpg": (encode(Image.fromarray(GRAY), format="JPEG"), True, None),
    "rgb.png": (encode(Image.fromarray(RGB), format="PNG"), True, RGB),
    "gray.png": (encode(Image.fromarray(GRAY), format="PNG"), True, GRAY),
    "cmyk.jpg": (encode(Image.fromarray(CMYK, "CMYK"), format="JPEG"), False, None),
    "palette.png": (
        encode(palette_image(), format="PNG"),
        False,
        COLORS[picture(1, channels=1) % 4],
    ),
    "clear_palette.png": (
        encode(palette_image(), format="PNG", transparency=2),
        False,
        np.array([[255, 0, 0], [0, 255, 0], [255] * 3, [9, 99, 199]])[
            picture(1, channels=1) % 4
        ],
    ),
    "rgba.png": (
        encode(Image.fromarray(np.dstack([RGB, ALPHA])), format="PNG"),
        False,
        over_white(RGB, ALPHA),
    ),
    "la.png": (
        encode(Image.fromarray(np.dstack([GRAY, ALPHA]), "LA"), format="PNG"),
        False,
        over_white(np.dstack([GRAY] * 3), ALPHA),
    ),
    "clear_color.png": (
        encode(Image.fromarray(RGB), format="PNG", transparency=tuple(RGB[0, 0].tolist())),
        False,
        np.where((RGB[0, 0] == RGB).all(-1, keepdims=True), 255, RGB),
    ),
    "bits.png": (
        encode(Image.fromarray(GRAY > 127), format="PNG"),
        False,
        np.dstack([(GRAY > 127) * 255] * 3),
    ),
    "deep.png": (
        encode(Image.fromarray(GRAY.astype(np.uint16) * 257), format="PNG"),
        False,
        np.dstack([GRAY] * 3),
    ),
    "deep.tif": (
        encode(Image.fromarray(GRAY.astype(np.uint16) * 257), format="TIFF"),
        False,
        np.dstack([GRAY] * 3),
    ),
    "rgb.bmp": (encode(Image.fromarray(RGB), format="BMP"), False, RGB),
    "rgb.webp": (encode(Image.fromarray(RGB), format="WEBP", lossless=True), False, RGB),
}


def test_every_kind_of_image_becomes_rgb_or_gray_and_no_more_are_touched(tmp_path):
    for name, (content, _, _) in FILES.items():
        for domain in ("ink", "oil"):
            file = tmp_path / "tree" / domain / "cat" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    found = records(prepare("folder", tmp_path / "tree", tmp_path / "prepared"))["ink"]
    assert len(found) == len(FILES)
    for content, _, name in found:
        original, kept, pixels = FILES[name.removeprefix("cat/")]
        assert (content == original) == kept, name
        image = Image.open(io.BytesIO(content))
        assert image.mode in ("RGB", "L"), name
        if pixels is None:  # lossy, or inks: as Pillow reads it
            pixels = np.asarray(Image.open(io.BytesIO(original)).convert(image.mode))
        difference = np.abs(np.asarray(image).astype(float) - pixels)
        assert difference.max() <= 1, name  # of rounding where it was mixed with white


def test_nothing_touches_the_network_or_the_terminal(emoji, tmp_path, monkeypatch, capfd):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    records(prepare("folder", emoji, tmp_path))
    assert capfd.readouterr() == ("", "")
    assert "tensorflow" not in sys.modules


def test_two_folders_of_one_name_do_not_collide(emoji, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    (tree / "mono/face").rename(tree / "mono/faces")
    other = tmp_path / "elsewhere" / emoji.name
    other.parent.mkdir()
    tree.rename(other)
    first, second = prepare("folder", emoji), prepare("folder", other)
    assert first.folder.is_relative_to(tmp_path / "tfds")
    assert "faces" in second.classes
    assert first.folder != second.folder
    for data, face in ((first, "face/"), (second, "faces/")):
        names = [name for _, _, name in records(data)["mono"]]
        assert any(name.startswith(face) for name in names)


def test_the_fingerprint_goes_with_the_files_not_with_the_place(emoji, tree, tmp_path):
    first = prepare("folder", emoji, tmp_path / "a")
    os.utime(tree / "mono", (0, 0))
    assert prepare("folder", tree, tmp_path / "b").fingerprint == first.fingerprint
    next((tree / "mono/face").iterdir()).unlink()
    assert prepare("folder", tree, tmp_path / "b").fingerprint != first.fingerprint


def small_tree(root, *domains, kind="png"):
    """Two images of two classes in each domain."""
    for seed, domain in enumerate(domains):
        for name in ("cat", "dog"):
            file = root / domain / name / f"1.{kind}"
            file.parent.mkdir(parents=True)
            Image.fromarray(picture(seed)).save(file)
    return root


def test_other_pixels_under_the_same_name_size_and_time_are_seen(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil", kind="bmp")
    first = prepare("folder", tree, tmp_path / "prepared")
    before, fingerprint = records(first), first.fingerprint
    changed = tree / "ink/cat/1.bmp"
    was = changed.stat()
    Image.fromarray(picture(9)).save(changed)
    os.utime(changed, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert changed.stat().st_size == was.st_size
    again = prepare("folder", tree, tmp_path / "prepared")
    assert again.fingerprint != fingerprint
    assert records(again)["oil"] == before["oil"]
    (image, *_), (other, *_) = records(again)["ink"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image))), picture(9))
    assert other == before["ink"][1][0]


def test_the_same_pixels_of_another_time_are_the_same_data(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    first = prepare("folder", tree, tmp_path / "prepared")
    kept = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*.array_record*")}
    os.utime(tree / "ink/cat/1.png", (0, 0))
    again = prepare("folder", tree, tmp_path / "prepared")
    assert again.fingerprint == first.fingerprint
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert journal(again)[4:] == ["ink/cat/1.png"]


def test_what_is_told_of_the_listing_is_among_the_warnings(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    (tree / "ink/cat/1.gif").touch()
    shutil.rmtree(tree / "oil/dog")
    assert prepare("folder", tree, tmp_path / "prepared").warnings == (
        "left out: 1 .gif",
        "classes that are not in every domain: dog (not in oil)",
    )


def test_a_domain_may_have_the_name_of_a_file_of_ours(tmp_path):
    tree = small_tree(tmp_path / "tree", "checked", "data", "folder")
    for _ in range(2):
        data = prepare("folder", tree, tmp_path / "prepared")
        assert data.domains == ("checked", "data", "folder")
        assert data.counts == dict.fromkeys(data.domains, 2)
        images = {domain: found[0][0] for domain, found in records(data).items()}
        for domain, image in images.items():
            assert image == (tree / domain / "cat/1.png").read_bytes()


def test_the_place_must_not_be_a_domain_of_the_tree(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    with pytest.raises(ValueError, match=r"prepared_dir must not lie in the tree"):
        prepare("folder", tree, tree / "prepared")
    assert sorted(p.name for p in tree.iterdir()) == ["ink", "oil"]
    assert prepare("folder", tree, tree / ".prepared").domains == ("ink", "oil")


def test_several_at_once_do_the_work_once(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(prepare, "folder", tree, tmp_path / "prepared") for _ in "abc"]
    first, *others = [future.result() for future in asked]
    assert sorted(journal(first)) == sorted(f"{d}/{c}/1.png" for d, c in LEAVES)
    assert all(records(other) == records(first) for other in others)


LEAVES = [(d, c) for d in ("ink", "oil") for c in ("cat", "dog")]


# What an earlier version or a fault has left


def test_what_an_earlier_version_prepared_is_prepared_anew(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    data = prepare("folder", tree, tmp_path / "prepared")
    fingerprint = data.fingerprint
    file = data.folder / "checked.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps([*line[:3], ""]) + "\n" for line in lines))
    for domain in data.domains:  # of names, sizes and times
        index = data.folder / f"{domain}.json"
        old = json.loads(index.read_text()) | {"state": "0" * 16, "content": "1" * 16}
        index.write_text(json.dumps(old))
        shutil.rmtree(data.folder / domain)
    again = prepare("folder", tree, tmp_path / "prepared")
    assert again.fingerprint == fingerprint
    assert len(journal(again)) == 8
    assert all(len(found) == 2 for found in records(again).values())


@pytest.mark.parametrize("file", ["ink.json", "data.json", "checked.jsonl"])
def test_a_damaged_file_of_ours_is_made_again(tmp_path, file):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    data = prepare("folder", tree, tmp_path / "prepared")
    whole = (data.folder / file).read_bytes()
    (data.folder / file).write_bytes(b"\0" * 40 + b"\n" + whole[50:])
    again = prepare("folder", tree, tmp_path / "prepared")
    assert (again.fingerprint, records(again)) == (data.fingerprint, records(data))
    assert json.loads((data.folder / "data.json").read_text())["domains"] == ["ink", "oil"]


@pytest.mark.parametrize("cut", [lambda p: p.write_bytes(p.read_bytes()[:99]), Path.unlink])
def test_records_that_are_lost_or_cut_short_are_made_again(tmp_path, cut):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    data = prepare("folder", tree, tmp_path / "prepared")
    whole = records(data)
    cut(next((data.folder / "ink").rglob("*.array_record*")))
    assert records(prepare("folder", tree, tmp_path / "prepared")) == whole


def test_a_damaged_folder_is_named_when_it_is_opened(small_vlcs, tmp_path):
    data = prepare("vlcs", small_vlcs, tmp_path / "prepared", allow_missing=True)
    (data.folder / "SUN09.json").write_text("{")
    with pytest.raises(ValueError, match=r"SUN09.json is missing or damaged: prepare vlcs"):
        open_prepared("vlcs", tmp_path / "prepared").counts  # noqa: B018
    shutil.rmtree(data.folder / "LabelMe")
    with pytest.raises(ValueError, match=r"LabelMe.* is damaged: delete .*LabelMe.json"):
        data.records("LabelMe")


def test_what_the_disk_refuses_is_one_line_that_names_the_file(tmp_path, monkeypatch):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    (tmp_path / "a_file").touch()
    with pytest.raises(ValueError, match=r"tree cannot be prepared in .*a_file"):
        prepare("folder", tree, tmp_path / "a_file")

    def full(*args, **kwargs):
        raise RuntimeError("write() failed: No space left on device; writing x-of-1")

    monkeypatch.setattr(Folder, "download_and_prepare", full)
    with pytest.raises(ValueError, match=r"domain ink cannot be written: .*No space.*x-of"):
        prepare("folder", tree, tmp_path / "prepared")
    monkeypatch.undo()
    assert prepare("folder", tree, tmp_path / "prepared").counts == {"ink": 2, "oil": 2}


# Benchmarks


@pytest.fixture
def small_vlcs(tmp_path):
    """VLCS with one image a class, but no dog in SUN09."""
    for domain in ("Caltech101", "LabelMe", "SUN09", "VOC2007"):
        for name in ("bird", "car", "chair", "dog", "person"):
            if (domain, name) != ("SUN09", "dog"):
                file = tmp_path / "VLCS" / domain / name / "1.png"
                file.parent.mkdir(parents=True)
                Image.fromarray(picture()).save(file)
    return tmp_path


def test_a_benchmark_that_is_not_whole_is_refused_before_an_image_is_read(
    small_vlcs, tmp_path, monkeypatch
):
    monkeypatch.setattr(check_images, "_error", None)
    with pytest.raises(ValueError) as error:
        prepare("vlcs", small_vlcs, tmp_path / "prepared")
    for line in (
        "Caltech101/bird: 1 found, 237 expected",
        "SUN09/dog: 0 found, 30 expected",
    ):
        assert line in str(error.value)
    assert not (tmp_path / "prepared").exists()


def test_labels_go_by_the_benchmarks_names_and_its_images_are_needed_once(
    small_vlcs, tmp_path
):
    place = tmp_path / "prepared"
    with pytest.raises(ValueError, match=r"vlcs is not prepared in .*--data-dir DIR"):
        open_prepared("vlcs", place)
    data = prepare("vlcs", small_vlcs, place, allow_missing=True)
    assert "SUN09/dog: 0 found, 30 expected" in data.warnings
    assert data.labels("SUN09").tolist() == [0, 1, 2, 4]  # no dog, yet person is 4
    assert [label for _, label, _ in records(data)["SUN09"]] == [0, 1, 2, 4]
    shutil.rmtree(small_vlcs / "VLCS")
    again = open_prepared("vlcs", place, split_dir=tmp_path)
    assert dataclasses.replace(again, split_dir=None).fingerprint == data.fingerprint
    assert (again.domains, again.classes) == (data.domains, data.classes)
    assert again.warnings == data.warnings
    assert again.split_dir == tmp_path
    assert records(again) == records(data)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cifar is not prepared from a folder; .*pacs"):
        prepare("cifar", tmp_path, tmp_path)


# Images that cannot be decoded


@pytest.fixture
def broken(tree):
    """The tree with a truncated, an empty and a foreign file; their names."""
    photo = Image.fromarray(picture(size=(64, 64)))
    whole = encode(photo, format="JPEG")
    files = {
        "mono/face/a.jpg": whole[:-200],
        "noto/food/b.png": b"",
        "noto/hand/c.png": b"GIF",
    }
    for file, content in files.items():
        (tree / file).write_bytes(content)
    return list(files)


def test_all_images_that_cannot_be_decoded_are_named(tree, broken, tmp_path):
    with pytest.raises(ValueError, match=r"3 of the images .* cannot be decoded") as error:
        prepare("folder", tree, tmp_path / "prepared")
    for file in broken:
        assert file in str(error.value)
    assert "truncated" in str(error.value)
    assert not list((tmp_path / "prepared").rglob("*.array_record*"))


def test_they_are_left_out_when_asked_and_listed(tree, broken, tmp_path):
    data = prepare("folder", tree, tmp_path / "prepared", skip_corrupt=True)
    assert len(data.warnings) == 3
    assert all(
        any(warning.startswith(f"left out: {file}: ") for warning in data.warnings)
        for file in broken
    )
    assert data.skipped("noto") == ["food/b.png", "hand/c.png"]
    assert data.counts == dict.fromkeys(data.domains, 30)
    assert not {"face/a.jpg"} & set(data.filenames("mono"))
    for domain, found in records(data).items():
        assert [name for _, _, name in found] == data.filenames(domain)
    for file in broken:
        (tree / file).unlink()
    mended = prepare("folder", tree, tmp_path / "prepared")
    assert mended.warnings == ()
    assert mended.skipped("noto") == []


def test_what_cannot_be_read_is_left_out_when_asked(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    Image.fromarray(np.ones((2, 2), np.float32)).save(tree / "ink/cat/2.tif")
    (tree / "ink/cat/3.png").symlink_to("nowhere.png")
    (tree / "ink/fox").symlink_to("nowhere")
    os.mkfifo(tree / "oil/dog/4.png")
    with pytest.raises(ValueError, match=r"4 of the images .* cannot be decoded") as error:
        prepare("folder", tree, tmp_path / "prepared")
    for line in (
        "ink/fox: a link to nothing",
        "ink/cat/2.tif: ValueError: its pixels are floating-point numbers",
        "ink/cat/3.png: No such file or directory, a link to nowhere.png",
        "oil/dog/4.png: not a file with contents",
    ):
        assert line in str(error.value)
    data = prepare("folder", tree, tmp_path / "prepared", skip_corrupt=True)
    assert data.counts == {"ink": 2, "oil": 2}
    assert data.skipped("ink") == ["cat/2.tif", "cat/3.png"]
    assert len(data.warnings) == 4
    Image.fromarray(picture()).save(
        tree / "ink/cat/nowhere.png"
    )  # the link leads there now
    (tree / "ink/fox").unlink()
    for file in ("ink/cat/2.tif", "oil/dog/4.png"):
        (tree / file).unlink()
    assert prepare("folder", tree, tmp_path / "prepared").counts == {"ink": 4, "oil": 2}


def test_a_class_of_which_nothing_is_left_is_told(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    (tree / "oil/dog/1.png").write_bytes(b"")
    data = prepare("folder", tree, tmp_path / "prepared", skip_corrupt=True)
    told, left_out = data.warnings
    assert told == "classes that are not in every domain: dog (not in oil)"
    assert left_out.startswith("left out: oil/dog/1.png: ")


def test_a_domain_of_which_nothing_is_left_is_refused(tmp_path):
    tree = small_tree(tmp_path / "tree", "ink", "oil")
    for name in ("cat", "dog"):
        (tree / f"oil/{name}/1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 2 images of domain oil can be deco"):
        prepare("folder", tree, tmp_path / "prepared", skip_corrupt=True)


def test_a_long_list_of_them_is_cut_and_counted(tree, tmp_path):
    for n in range(22):
        (tree / f"mono/face/empty{n}.png").touch()
    with pytest.raises(ValueError, match=r"22 of the images (?s:.*) and 2 more"):
        prepare("folder", tree, tmp_path / "prepared")


# Again, changed, killed


def test_done_again_nothing_is_decoded_or_written(tree, tmp_path, monkeypatch):
    first = prepare("folder", tree, tmp_path / "prepared")
    kept = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*.array_record*")}
    monkeypatch.setattr(check_images, "_error", None)
    calls = []
    again = prepare("folder", tree, tmp_path / "prepared", progress=stages(calls))
    assert {p: p.stat().st_mtime_ns for p in first.folder.rglob("*.array_record*")} == kept
    assert calls == [("checking", 120, 120)] + [
        (f"writing {domain}", 30, 30) for domain in again.domains
    ]


def test_only_what_changed_is_decoded_and_only_its_domain_written(tree, tmp_path):
    first = prepare("folder", tree, tmp_path / "prepared")
    kept = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*.array_record*")}
    changed = sorted((tree / "mono/face").iterdir())[0]
    content = encode(Image.fromarray(picture()), format="PNG")
    changed.write_bytes(content)
    again = prepare("folder", tree, tmp_path / "prepared")
    assert journal(again)[120:] == [f"mono/face/{changed.name}"]
    assert (content, again.classes.index("face"), f"face/{changed.name}") in records(again)[
        "mono"
    ]
    written = {
        p.parents[1].name
        for p in again.folder.rglob("*.array_record*")
        if p.stat().st_mtime_ns != kept.get(p)
    }
    assert written == {"mono"}


def test_an_image_taken_away_or_added_is_seen(tree, tmp_path):
    first = prepare("folder", tree, tmp_path / "prepared")
    face = sorted((tree / "mono/face").iterdir())
    shutil.copy(face[0], tree / "mono/face/added.png")
    face[1].unlink()
    again = prepare("folder", tree, tmp_path / "prepared")
    expected = {*first.filenames("mono"), "face/added.png"} - {f"face/{face[1].name}"}
    assert set(again.filenames("mono")) == expected


KILLED = """
import os, signal, sys
from pathlib import Path
from experiments.data.prepare import prepare

tree, prepared, at, n = sys.argv[1:]

def progress(stage, done, total):
    if stage == at and done == int(n):
        os.kill(os.getpid(), signal.SIGKILL)

prepare("folder", Path(tree), Path(prepared), progress=progress)
"""


def kill(tree, prepared, stage, done):
    """Prepares in another process and kills it there."""
    command = [sys.executable, "-c", KILLED, tree, prepared, stage, str(done)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


@pytest.mark.parametrize(
    ("stage", "done", "finished"),
    [("checking", 60, set()), ("writing mono", 15, {"fluent"})],
)
def test_a_killed_preparation_goes_on(emoji, tmp_path, stage, done, finished):
    kill(emoji, tmp_path / "killed", stage, done)
    whole = prepare("folder", emoji, tmp_path / "whole")
    folder = tmp_path / "killed" / whole.folder.relative_to(tmp_path / "whole")
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("*/1.0.0/*.array_record*")}
    assert {p.parents[1].name for p in kept} == finished
    assert not (folder / "data.json").exists()
    calls = []
    resumed = prepare("folder", emoji, tmp_path / "killed", progress=stages(calls))
    assert resumed.folder == folder
    # No image was decoded twice, no finished domain written again.
    assert (
        sorted(journal(resumed)) == sorted(set(journal(resumed))) == sorted(journal(whole))
    )
    assert calls[0] == ("checking", done if stage == "checking" else 120, 120)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert records(resumed) == records(whole)
    assert resumed.fingerprint == whole.fingerprint


def test_a_kill_while_it_is_prepared_anew_leaves_nothing_that_passes_for_whole(
    small_vlcs, tmp_path
):
    place = tmp_path / "prepared"
    prepare("vlcs", small_vlcs, place, allow_missing=True)
    Image.fromarray(picture(1)).save(small_vlcs / "VLCS/LabelMe/dog/1.png")

    class Killed(Exception):
        pass

    def progress(stage, done, total):
        if stage == "writing LabelMe":
            raise Killed

    with pytest.raises(Killed):
        prepare("vlcs", small_vlcs, place, allow_missing=True, progress=progress)
    with pytest.raises(ValueError, match="vlcs is not prepared in"):
        open_prepared("vlcs", place)
    data = prepare("vlcs", small_vlcs, place, allow_missing=True)
    assert records(open_prepared("vlcs", place)) == records(data)


def test_a_line_of_the_journal_that_was_cut_short_is_decoded_again(emoji, tmp_path):
    data = prepare("folder", emoji, tmp_path)
    file = data.folder / "checked.jsonl"
    lines = file.read_bytes()
    file.write_bytes(lines[:-20])
    prepare("folder", emoji, tmp_path)
    assert file.read_bytes() == lines
