import dataclasses
import os
from pathlib import Path

import pytest

from experiments.data.benchmarks import BENCHMARKS, Benchmark
from experiments.data.folders import (
    Listing,
    check_benchmark,
    count_problems,
    find_benchmark,
    list_domain,
    list_folder,
    partial_classes,
)

MADE_UP = Benchmark(
    name="made_up",
    folder="MadeUp",
    domains=("ink", "oil_paint"),
    classes=("cat", "dog"),
    counts={"ink": 3, "oil_paint": 3},
    reference="none",
    class_counts={"ink": (2, 1)},
    exact=True,
)


def make_tree(root, *files):
    """Empty files under `root`."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def whole(benchmark, root=Path("data")):
    """A listing with as many files as the benchmark has."""
    files = {
        domain: tuple(
            f"{name}/{i:05d}.jpg"
            for name, count in zip(benchmark.classes, of_domain, strict=True)
            for i in range(count)
        )
        for domain, of_domain in benchmark.class_counts.items()
    }
    folders = {domain: root / domain for domain in benchmark.domains}
    return Listing(root, folders, benchmark.classes, files)


# The benchmarks


@pytest.mark.parametrize(
    ("name", "classes", "images"),
    [
        ("pacs", 7, 9991),
        ("vlcs", 5, 10729),
        ("office_home", 65, 15588),
        ("terra_incognita", 10, 24330),
        ("domain_net", 345, 586575),
    ],
)
def test_a_benchmark_has_the_published_totals(name, classes, images):
    benchmark = BENCHMARKS[name]
    assert len(benchmark.classes) == len(set(benchmark.classes)) == classes
    assert sum(benchmark.counts.values()) == images
    assert benchmark.domains == tuple(benchmark.counts)
    # DomainBed's environments and labels count in these orders.
    assert list(benchmark.domains) == sorted(benchmark.domains)
    assert list(benchmark.classes) == sorted(benchmark.classes)


@pytest.mark.parametrize("name", ["pacs", "vlcs"])
def test_the_counts_of_the_classes_add_up_to_those_of_the_domains(name):
    benchmark = BENCHMARKS[name]
    assert {d: sum(c) for d, c in benchmark.class_counts.items()} == benchmark.counts
    assert all(len(c) == len(benchmark.classes) for c in benchmark.class_counts.values())


# What is in a tree


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


# Whether it is the benchmark


@pytest.mark.parametrize("spelled", ["Real World", "Real_World"])
@pytest.mark.parametrize("inside", ["", "office_home"])
def test_a_benchmark_is_found_by_its_folder_or_the_one_above(tmp_path, spelled, inside):
    make_tree(tmp_path / inside, "Art/Bed/1.jpg", f"{spelled}/Bed/1.jpg")
    found = find_benchmark("office_home", tmp_path)
    assert found.root == tmp_path / inside
    assert found.folders["Real_World"] == tmp_path / inside / spelled


def test_a_folder_of_something_else_is_refused_before_it_is_listed(tmp_path):
    make_tree(tmp_path, "VLCS/LabelMe/dog/a.jpg", "papers/sam.pdf")
    with pytest.raises(ValueError, match=r"does not hold pacs: expected .*PACS, or in it"):
        find_benchmark("pacs", tmp_path)


@pytest.mark.parametrize("name", ["pacs", "vlcs"])
def test_the_whole_benchmark_has_no_problems(name):
    listing = whole(BENCHMARKS[name])
    assert count_problems(BENCHMARKS[name], listing) == []
    assert check_benchmark(BENCHMARKS[name], listing, allow_missing=False) == []


def test_every_difference_is_named_with_both_counts():
    benchmark, listing = BENCHMARKS["pacs"], whole(BENCHMARKS["pacs"])
    files = dict(listing.files)
    files["art_painting"] = files["art_painting"][9:]
    files["photo"] = tuple(f for f in files["photo"] if not f.startswith("horse/"))
    folders = {d: f for d, f in listing.folders.items() if d != "sketch"}
    found = dataclasses.replace(listing, files=files, folders=folders)
    problems = [
        "art_painting/dog: 370 found, 379 expected",
        "photo/horse: 0 found, 199 expected",
        "sketch: no such domain, 3929 images expected",
    ]
    assert count_problems(benchmark, found) == problems
    with pytest.raises(ValueError) as error:
        check_benchmark(benchmark, found, allow_missing=False)
    for problem in problems:
        assert problem in str(error.value)
    assert "--allow-missing" in str(error.value)
    assert check_benchmark(benchmark, found, allow_missing=True) == problems


def test_without_counts_of_the_classes_the_domains_are_counted(tmp_path):
    make_tree(
        tmp_path,
        *("ink/cat/1.png", "ink/cat/2.png", "ink/dog/1.png"),
        *("oil paint/cat/1.png", "oil paint/cat/2.png"),
    )
    assert count_problems(MADE_UP, list_folder(tmp_path)) == [
        "oil_paint/dog: 0 found, some expected",
        "oil_paint: 2 found, 3 expected",
    ]


def test_other_counts_of_an_inexact_benchmark_are_only_reported():
    benchmark = dataclasses.replace(BENCHMARKS["pacs"], exact=False)
    listing = whole(BENCHMARKS["pacs"])
    files = listing.files | {"photo": listing.files["photo"][1:]}
    found = dataclasses.replace(listing, files=files)
    warnings = check_benchmark(benchmark, found, allow_missing=False)
    assert warnings == ["photo/dog: 188 found, 189 expected"]
    assert not BENCHMARKS["terra_incognita"].exact


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("ink/bird/1.png", "class bird: made_up has none of that name"),
        ("wax/cat/1.png", "domain wax: made_up has none of that name"),
    ],
)
def test_a_name_without_a_label_is_refused_whatever_is_allowed(tmp_path, file, message):
    make_tree(tmp_path, "ink/cat/1.png", "oil_paint/dog/1.png", file)
    with pytest.raises(ValueError, match=message):
        check_benchmark(MADE_UP, list_folder(tmp_path), allow_missing=True)


def test_a_long_list_of_problems_is_cut_and_counted():
    benchmark = BENCHMARKS["office_home"]
    files = dict.fromkeys(benchmark.domains, ("Bed/1.jpg",))
    folders = {domain: Path(domain) for domain in benchmark.domains}
    listing = Listing(Path("data"), folders, ("Bed",), files)
    with pytest.raises(ValueError, match=r"(?s)and 240 more") as error:
        check_benchmark(benchmark, listing, allow_missing=False)
    assert len(str(error.value).splitlines()) == 1 + 20 + 1 + 1
