import numpy as np
import pytest

from experiments.data import load
from experiments.studies.kit.changes import CHANGES, Change, apply_change

DATA = load("rotated_digits", image_size=8)
IDS = np.repeat(np.arange(5), 400)


def deal(name, amount):
    return CHANGES[name](IDS, amount, np.random.default_rng(1))


def test_the_unseen_domain_and_the_images_stay():
    changed = apply_change(Change("wrong_labels", 1.0), DATA, "75", seed=0)
    assert changed.domains == DATA.domains
    np.testing.assert_array_equal(changed.images[5], DATA.images[5])

    def scans(data):
        return sorted(np.concatenate(data.groups[:5]).tolist())

    assert scans(changed) == scans(DATA)
    label_of = dict(
        zip(np.concatenate(DATA.groups), np.concatenate(DATA.labels), strict=True)
    )
    for groups, labels in zip(changed.groups, changed.labels, strict=True):
        assert [label_of[g] for g in groups] == labels.tolist()


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_wrong_labels_keep_the_counts_and_move_their_share(share):
    dealt = deal("wrong_labels", share)
    np.testing.assert_array_equal(np.bincount(dealt), [400] * 5)
    moved = np.mean(dealt != IDS)
    expected = share * 0.8  # one in five gets its own again
    assert abs(moved - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5


def test_a_change_is_drawn_by_the_seed():
    def groups(seed):
        return apply_change(Change("wrong_labels", 0.5), DATA, "75", seed).groups[0]

    np.testing.assert_array_equal(groups(0), groups(0))
    assert set(groups(0)) != set(groups(1))


def test_no_change_is_the_data_itself():
    assert apply_change(None, DATA, "75", 0) is DATA
    with pytest.raises(ValueError, match="unknown change 'noise'; there are: wrong_labels"):
        apply_change(Change("noise", 1.0), DATA, "75", 0)
