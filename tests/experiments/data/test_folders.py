import os

import pytest

from experiments.data.folders import list_domain, list_folder, partial_classes


def make_tree(root, *files):
    """Empty files under `root`."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_a_listing_is_in_the_order_of_image_folder(tmp_path):
    make_tree(
        tmp_path,
        "ink/cat/b.PNG",
        "ink/cat/a.jpeg",
        "ink/cat/x/1.png",
        "ink/cat/x/y/2.png",
        "ink/cat/x-y/3.png",
        "ink/Dog/10.png",
        "ink/Dog/9.png",
        "ink/cat/.hidden.png",
        "ink/cat/notes.txt",
        "ink/cat/moving.gif",
        "ink/.git/cat.png",
        "ink/readme.png",
        "oil/cat/a.webp",
        ".cache/cat/a.png",
    )
    found = list_folder(tmp_path)
    assert found.folders == {"ink": tmp_path / "ink", "oil": tmp_path / "oil"}
    assert found.classes == ("Dog", "cat")
    assert found.files["ink"] == (
        "Dog/10.png",
        "Dog/9.png",
        "cat/a.jpeg",
        "cat/b.PNG",
        "cat/x/1.png",
        "cat/x-y/3.png",
        "cat/x/y/2.png",
    )
    assert found.counts("ink") == {"Dog": 2, "cat": 5}
    assert found.counts("oil") == {"Dog": 0, "cat": 1}
    # The rule of torchvision, for one class: folders in the order of their paths.
    walked = sorted(os.walk(tmp_path / "ink/cat"))
    paths = [
        os.path.join(where, name) for where, _, names in walked for name in sorted(names)
    ]
    expected = [os.path.relpath(p, tmp_path / "ink") for p in paths]
    images = [p for p in expected if p.lower().endswith((".png", ".jpeg"))]
    assert list(found.files["ink"][2:]) == [p for p in images if "hidden" not in p]


def test_classes_are_the_union_over_the_domains_and_those_not_in_all_are_told(tmp_path):
    make_tree(tmp_path, "ink/cat/a.png", "oil/cat/a.png", "oil/dog/a.png", "wax/dog/a.png")
    listing = list_folder(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert partial_classes(listing) == [
        "classes that are not in every domain: cat (not in wax), dog (not in ink)"
    ]
    assert listing.warnings == ()
    make_tree(tmp_path, "wax/cat/a.png", "ink/dog/a.png")
    assert partial_classes(list_folder(tmp_path)) == []


def test_a_long_list_of_classes_stays_on_one_line(tmp_path):
    make_tree(tmp_path, "oil/0/a.png", *(f"ink/{n}/a.png" for n in range(15)))
    (line,) = partial_classes(list_folder(tmp_path))
    assert line.endswith(" and 4 more") and len(line.splitlines()) == 1


def test_what_is_left_out_is_told_in_one_line(tmp_path):
    make_tree(
        tmp_path,
        *("ink/cat/a.png", "ink/cat/b.gif", "ink/cat/.c/d.png", "ink/in_no_class.png"),
        *("oil/cat/a.png", "oil/cat/b.gif", "oil/cat/b.jfif", "in_no_domain.png"),
    )
    (tmp_path / "oil/cat/again").symlink_to(".")
    listing = list_folder(tmp_path)
    assert sum(map(len, listing.files.values())) == 2
    assert listing.warnings == (
        "left out: 2 .gif, 2 images in no folder of a class, 1 hidden, 1 .jfif; folders "
        "that are read at another place: oil/cat/again",
    )
    assert list_domain(tmp_path / "oil") == ("cat/a.png",)


def test_a_link_to_the_tree_or_to_a_domain_is_no_domain(tmp_path):
    make_tree(tmp_path, "ink/cat/a.png", "oil/cat/a.png")
    (tmp_path / "all").symlink_to(".")
    (tmp_path / "wax").symlink_to("oil")
    listing = list_folder(tmp_path)
    assert listing.files == {"ink": ("cat/a.png",), "oil": ("cat/a.png",)}
    assert listing.warnings == (
        "left out: folders that are read at another place: all, wax",
    )


def test_classes_that_no_domain_tells_apart_are_refused(tmp_path):
    make_tree(tmp_path, "ink/cat/a.png", "oil/Cat/a.png", "wax/Cat/a.png")
    with pytest.raises(ValueError, match=r"'Cat' \(in oil, wax\) and 'cat' \(in ink\)"):
        list_folder(tmp_path)


def test_classes_that_a_domain_tells_apart_are_told(tmp_path):
    make_tree(tmp_path, "ink/a/1.png", "ink/A/1.png", "oil/a/1.png", "oil/A/1.png")
    listing = list_folder(tmp_path)
    assert listing.classes == ("A", "a")
    (line,) = listing.warnings
    assert "spelled alike: 'A' (in ink, oil) and 'a' (in ink, oil)" in line


@pytest.mark.parametrize("name", ["ink,oil", "x.json", "checked.jsonl"])
def test_a_name_that_a_domain_cannot_have_is_refused(tmp_path, name):
    make_tree(tmp_path, f"{name}/cat/a.png", "wax/cat/a.png")
    with pytest.raises(ValueError, match=rf"cannot be called '{name}'.*rename .*{name}"):
        list_folder(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "at least two domains.*found: none"),
        (("a.png", "b.png"), "found: none, and 2 images directly in"),
        (("ink/cat/a.png",), "at least two domains.*found: ink"),
        (
            ("cat/a.png", "dog/a.png", "dog/b.png"),
            "domain cat holds no image .* expected .*cat/CLASS/image.*1 images directly",
        ),
        (("ink/cat/a.png", "oil/cat/a.txt"), "domain oil holds no image"),
        (
            ("oil paint/cat/a.png", "oil_paint/cat/a.png"),
            "both 'oil paint' and 'oil_paint'",
        ),
        (("Ink/cat/a.png", "ink/cat/a.png"), "both 'Ink' and 'ink'"),
        (
            ("ink/cat/a.png", "oil/cat/a.gif", "oil/cat/b.gif"),
            r"domain oil holds no image .*\n  left out: 2 .gif",
        ),
    ],
)
def test_another_tree_is_refused_with_what_was_found(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        list_folder(make_tree(tmp_path, *files))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data_dir .*nowhere is not a folder"):
        list_folder(tmp_path / "nowhere")
