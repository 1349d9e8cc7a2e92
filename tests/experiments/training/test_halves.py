from fractions import Fraction

import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import DomainData
from experiments.data.export import export
from experiments.data.prepare import prepare
from experiments.training.evaluation import CHUNK, in_chunks, pooled, score
from experiments.training.feed import make_feed
from experiments.training.halves import half_accuracies, pooled_shares, right_by_half

RNG = np.random.default_rng(0)
COUNT, CLASSES, SEEN = 3 * CHUNK + 17, 7, (0, 2, 5)
LOGITS = RNG.normal(size=(COUNT, CLASSES))
LABELS = RNG.integers(0, CLASSES, COUNT)
LOGITS[np.arange(COUNT), LABELS] += 1.0
IMAGES = np.zeros((COUNT, 1, 1, 3), np.uint8)  # each says its own position
IMAGES[:, 0, 0] = np.stack([np.arange(COUNT) // 256, np.arange(COUNT) % 256] * 2, 1)[:, :3]


def predict(images):
    high, low = images[:, 0, 0, 0].astype(int), images[:, 0, 0, 1]
    return LOGITS[256 * high + low]


def scored(*cuts):
    parts = {i: in_chunks(IMAGES[cut], LABELS[cut]) for i, cut in enumerate(cuts)}
    return score(predict, parts, SEEN)


def exact(share, count):
    """The share as right answers over images, which it must be."""
    found = Fraction(round(share * count), count)
    assert abs(found - Fraction(share)) < Fraction(1, 2**50)
    return found


def test_total_is_made_of_base_and_new_by_their_images():
    (found,) = scored(slice(None)).values()
    (base, of_base), (new, of_new) = (found.halves[half] for half in ("base", "new"))
    assert of_base == np.isin(LABELS, SEEN).sum() and of_base + of_new == COUNT
    total = exact(found.accuracy, COUNT)
    part = Fraction(int(of_base), COUNT)
    assert total == part * exact(base, of_base) + (1 - part) * exact(new, of_new)


def test_shares_of_the_halves_by_hand():
    (found,) = scored(slice(None)).values()
    base = np.isin(LABELS, SEEN)
    for half, classes, images in (
        ("base", list(SEEN), base),
        ("new", [1, 3, 4, 6], ~base),
    ):
        own = LOGITS[images][:, classes]
        within = np.array(classes)[own.argmax(1)] == LABELS[images]
        among_all = LOGITS[images].argmax(1) == LABELS[images]
        assert found.halves[half] == (among_all.mean(), images.sum())
        assert found.halves[f"{half}_within"] == (within.mean(), images.sum())
        assert within.sum() > among_all.sum()


def test_what_is_right_among_all_classes_is_right_within_the_half():
    found = right_by_half(LOGITS, LABELS, SEEN)
    for half in ("base", "new"):
        assert (found[f"{half}_within"] | ~found[half]).all()


def test_parts_are_pooled_by_their_images():
    cuts = slice(0, 50), slice(50, 51), slice(51, None)
    (whole,) = scored(slice(None)).values()
    several = pooled(scored(*cuts).values())
    assert several.halves.keys() == whole.halves.keys()
    for name, (share, count) in several.halves.items():
        assert count == whole.halves[name][1]
        assert exact(share, count) == exact(whole.halves[name][0], count)
    assert exact(several.accuracy, COUNT) == exact(whole.accuracy, COUNT)


def test_a_part_without_images_of_a_half_says_nothing_of_it():
    base = np.isin(LABELS, SEEN)
    alone = scored(base)[0].halves
    assert alone.keys() == {"base", "base_within"}
    assert "harmonic" not in half_accuracies(alone)
    both = pooled_shares([alone, scored(~base)[0].halves])
    assert both == scored(slice(None))[0].halves
    plain = score(predict, {0: in_chunks(IMAGES, LABELS)})[0]
    assert plain.halves == {} == half_accuracies({})


def test_the_harmonic_mean_is_of_both_halves():
    found = half_accuracies({"base": (0.6, 10), "new": (0.3, 90)})
    assert found == {"base": 0.6, "new": 0.3, "harmonic": pytest.approx(0.4)}
    assert half_accuracies({"base": (0.0, 1), "new": (0.0, 1)})["harmonic"] == 0.0


# What a run reads: every picture is of its class's gray, in memory and on the disk.
NAMES = ("d", "a", "c", "b", "e")  # sorted, a and b are the first two
BASE = {1, 3}


def pictures():
    def domain(number):
        labels = np.repeat(np.arange(5, dtype=np.int32), 10)
        images = np.broadcast_to(40 * labels[:, None, None, None], (50, 16, 16, 3))
        groups = 50 * number + np.arange(50, dtype=np.int32)
        return images.astype(np.uint8), labels, groups

    images, labels, groups = zip(*map(domain, range(3)), strict=True)
    return DomainData(
        "grays", ("x", "y", "z"), NAMES, images, labels, groups, flip=False, description=""
    )


def config(data, **changes):
    own = {
        "model": "clip",
        "weights": "none.pt",  # the feed reads no model
        "image_size": 16,
        "batch_size": 4,
        "dropout": 0.0,
        "jitter": 0.0,
        "grayscale": 0.0,
        "open_classes": 0.5,
        **changes,
    }
    return make_config(data=data, method="erm", unseen="z", seed=0, overrides=own)


@pytest.fixture(scope="module", params=["in memory", "on the disk"])
def feed(request, tmp_path_factory):
    if request.param == "in memory":
        return make_feed(config("emoji_styles"), pictures()), np.arange(5), BASE
    root = tmp_path_factory.mktemp("grays")
    export(pictures(), root / "tree")
    data = prepare("folder", root / "tree", root / "prepared")
    assert data.classes == tuple(sorted(NAMES))
    grays = np.array([NAMES.index(name) for name in data.classes])
    return make_feed(config("folder"), data), grays, {0, 1}


def read(call):
    chunks = list(call())
    images, labels = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    return images[:, 8, 8, 0] / 40, labels


def test_training_sees_no_image_and_no_label_of_a_new_class(feed):
    made, grays, base = feed
    seen = set()
    for _, batch in zip(range(12), made.batches(0), strict=False):
        labels = np.asarray(batch.labels)
        shown = np.asarray(batch.images)[:, 8, 8, 0] * 255 / 40
        np.testing.assert_allclose(shown, grays[labels], atol=0.05)  # as it is labelled
        seen |= set(labels.tolist())
    assert seen == base


def test_sources_are_validated_on_base_classes_and_new_ones_stand_apart(feed):
    made, grays, base = feed
    new = set(range(5)) - base
    for source in ("x", "y"):
        for split, classes in ((made.out_split, base), (made.new_split, new)):
            shown, labels = read(split[source])
            assert set(labels.tolist()) <= classes
            np.testing.assert_array_equal(shown, grays[labels])
        counts = [len(read(s[source])[1]) for s in (made.out_split, made.new_split)]
        assert sum(counts) == 10  # a fifth of 50
    assert made.new_split.keys() == {"x", "y"}


def test_of_the_unseen_domain_all_classes_are_scored(feed):
    made, _, _ = feed
    held = read(made.out_split["z"])[1]
    others = [read(call)[1] for call in made.in_split["z"].values()]
    every = np.concatenate([held, *others])
    np.testing.assert_array_equal(np.bincount(every), [10] * 5)


@pytest.mark.parametrize("where", ["in memory", "on the disk"])
def test_a_source_without_base_classes_is_refused_before_a_step(where, tmp_path):
    data = pictures()
    of_new = [np.isin(own, [1, 3], invert=True) | (d != 1)
              for d, own in enumerate(data.labels)]  # fmt: skip
    data = data.subset(of_new)
    made = config("emoji_styles")
    if where == "on the disk":
        export(data, tmp_path / "tree")
        data = prepare("folder", tmp_path / "tree", tmp_path / "prepared")
        made = config("folder")
    with pytest.raises(ValueError, match="has 0 images of the base classes"):
        make_feed(made, data)
