"""Whole runs on a folder of images: prepared, read, trained, averaged, resumed."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from experiments.config.run import make_config
from experiments.data import load
from experiments.data.export import export
from experiments.data.prepare import prepare
from experiments.training.evaluation import NEW
from experiments.training.feed import batch_examples, make_feed, with_steps
from experiments.training.loop import train
from experiments.training.metrics import read_metrics
from experiments.training.swad import Segments
from tests.float32 import assert_close

SMALL = {
    "model": "patchnet",
    "weights": "scratch",
    "image_size": 16,
    "batch_size": 4,
    "steps": 23,
    "log_every": 2,
    "checkpoint_every": 4,
    "swad": True,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("emoji")
    data = load("emoji_styles", image_size=16)
    few = data.subset([np.arange(len(y)) % 6 == 0 for y in data.labels])
    export(few, root / "tree")
    return prepare("folder", root / "tree", root / "prepared")


def config(prepared, method="disam", seed=0, unseen="mono", protocol=None, **changes):
    return make_config(
        data="folder",
        method=method,
        unseen=unseen,
        seed=seed,
        protocol=protocol,
        data_fingerprint=prepared.fingerprint,
        overrides={**SMALL, **changes},
    )


def test_a_run_has_all_selections_and_swad(prepared, tmp_path):
    record = train(config(prepared), prepared, tmp_path)
    lines = read_metrics(tmp_path)
    steps = [line["step"] for line in lines if line["kind"] == "evaluation"]
    assert steps == [3, 7, 11, 15, 19, 23]  # counted back from the last
    for rule in ("training_domain_validation", "oracle", "last_step", "swad"):
        names = {"step", "validation", "scored", "in_split", "whole"}
        assert record[rule].keys() == names
        assert record[rule]["scored"] == record[rule]["in_split"]  # a folder's 80 %
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    assert record["last_step"]["whole"] == last["out_of_domain_accuracy"]
    assert record["oracle"]["validation"] == last["out_split_accuracy/mono"]
    assert record["swad"]["step"] == 23
    # 115 images of the unseen domain, 23 of them held out.
    parts = 92 * last["in_split_accuracy/mono"] + 23 * last["out_split_accuracy/mono"]
    for name in ("out_of_domain_accuracy", "unseen_concept_accuracy"):
        assert last[name] == pytest.approx(parts / 115)
    assert not (tmp_path / "segments").exists()
    assert json.loads((tmp_path / "result.json").read_text()) == record


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [3, 13, 21])
def test_an_interrupted_run_ends_with_the_same_lines_and_average(
    prepared, tmp_path, stop_at
):
    def stop(step, line):
        if step == stop_at:
            raise Stop

    train(config(prepared), prepared, tmp_path / "whole")
    with pytest.raises(Stop):
        train(config(prepared), prepared, tmp_path / "broken", stop)
    train(config(prepared), prepared, tmp_path / "broken")
    whole, broken = (
        (tmp_path / n / "metrics.jsonl").read_bytes() for n in ("whole", "broken")
    )
    assert whole == broken


def test_swad_is_the_mean_of_the_weights_in_its_segments(prepared, tmp_path, monkeypatch):
    """Every step's weights are kept aside and averaged by hand."""
    kept, averaged = [], []
    add, average = Segments.add, Segments.average_over_valley

    def keep(self, state):
        kept.append(np.asarray(state.params["head"]["kernel"]))
        add(self, state)

    def remember(self, lines, state):
        averaged.append(average(self, lines, state))
        return averaged[-1]

    monkeypatch.setattr(Segments, "add", keep)
    monkeypatch.setattr(Segments, "average_over_valley", remember)
    monkeypatch.setattr("experiments.training.swad.loss_valley", lambda losses: [1, 3, 3])
    monkeypatch.setattr(
        "experiments.training.swad.segments_needed", lambda losses: range(len(losses))
    )
    train(config(prepared, method="erm"), prepared, tmp_path)
    segments = [np.mean(kept[3:7], 0), np.mean(kept[11:15], 0), np.mean(kept[11:15], 0)]
    ours = averaged[0].params["head"]["kernel"]
    assert_close(ours, np.mean(segments, 0))


def test_the_unseen_domain_s_images_are_not_in_any_batch(prepared):
    feed = make_feed(config(prepared), prepared)
    assert feed.sources == ["fluent", "noto", "twemoji"]
    assert set(feed.out_split) == set(prepared.domains)


def test_wrong_labels_are_for_data_held_in_memory(prepared):
    with pytest.raises(ValueError, match="folder is on the disk: leave --label-noise out"):
        make_feed(config(prepared, label_noise=0.1), prepared)


def test_parts_are_domainbed_s(prepared):
    feed = make_feed(config(prepared), prepared)
    images, labels = zip(*feed.out_split["fluent"](), strict=True)
    assert sum(map(len, labels)) == 23
    assert list(feed.in_split) == ["mono"]
    assert sum(len(labels) for _, labels in feed.in_split["mono"][NEW]()) == 92
    assert images[0].shape[1:] == (16, 16, 3)


def test_two_unseen_domains_are_read_in_both_parts_and_in_no_batch(prepared):
    own = dataclasses.replace(config(prepared, batch_size=2), also_unseen="noto")
    feed = make_feed(own, prepared)
    assert feed.sources == ["fluent", "twemoji"]
    assert set(feed.out_split) == set(prepared.domains)
    assert list(feed.in_split) == ["mono", "noto"]
    for read, size in ((feed.in_split["noto"][NEW], 92), (feed.out_split["noto"], 23)):
        assert sum(len(labels) for _, labels in read()) == size
    batch = next(feed.batches(0))
    assert batch.domains.tolist() == [0, 0, 1, 1]
    assert batch_examples(own, prepared) == 4
    # What is held out does not depend on what is unseen.
    alone = make_feed(config(prepared), prepared)
    ours, theirs = (list(f.out_split["noto"]()) for f in (feed, alone))
    np.testing.assert_array_equal(ours[0][0], theirs[0][0])


def test_with_two_unseen_domains_an_epoch_and_the_images_are_fewer(prepared):
    own = config(prepared, batching="merged", batch_size=10, epochs=2.0, steps=None)
    own = dataclasses.replace(own, also_unseen="noto")
    assert with_steps(own, prepared).preset.steps == 2 * (2 * 92 // 10)
    many = dataclasses.replace(own.preset, batch_size=185)
    with pytest.raises(ValueError, match=r"184, .* mono is unseen and noto is unseen; got"):
        with_steps(dataclasses.replace(own, preset=many), prepared)
    nowhere = dataclasses.replace(own, also_unseen="ink")
    for ask in (make_feed, with_steps):
        with pytest.raises(ValueError, match=r"unknown domain .* 'ink'; there are"):
            ask(nowhere, prepared)


def test_merged_batches_and_epochs(prepared, tmp_path):
    own = config(prepared, protocol="disam_release", batch_size=10, epochs=2.0, steps=None)
    own = with_steps(own, prepared)
    # Three sources of 115 images, a tenth of each held out, in batches of 10.
    assert own.preset.steps == 2 * (3 * 103 // 10)
    short = dataclasses.replace(own, preset=dataclasses.replace(own.preset, steps=4))
    record = train(short, prepared, tmp_path)
    assert record["batch_norm"] == "live" and record["steps"] == 4


def test_batches_augment_by_seed_and_step(prepared):
    feed = make_feed(config(prepared), prepared)
    a, b = next(feed.batches(2)), next(feed.batches(2))
    np.testing.assert_array_equal(a.images, b.images)
    third = feed.batches(1)
    next(third)
    np.testing.assert_array_equal(next(third).images, a.images)
    assert a.images.dtype == np.float32 and a.images.min() >= 0 and a.images.max() <= 1


def test_two_folders_are_never_mixed(prepared, tmp_path):
    train(config(prepared, steps=2), prepared, tmp_path)
    other = dataclasses.replace(config(prepared, steps=2), data_fingerprint="another")
    with pytest.raises(ValueError, match=r"another config.*data_fingerprint"):
        train(other, prepared, tmp_path)


# Domains that are too small for what is asked


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Domains of 4, 12 and 12 images."""
    root = tmp_path_factory.mktemp("tiny")
    for domain, count in (("few", 4), ("ink", 12), ("oil", 12)):
        for i in range(count):
            file = root / "tree" / domain / "xy"[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (i, 0, 0)).save(file)
    return prepare("folder", root / "tree", root / "prepared")


@pytest.mark.parametrize("unseen", ["few", "ink"])  # it is evaluated on, or trained on
@pytest.mark.parametrize("ask", [make_feed, with_steps])
def test_a_domain_of_which_nothing_is_held_out_is_refused_with_the_mend(tiny, unseen, ask):
    with pytest.raises(
        ValueError,
        match=r"domain few of folder has 4 images, 0 of them held out and 4 to train on.* "
        r"give it 5 images or more, or take a larger --holdout-fraction than 0.2",
    ):
        ask(config(tiny, unseen=unseen), tiny)
    ask(config(tiny, unseen=unseen, holdout_fraction=0.25), tiny)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holdout_fraction": 0.0}, "0 of them held out.*: take a larger"),
        (
            {"protocol": "disam_release", "holdout_fraction": 0.95},
            "0 to train on.* smaller",
        ),
    ],
)
def test_a_fraction_that_leaves_a_part_empty_is_refused(tiny, changes, message):
    with pytest.raises(
        ValueError, match=rf"domain few of folder has 4 images, .*{message}"
    ):
        with_steps(config(tiny, unseen="ink", **changes), tiny)


def test_a_merged_batch_larger_than_the_sources_is_refused_whichever_is_unseen(tiny):
    def own(unseen):
        return config(
            tiny, unseen=unseen, batching="merged", holdout_fraction=0.25, batch_size=13
        )

    with_steps(own("few"), tiny)  # 9 of each of the others
    with pytest.raises(ValueError, match=r"at most 12, .* when ink is unseen; got 13"):
        with_steps(own("ink"), tiny)


def test_data_in_memory_is_seen_to_be_enough_before_it_is_trained():
    data = load("rotated_digits")
    masks = [np.arange(len(y)) < (2 if d == 3 else 60) for d, y in enumerate(data.labels)]
    own = make_config(data="rotated_digits", method="erm", unseen="0", seed=0)
    with pytest.raises(ValueError, match=r"domain 45 of rotated_digits has 2 images, .*0;"):
        with_steps(own, data.subset(masks))


def test_groups_need_groups(prepared):
    with pytest.raises(ValueError, match="'groups' needs groups"):
        make_feed(config(prepared, split="groups"), prepared)


def test_data_in_memory_is_split_by_groups():
    data = load("rotated_digits")
    own = make_config(
        data="rotated_digits",
        method="erm",
        unseen="0",
        seed=0,
        overrides={"split": "domainbed"},
    )
    with pytest.raises(ValueError, match="rotated_digits is held in memory"):
        make_feed(own, data)


def test_an_image_of_another_shape_is_resized(prepared, tmp_path):
    for domain in "ab":
        for name in "xy":
            folder = tmp_path / "tree" / domain / name
            folder.mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (30 + i, 50), (i, 0, 0)).save(folder / f"{i}.jpg")
    data = prepare("folder", tmp_path / "tree", tmp_path / "prepared")
    own = config(data, unseen="b", steps=2, swad=False, batch_size=2)
    assert train(own, data, tmp_path / "run")["steps"] == 2
