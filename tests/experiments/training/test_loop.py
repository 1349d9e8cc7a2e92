import contextlib
import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import disam_jax as dj
from experiments.config.run import make_config
from experiments.data import DomainData, load
from experiments.devices import one_device
from experiments.files import locked
from experiments.training.loop import train as train_on
from experiments.training.loop import train_in, windows
from experiments.training.metrics import (
    RunDivergedError,
    perturbation_told,
    read_metrics,
    train_line,
)
from experiments.training.program import begin, make_program
from experiments.training.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
SMALL = {"steps": 30, "batch_size": 8, "log_every": 5, "checkpoint_every": 10}


def config(method="disam", seed=0, **changes):
    return make_config(
        data="rotated_digits",
        method=method,
        unseen="75",
        seed=seed,
        overrides={**SMALL, **changes},
    )


load_once = functools.cache(load)


def train(config, path, *progress, data=None):
    data = data or load_once("rotated_digits", image_size=config.preset.image_size)
    return train_on(config, data, path, *progress)


def final_state(path, own):
    """The state in the last checkpoint."""
    fresh, _ = begin(
        make_program(own, load("rotated_digits").classes, 5),
        jax.random.key(99),
        one_device(),
    )
    with contextlib.closing(RunFolder(path, own, one_device())) as folder:
        return folder.restore(fresh)


def assert_same_run(a, b, own):
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    states = [jax.tree.leaves(final_state(path, own)) for path in (a, b)]
    for ours, theirs in zip(*states, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    records = [json.loads((path / "result.json").read_text()) for path in (a, b)]
    for record in records:
        del record["seconds_per_step"]
    assert records[0] == records[1]


def test_a_run_leaves_all_that_is_promised(tmp_path):
    seen = []
    record = train(config(), tmp_path, lambda step, line: seen.append(step))
    lines = read_metrics(tmp_path)
    assert seen == [5, 10, 15, 20, 25, 30]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == seen
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [10, 20, 30]
    last = evaluations[-1]
    sources = [last[f"out_split_accuracy/{d}"] for d in ("0", "15", "30", "45", "60")]
    assert record["in_domain_accuracy"] == pytest.approx(np.mean(sources))
    # Each scan is in one domain, so that none of the unseen one's was trained on.
    assert 0.0 < record["unseen_concept_accuracy"] == record["out_of_domain_accuracy"] <= 1
    assert json.loads((tmp_path / "result.json").read_text()) == record
    assert json.loads((tmp_path / "config.json").read_text())["unseen"] == "75"
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["packages"]["jax"] == jax.__version__
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_windows_are_counted_back_from_the_last_step():
    own = config(steps=27)

    def of_run(done):
        stops = windows(done, own.logged_steps)
        return [(size, own.is_checkpoint(stop)) for size, stop in stops]

    assert of_run(0) == [(2, False), (5, True)] + [(5, False), (5, True)] * 2
    assert of_run(17) == [(5, False), (5, True)]
    assert of_run(27) == []


def test_windows_reach_from_stop_to_stop():
    assert list(windows(0, {12, 5, 6})) == [(5, 5), (1, 6), (6, 12)]
    assert list(windows(5, {12, 5, 6})) == [(1, 6), (6, 12)]


def test_a_finished_run_is_only_read(tmp_path):
    record = train(config(), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert train(config(), tmp_path, lambda *_: pytest.fail("trained again")) == record
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_seeds_and_methods_give_different_runs(tmp_path):
    records = [
        train(config(method, seed), tmp_path / method / str(seed))
        for method, seed in (("disam", 0), ("disam", 1), ("erm", 0))
    ]
    losses = {round(r["loss/0"], 6) for r in records}
    assert len(losses) == 3


def test_the_unseen_domain_is_never_trained_on(tmp_path):
    """Replacing every image of the unseen domain changes no training loss."""
    data = load("rotated_digits")
    noise = np.random.default_rng(0).integers(0, 256, data.images[5].shape, dtype=np.uint8)
    changed = dataclasses.replace(data, images=(*data.images[:5], noise))
    train(config(), tmp_path / "plain")
    train(config(), tmp_path / "changed", data=changed)

    def losses(path):
        return [line for line in read_metrics(path) if line["kind"] == "train"]

    assert losses(tmp_path / "plain") == losses(tmp_path / "changed")


@pytest.mark.slow
def test_a_second_unseen_domain_is_as_if_it_were_not_there(tmp_path):
    """The run is that of the data without it, and it is evaluated beside the first."""
    data = load("emoji_styles", image_size=16)  # all domains hold out the same concepts
    named = ("domains", "images", "labels", "groups")
    without = dataclasses.replace(data, **{n: getattr(data, n)[1:] for n in named})
    own, pair, turned = (
        make_config(
            data="emoji_styles",
            method="disam",
            unseen=unseen,
            also_unseen=also,
            seed=0,
            overrides={**SMALL, "image_size": 16, "steps": 20},
        )
        for unseen, also in (("mono", ""), ("mono", "noto"), ("noto", "mono"))
    )
    train(own, tmp_path / "without", data=without)
    record = train(pair, tmp_path / "pair", data=data)
    parts = ("out_split", "in_split", "scored")
    second = {f"{part}_accuracy/noto" for part in parts}
    lines = read_metrics(tmp_path / "pair")
    for line, other in zip(lines, read_metrics(tmp_path / "without"), strict=True):
        assert {k: v for k, v in line.items() if k not in second} == other
    assert second <= lines[-1].keys()
    assert record["unseen_concept_accuracy"] == record["out_split_accuracy/mono"]
    assert record["validation_accuracy"] == record["in_split_accuracy/mono"]
    assert (record["unseen_domain"], record["also_unseen_domain"]) == ("mono", "noto")
    other = train(turned, tmp_path / "turned", data=data)
    for name in ("in_split_accuracy/noto", "in_split_accuracy/mono", "in_domain_loss"):
        assert other[name] == record[name]
    assert other["unseen_concept_accuracy"] == record["scored_accuracy/noto"]


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole")
    train(config(), path)
    return path


@pytest.mark.parametrize("stop_at", [5, 10, 25, 30])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, whole, stop_at):
    def stop(step, line):
        if step == stop_at:
            raise Stop

    with pytest.raises(Stop):
        train(config(), tmp_path / "broken", stop)
    train(config(), tmp_path / "broken")
    assert_same_run(whole, tmp_path / "broken", config())


def opened(path, own):
    return contextlib.closing(RunFolder(path, own, one_device()))


@pytest.mark.parametrize(
    ("stop_at", "swad", "kept"),  # SWAD's averages are those since the checkpoint before
    [(5, False, 5), (20, False, 20), (30, False, 30), (25, True, 20)],
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, whole, stop_at, swad, kept):
    own, seen = config(swad=swad), []

    def watch(step, line):
        seen.append(step)

    data = load_once("rotated_digits", image_size=own.preset.image_size)
    if swad:
        whole = tmp_path / "whole"
        train(own, whole)
    with opened(tmp_path / "a", own) as folder:
        assert train_in(folder, data, watch, lambda: seen[-1] == stop_at) is None
    assert seen == list(range(5, stop_at + 1, 5))
    assert not (tmp_path / "a" / "result.json").exists()
    with opened(tmp_path / "a", own) as folder:
        assert folder.checkpoint_step() == kept
    seen.clear()
    train_on(own, data, tmp_path / "a", watch)
    assert seen == list(range(kept + 5, 31, 5))
    assert_same_run(whole, tmp_path / "a", own)


def test_a_stop_that_raises_keeps_nothing_more(tmp_path):
    def lost():
        raise Stop

    with pytest.raises(Stop), opened(tmp_path, config()) as folder:
        train_in(folder, load("rotated_digits"), stop=lost)
    with opened(tmp_path, config()) as folder:
        assert folder.checkpoint_step() is None


def test_who_guards_a_folder_trains_there_without_its_lock(tmp_path):
    own, data = config(steps=5), load("rotated_digits")
    with locked(tmp_path / "a", wait=False, what="training"):
        with pytest.raises(ValueError, match="is taken: process"):
            train(own, tmp_path / "a")
        guarded = RunFolder(tmp_path / "a", own, one_device(), contextlib.nullcontext)
        with contextlib.closing(guarded) as folder:
            record = train_in(folder, data)
            assert train_in(folder, data) == record
    train(own, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "a", own)


def test_a_line_cut_short_is_measured_again(tmp_path, whole):
    def stop(step, line):
        if step == 25:
            raise Stop

    with pytest.raises(Stop):
        train(config(), tmp_path / "broken", stop)
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "kin')
    train(config(), tmp_path / "broken")
    assert_same_run(whole, tmp_path / "broken", config())


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(tmp_path):
    own = config(steps=100)
    command = [
        *(sys.executable, "-m", "experiments", "train", "--data", "rotated_digits"),
        *("--method", "disam", "--unseen", "75", "--seed", "0", "--steps", "100"),
        *("--batch-size", "8", "--log-every", "5", "--checkpoint-every", "10"),
    ]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, "--out", str(killed)], cwd=ROOT)
    deadline = time.time() + 120
    while len(read_metrics(killed)) < 15 and time.time() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    lines = read_metrics(killed)
    assert 15 <= len(lines) < 30
    assert not (killed / "result.json").exists()
    for path in (killed, whole):
        told = [*command, "--out", str(path)]
        subprocess.run(told, cwd=ROOT, check=True)
    assert read_metrics(killed)[: len(lines) - 10] == lines[:-10]
    assert_same_run(killed, whole, own)


def test_another_config_is_refused(tmp_path):
    train(config(), tmp_path)
    message = "another config.*hyperparameters.rho: 0.05 there, 0.2 asked; seed: 0 there, 1"
    with pytest.raises(ValueError, match=message):
        train(config(seed=1, rho=0.2), tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        train(config(), tmp_path)


def test_a_run_killed_while_its_config_was_written_starts_anew(tmp_path):
    (tmp_path / "config.json.5e1f.tmp").write_text('{"data": "rotat')
    assert train(config(steps=5), tmp_path)["steps"] == 5


def test_divergence_names_step_and_domain_and_keeps_the_last_good_checkpoint(tmp_path):
    def save_then_stop(step, line):
        if step == 10:
            raise Stop

    with pytest.raises(Stop):
        train(config(), tmp_path, save_then_stop)
    good = final_state(tmp_path, config())
    broken = final_state(tmp_path, config())
    head = broken.params["head"]
    head["kernel"] = head["kernel"].at[0].set(np.nan)
    folder = RunFolder(tmp_path / "nan", config(), one_device())
    folder.save(broken)
    folder.close()
    message = (
        r"disam/75/seed0: the loss of domain 0, 15, 30, 45, 60 is not finite at step 11\. "
        r".*checkpoint of step 10 is kept in .*smaller rho"
    )
    with pytest.raises(RunDivergedError, match=message):
        train(config(), tmp_path / "nan")
    assert final_state(tmp_path, config()).step == good.step == 10
    assert final_state(tmp_path / "nan", config()).step == 10


def test_weights_that_the_last_step_made_infinite_are_no_result(tmp_path):
    """No window has seen them: the evaluation alone tells."""
    wild = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 1e38}
    own = config("erm", steps=1, log_every=1, checkpoint_every=1, **wild)
    message = (
        r"erm/75/seed0: the loss of the held-out images of domain 0, 15, 30, 45, 60 is not "
        r"finite after step 1\. No checkpoint had been made yet\. Try a smaller"
    )
    for _ in range(2):  # and again, where it goes on
        with pytest.raises(RunDivergedError, match=message):
            train(own, tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert [line["kind"] for line in read_metrics(tmp_path)] == ["train"]
    with opened(tmp_path, own) as folder:
        assert folder.checkpoint_step() is None


def test_divergence_of_one_domain_names_that_one(tmp_path, monkeypatch):
    """An infinite learning rate breaks all; a broken evaluation of one domain only that."""

    evaluation = _evaluation([0.5, np.nan, 0.7])
    with pytest.raises(RunDivergedError, match=r"loss of domain b is not finite at step 8"):
        train_line(
            9, ["a", "b", "c"], [_evaluation([1, 1, 1]), evaluation, evaluation], 0.1
        )


def test_a_run_tells_whether_it_was_sharpness_aware():
    on, off, half = (
        {"step": step, "ascended": share, "perturbation_norm": 0.05 * (share > 0),
         "cosine": cosine}
        for step, share, cosine in ((40, 1.0, 0.8), (10, 0.0, 1.0), (50, 0.5, 0.9))
    )  # fmt: skip
    told = perturbation_told([off, on, half])
    # Of windows of 10, 30 and 10 steps.
    expected = {"ascended": 35 / 50, "perturbation_norm": 0.05, "cosine": 0.85}
    assert told == pytest.approx(expected)
    assert perturbation_told([off]) == {"ascended": 0, "perturbation_norm": 0, "cosine": 0}
    assert perturbation_told([{"step": 1}]) == {}  # of lines that were kept before


def test_what_steps_without_an_ascent_have_is_told_by_none(tmp_path):
    """Every fifth step ascends, by rho."""
    record = train(config("interval_sam", rho=0.05, period=5), tmp_path)
    assert record["ascended"] == pytest.approx(1 / 5)
    assert record["perturbation_norm"] == pytest.approx(0.05, rel=1e-5)
    assert -1 <= record["cosine"] < 0.9999


def test_late_sam_tells_how_many_steps_ascended(tmp_path):
    record = train(config("late_sam", start=20, rho=0.1), tmp_path)
    assert record["ascended"] == pytest.approx(1 / 3)
    assert record["perturbation_norm"] == pytest.approx(0.1, rel=1e-5)
    assert -1 <= record["cosine"] < 1


def _evaluation(losses):

    one = np.float32(1)
    losses = np.array(losses, np.float32)
    return dj.Evaluation(losses, losses, None, losses, one, one, one, one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "adam"}, "unknown method 'adam'; there are: erm, sam, asam"),
        (
            {"data": "pcas"},
            "unknown data set 'pcas'; there are: emoji_styles, emoji_concepts",
        ),
        ({"model": "vgg"}, "unknown model 'vgg'; there are: patchnet, resnet"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; there are: adam, adamw, sgd"),
        ({"penalty_start": -1}, "penalty_start must be at least 0; got -1"),
        (
            {"penalty_weight": math.inf},
            "penalty_weight must be at least 0 and finite; got inf",
        ),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"rho": -1.0}, "rho must be finite and >= 0; got -1"),
        ({"checkpoint_every": 7}, r"multiple of log_every \(5\); got 7"),
        ({"image_size": 8}, "image_size must be a multiple of 16 for patchnet; got 8"),
        ({"seed": -1}, r"seed must lie in \[0, 2\*\*32\); got -1"),
        ({"seed": 2**32}, r"seed must lie in \[0, 2\*\*32\); got 4294967296"),
        ({"weight_decay": math.nan}, "weight_decay must be at least 0; got nan"),
        ({"jitter": math.inf}, "jitter must be at least 0 and finite; got inf"),
        ({"learning_rate": math.inf}, "learning_rate must be > 0 and finite; got inf"),
        ({"grayscale": 1.5}, r"grayscale must lie in \[0, 1\]; got 1.5"),
    ],
)
def test_impossible_configs_are_refused_when_made(changes, message):
    names = {"data": "rotated_digits", "method": "sam", "unseen": "0", "seed": 0}
    fixed = {name: changes.pop(name, value) for name, value in names.items()}
    with pytest.raises(ValueError, match=message):
        make_config(**fixed, overrides={**SMALL, **changes})


def test_unknown_domain_lists_the_known(tmp_path):
    own = dataclasses.replace(config(), unseen="90")
    with pytest.raises(
        ValueError, match="unknown domain of rotated_digits '90'; there are: 0,"
    ):
        train(own, tmp_path)
    pair = dataclasses.replace(config(), also_unseen="90")
    with pytest.raises(ValueError, match="unknown domain of rotated_digits '90'"):
        train(pair, tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_data_sets_are_of_the_expected_kind():
    assert isinstance(load("rotated_digits"), DomainData)


def test_divergence_before_any_checkpoint_says_so(tmp_path):
    message = r"not finite at step \d\. No checkpoint had been made yet\. Try a smaller rho"
    with pytest.raises(RunDivergedError, match=message):
        train(config("sam", rho=1e38), tmp_path)
