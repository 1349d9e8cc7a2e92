import dataclasses
from pathlib import Path

import pytest

from experiments.data.benchmarks import BENCHMARKS, Benchmark
from experiments.data.check_benchmark import (
    check_benchmark,
    count_problems,
    find_benchmark,
)
from experiments.data.folders import Listing, list_folder
from tests.experiments.data.test_folders import make_tree

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
