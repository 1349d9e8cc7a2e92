import os

import pytest

from experiments.data.walk import printable, spelled, walk


def make(root, *files):
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def link(root, place, target):
    (root / place).symlink_to(target)


TREE = ("ink/cat/1.png", "ink/dog/2.png", "oil/cat/3.png")


def test_nothing_hidden_is_read_at_any_depth(tmp_path):
    make(tmp_path, *TREE, "ink/cat/.old/4.png", ".git/5.png", "oil/cat/x/.y/z/6.png")
    walked = walk(make(tmp_path, "ink/cat/.7.png"))
    assert sorted(walked.images) == [*TREE]
    assert walked.left_out == {"hidden": 4}


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("ink/cat/again", "."),
        ("ink/cat/up", ".."),
        ("ink/cat/up", "../.."),
        ("ink/cat/above", "../../.."),
        ("ink/cat/top", "/"),
        ("ink/cat/other", "../../oil/cat"),
        ("ink/kitten", "cat"),
        ("wax", "oil"),
    ],
)
def test_a_folder_that_is_read_elsewhere_or_holds_the_tree_is_read_once(
    tmp_path, place, target
):
    make(tmp_path / "root", *TREE)
    make(tmp_path, "beside/9.png")
    link(tmp_path / "root", place, target)
    walked = walk(tmp_path / "root")
    assert sorted(walked.images) == [*TREE]
    assert walked.twice == [place]


def test_links_that_lead_to_each_other_add_nothing(tmp_path):
    make(tmp_path, *TREE)
    link(tmp_path, "ink/cat/a", "../../oil/cat")
    link(tmp_path, "oil/cat/b", "../../ink/cat")
    assert sorted(walk(tmp_path).images) == [*TREE]


def test_a_folder_that_lies_elsewhere_is_read_through_its_first_link(tmp_path):
    make(tmp_path, "store/1.png", "store/deep/2.png", "root/oil/cat/3.png")
    (tmp_path / "root/ink").mkdir()
    link(tmp_path, "root/ink/cat", tmp_path / "store")
    link(tmp_path, "root/ink/cat2", tmp_path / "store")
    link(tmp_path, "store/back", tmp_path / "root")
    walked = walk(tmp_path / "root")
    assert sorted(walked.images) == ["ink/cat/1.png", "ink/cat/deep/2.png", "oil/cat/3.png"]
    assert walked.twice == ["ink/cat2", "ink/cat/back"]


def test_a_link_to_an_image_is_an_image(tmp_path):
    make(tmp_path, *TREE)
    link(tmp_path, "ink/cat/4.png", "../dog/2.png")
    assert "ink/cat/4.png" in walk(tmp_path).images


def test_other_files_are_counted_by_their_extension(tmp_path):
    files = ("a/1.JFIF", "a/2.jfif", "3.gif", "b/README", "b/4.tar.gz")
    walked = walk(make(tmp_path, *TREE, *files))
    assert walked.left_out == {
        ".jfif": 2,
        ".gif": 1,
        ".gz": 1,
        "without an extension": 1,
    }


def test_a_dangling_link_is_named(tmp_path):
    make(tmp_path, *TREE)
    link(tmp_path, "wax", "nowhere")
    link(tmp_path, "ink/cat/gone.png", "nowhere")
    walked = walk(tmp_path)
    assert walked.unreadable == {"wax": "a link to nothing"}
    assert "ink/cat/gone.png" in walked.images  # found out when it is read


def test_a_link_to_itself_is_named(tmp_path):
    make(tmp_path, *TREE)
    link(tmp_path, "ink/cat/round", "round")
    assert [*walk(tmp_path).unreadable] == ["ink/cat/round"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    make(tmp_path, *TREE)
    scandir = os.scandir

    def locked(path):
        if os.path.basename(path) == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    walked = walk(tmp_path)
    assert sorted(walked.images) == ["ink/cat/1.png", "oil/cat/3.png"]
    assert walked.unreadable == {"ink/dog": "Permission denied"}


def test_names_that_are_no_text_are_named_in_escapes(tmp_path):
    make(tmp_path, *TREE, "ink/cat/two\nlines.png")
    try:
        open(os.fsencode(tmp_path) + b"/ink/cat/\xff.png", "w").close()
        os.mkdir(os.fsencode(tmp_path) + b"/ink/\xe9t\xe9")
    except OSError:
        pytest.skip("this file system has names of text alone")
    walked = walk(tmp_path)
    assert sorted(walked.images) == [*TREE]
    assert sorted(walked.unreadable) == [
        r"ink/\xe9t\xe9",
        r"ink/cat/\xff.png",
        r"ink/cat/two\nlines.png",
    ]
    assert all("rename it" in why for why in walked.unreadable.values())
    assert printable("été ß 日本") == "été ß 日本"


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("cat", "Cat", True),
        ("paper clip", "paper_clip ", True),
        ("paper  clip", "Paper\N{NO-BREAK SPACE}clip", True),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}", True),
        ("1", "-1", False),
        ("10", "1_0", False),
    ],
)
def test_names_are_spelled_alike_but_for_case_blanks_and_unicode_forms(one, other, alike):
    assert (spelled(one) == spelled(other)) == alike
