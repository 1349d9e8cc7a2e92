import dataclasses
import json
import random

import numpy as np
import pytest

from experiments.data.benchmarks import BENCHMARKS, DOMAIN_NET
from experiments.data.prepare import Prepared
from experiments.data.splits import (
    PUBLISHED,
    domainbed_split,
    least_images,
    read_split_files,
    release_split,
    seed_hash,
)

# DomainBed


@pytest.mark.parametrize(
    ("trial_seed", "domain", "seed", "held_out"),
    [(0, 0, 894182419, [2, 3]), (0, 1, 1514274641, [5, 0]), (1, 0, 785910682, [3, 7])],
)
def test_the_domainbed_split_is_that_of_their_code(trial_seed, domain, seed, held_out):
    assert seed_hash(trial_seed, domain) == seed
    trained, held = domainbed_split(10, trial_seed, domain)
    assert held.tolist() == held_out
    assert sorted([*trained, *held]) == list(range(10))


@pytest.mark.parametrize("count", [1, 4, 5, 1415, 9736])
def test_a_fifth_is_held_out_rounded_down(count):
    trained, held = domainbed_split(count, 2, 3)
    assert len(held) == int(count * 0.2)
    np.testing.assert_array_equal(np.sort(np.r_[trained, held]), np.arange(count))
    assert trained.dtype == held.dtype == np.int64


def test_domains_and_trials_are_split_differently():
    splits = [domainbed_split(100, s, d)[1].tolist() for s in range(3) for d in range(4)]
    assert len(set(map(tuple, splits))) == 12


# The DISAM release


@pytest.mark.parametrize(("count", "fraction"), [(2427, 0.1), (4365, 0.1), (9736, 0.2)])
def test_the_release_split_shuffles_as_the_release(count, fraction):
    random.seed(0)
    shuffled = list(range(count))
    random.shuffle(shuffled)
    size = int(count * {0.1: 0.9, 0.2: 0.8}[fraction])
    trained, held = release_split(count, fraction)
    assert trained.tolist() == shuffled[:size]
    assert held.tolist() == shuffled[size:]


def test_the_release_split_leaves_the_global_generator_alone():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    release_split(100, 0.1, seed=1)
    assert random.random() == expected


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.3, 0.9])
@pytest.mark.parametrize(
    ("name", "split"),
    [("domainbed", lambda n, f: domainbed_split(n, 0, 0, f)), ("release", release_split)],
)
def test_the_least_number_of_images_is_the_first_with_two_parts(name, split, fraction):
    least = least_images(name, fraction)
    assert all(map(len, split(least, fraction)))
    assert not all(map(len, split(least - 1, fraction)))
    assert least_images(name, 0.0) is None


# Published lists


def test_a_list_that_is_no_text_is_named(tmp_path):
    data = photos(tmp_path)
    (tmp_path / "lists/photo_train_kfold.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"photo_train_kfold.txt is no text in UTF-8"):
        read_split_files(data, "photo")


def test_other_lists_are_other_data(tmp_path):
    data = photos(tmp_path)
    fingerprint = data.fingerprint
    (tmp_path / "lists/photo_train_kfold.txt").write_text(HELD_OUT)
    (tmp_path / "lists/photo_crossval_kfold.txt").write_text(TRAIN)
    assert data.fingerprint != fingerprint
    without = dataclasses.replace(data, split_dir=None)
    (tmp_path / "lists/photo_train_kfold.txt").unlink()
    (tmp_path / "lists/photo_crossval_kfold.txt").unlink()
    assert data.fingerprint == without.fingerprint


def prepared(folder, name, domain, files, skipped=()):
    """What `prepare` leaves of a domain, without images."""
    (folder / "lists").mkdir()
    record = {"content": "", "files": files, "skipped": list(skipped)}
    (folder / f"{domain}.json").write_text(json.dumps(record))
    benchmark = BENCHMARKS[name]
    return Prepared(name, folder, (domain,), benchmark.classes, split_dir=folder / "lists")


PHOTOS = ["dog/056_0001.jpg", "dog/056_0002.jpg", "horse/105_0001.jpg", "person/253_1.jpg"]
TRAIN = "photo/person/253_1.jpg 7\nphoto/dog/056_0001.jpg 1\n"
HELD_OUT = "photo/horse/105_0001.jpg 5\nphoto/dog/056_0002.jpg 1\n"


def photos(folder, train=TRAIN, held_out=HELD_OUT, skipped=()):
    data = prepared(folder, "pacs", "photo", PHOTOS, skipped)
    (folder / "lists/photo_train_kfold.txt").write_text(train)
    (folder / "lists/photo_crossval_kfold.txt").write_text(held_out)
    return data


def test_the_lists_of_pacs_count_labels_from_one(tmp_path):
    trained, held = read_split_files(photos(tmp_path), "photo")
    assert trained.tolist() == [3, 0]
    assert held.tolist() == [2, 1]
    assert trained.dtype == held.dtype == np.int64


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (
            TRAIN + "photo/dog/056_0009.jpg 1\n",
            HELD_OUT,
            r"photo_train_kfold\.txt, line 3: dog/056_0009\.jpg is not among the images",
        ),
        (
            TRAIN,
            HELD_OUT + "\nphoto/dog/056_0001.jpg 1\n",
            r"crossval_kfold\.txt, line 4: dog/056_0001\.jpg is already in "
            r".*train_kfold\.txt, line 2",
        ),
        (
            TRAIN + TRAIN,
            HELD_OUT,
            "line 3: person/253_1.jpg is already in .*, line 1",
        ),
        (
            TRAIN.replace(" 1", " 2"),
            HELD_OUT,
            r"photo_train_kfold\.txt, line 2: label 2 is elephant, not dog",
        ),
        (TRAIN.replace(" 7", " 0"), HELD_OUT, "line 1: label 0 is not that of any class"),
        (TRAIN.replace(" 7", " 8"), HELD_OUT, "line 1: label 8 is not that of any class"),
        (TRAIN.replace(" 7", ""), HELD_OUT, "line 1: expected DOMAIN/CLASS/image LABEL"),
        (
            TRAIN.replace("photo/dog", "sketch/dog"),
            HELD_OUT,
            "line 2: sketch/dog/056_0001.jpg is not of domain photo",
        ),
        (TRAIN, "", "2 images of photo stand in no list .* first dog/056_0002.jpg"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, train, held_out, message):
    with pytest.raises(ValueError, match=message):
        read_split_files(photos(tmp_path, train, held_out), "photo")


def test_images_left_out_as_corrupt_are_passed_over(tmp_path):
    train = TRAIN + "photo/dog/056_0009.jpg 1\n"
    data = photos(tmp_path, train, skipped=["dog/056_0009.jpg"])
    assert read_split_files(data, "photo")[0].tolist() == [3, 0]


def test_the_lists_of_vlcs_have_names_of_their_own(tmp_path):
    data = prepared(tmp_path, "vlcs", "VOC2007", ["bird/1.jpg", "car/1.jpg", "dog/1.jpg"])
    (tmp_path / "lists/PASCAL_train.txt").write_text(
        "PASCAL/full/3/1.jpg 3\nPASCAL/full/0/1.jpg 0\n"
    )
    (tmp_path / "lists/PASCAL_crossval.txt").write_text("VOC2007/car/1.jpg 1\n")
    trained, held = read_split_files(data, "VOC2007")
    assert trained.tolist() == [2, 0]
    assert held.tolist() == [1]
    assert set(PUBLISHED["vlcs"].domains) == set(BENCHMARKS["vlcs"].domains)


def test_the_lists_of_domain_net_number_classes_in_an_order_of_their_own(tmp_path):
    files = ["The_Eiffel_Tower/1.jpg", "aircraft_carrier/1.jpg", "zigzag/1.jpg"]
    data = prepared(tmp_path, "domain_net", "clipart", files)
    (tmp_path / "lists/clipart_train.txt").write_text(
        "clipart/aircraft_carrier/1.jpg 0\nclipart/The_Eiffel_Tower/1.jpg 308\n"
    )
    (tmp_path / "lists/clipart_test.txt").write_text("clipart/zigzag/1.jpg 344\n")
    trained, held = read_split_files(data, "clipart")
    assert trained.tolist() == [1, 0]
    assert held.tolist() == [2]


def test_the_order_of_domain_nets_classes_is_that_of_tfds():
    from tensorflow_datasets.image_classification.domainnet import domainnet

    assert DOMAIN_NET.split() == domainnet._CLASS_NAMES


def test_missing_lists_say_how_to_get_on(tmp_path):
    data = prepared(tmp_path, "pacs", "photo", PHOTOS)
    with pytest.raises(ValueError, match=r"split_dir holds no photo_train_kfold\.txt"):
        read_split_files(data, "photo")
    with pytest.raises(ValueError, match="--split-dir DIR, or take 'domainbed'"):
        read_split_files(dataclasses.replace(data, split_dir=None), "photo")
    with pytest.raises(ValueError, match="office_home has no published lists, only pacs"):
        read_split_files(dataclasses.replace(data, name="office_home"), "photo")
