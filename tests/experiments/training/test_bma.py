import contextlib
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.devices import one_device
from experiments.training.bma import beta_shares, take_in
from experiments.training.loop import train
from experiments.training.metrics import read_metrics
from experiments.training.population import train_population
from experiments.training.program import begin, make_program
from experiments.training.run import Run, init_key
from experiments.training.run_folder import RunFolder
from tests.experiments.models.clip.recorded import DATA
from tests.float32 import assert_close

# CLIPOOD's own class, in float64: (steps, beta) -> what each model's weight is in the end.
RECORDED = {
    (4, 0.5): [0.2558, 0.16746, 0.15348, 0.16746, 0.2558],
    (4, 0.1): [0.300151, 0.14001, 0.119677, 0.14001, 0.300151],
    (10, 0.5): [0.157075, 0.095341, 0.078074, 0.070246, 0.066546, 0.065437],
}


def weights_in_the_end(steps, beta):
    """Of each model: its share, and what later models left of it."""
    shares = beta_shares(steps, beta)
    left = np.append(np.cumprod((1 - shares[1:])[::-1])[::-1], 1.0)
    return shares * left


@pytest.mark.parametrize(("steps", "beta"), RECORDED)
def test_shares_are_clipood_s(steps, beta):
    found, recorded = weights_in_the_end(steps, beta), RECORDED[steps, beta]
    np.testing.assert_allclose(found[: len(recorded)], recorded, atol=5e-6)  # 5 digits
    np.testing.assert_allclose(found, found[::-1], rtol=1e-12)  # both ends alike
    assert found.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("beta", "first", "tenth"), [(0.5, 0.0064007, 0.2034), (0.1, 0.0624756, 0.3553)]
)
def test_over_5000_steps_a_small_beta_gives_the_ends_much(beta, first, tenth):
    found = weights_in_the_end(5000, beta)
    assert found[0] == pytest.approx(first, abs=5e-8)
    assert found[:501].sum() == pytest.approx(tenth, abs=5e-5)


def test_a_large_beta_gives_the_first_nothing_and_no_nan():
    shares = beta_shares(5000, 100.0)
    assert np.isfinite(shares).all()
    assert weights_in_the_end(5000, 100.0)[2500] == pytest.approx(
        np.sqrt(400 / np.pi) / 5001,
        rel=0.01,  # a Gaussian's height, to 1 / beta
    )


def test_beta_1_is_the_plain_mean():
    np.testing.assert_allclose(weights_in_the_end(9, 1.0), np.full(10, 0.1))


def averaged(models, beta, dtype):
    """Model by model, as a run takes them in."""
    average = {"w": jnp.asarray(models[0], dtype)}
    for step, model in enumerate(models[1:], start=1):
        now = {"w": jnp.asarray(model, dtype)}
        average = take_in(average, now, jnp.int32(step), len(models) - 1, beta)
    return average["w"]


def test_the_average_is_clipood_s(x64):
    average = averaged([1, 2, 5, 10, 17], 0.5, jnp.float64)
    assert abs(average - 7.381318870172054) < 1e-12


def test_in_float32_the_average_stays_near():
    models = np.random.default_rng(0).normal(size=201)
    average = averaged(models, 0.1, jnp.float32)
    # Each of 200 means rounds by 2^-24 of at most 4.
    assert average.dtype == jnp.float32
    assert abs(average - weights_in_the_end(200, 0.1) @ models) < 200 * 4 * 2**-24


# Whole runs, of CLIP's smallest.
load_once = functools.cache(load)


def config(seed=0, **changes):
    small = {
        "model": "clip",
        "weights": str(DATA / "open_clip.pth"),
        "activation": "gelu",
        "image_size": 16,
        "tuning": "linear",  # the quickest to compile
        "batch_size": 2,
        "steps": 6,
        "log_every": 1,
        "checkpoint_every": 2,
        "bma": 0.5,
        "shift": 0,
    }
    overrides = {**small, **changes}
    return make_config(
        data="rotated_digits", method="disam", unseen="75", seed=seed, overrides=overrides
    )


def data():
    return load_once("rotated_digits", image_size=16)


def last_state(path, own):
    fresh, _ = begin(make_program(own, data().classes, 5), jax.random.key(9), one_device())
    with contextlib.closing(RunFolder(path, own, one_device())) as folder:
        return folder.restore(fresh)


class Stop(Exception):
    pass


def trained(own, path):
    """A run's record, and what was scored after every step."""
    kept, log_window = [], Run.log_window

    def keep(self, *arguments):
        kept.append(jax.tree.map(np.asarray, self.state.scored))
        return log_window(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log_window", keep)
        return train(own, data(), path), kept


def averaged_over_all(own, kept):
    """What a run's average must be, of 6 steps."""
    first, _ = begin(make_program(own, data().classes, 5), init_key(own), one_device())
    weights = weights_in_the_end(6, 0.5)
    return jax.tree.map(
        lambda *leaves: np.tensordot(weights, np.stack(leaves), 1), first.scored, *kept
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with both averages, its record, and what was scored after every step."""
    path = tmp_path_factory.mktemp("whole")
    return path, *trained(config(swad=True), path)


def test_a_run_s_average_is_that_of_all_its_weights(whole):
    path, _, kept = whole
    own = config(swad=True)
    assert_close(last_state(path, own).average, averaged_over_all(own, kept))


def test_running_statistics_are_averaged_as_the_weights_are(tmp_path):
    """Those of the last step are of other weights: they would score as another model."""
    own = config(model="resnet", weights="scratch", activation="", tuning="finetune")
    _, kept = trained(own, tmp_path)
    average = last_state(tmp_path, own).average
    assert jax.tree.leaves(average[1])
    assert_close(average, averaged_over_all(own, kept))


def test_the_average_is_recorded_beside_swad_and_the_selection_rules(whole):
    path, record, _ = whole
    lines = {line["kind"]: line for line in read_metrics(path)}
    for kind in ("bma", "swad"):
        assert record[kind]["step"] == 6
        assert record[kind]["whole"] == lines[kind]["out_of_domain_accuracy"]
    assert lines["bma"] != {**lines["evaluation"], "kind": "bma"}  # other weights


def test_a_checkpoint_holds_what_is_trained_alone(whole):
    path, _, _ = whole
    state = last_state(path, config(swad=True))
    assert state.params.keys() == state.average[0].keys() == {"head"}
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    files = sum(f.stat().st_size for f in (path / "checkpoints").rglob("*") if f.is_file())
    # Weights, average and two moments of 10 x 16 numbers: the tower's 64,000 are not there.
    assert held < 4 * 10 * 16 * 4 + 100
    assert files < 64_000 * 4


@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_run_that_was_killed_ends_with_the_same_bits(whole, tmp_path, stop_at):
    path, record, _ = whole
    own = config(swad=True)

    def stop(step, line):
        if step == stop_at:
            raise Stop

    with pytest.raises(Stop):
        train(own, data(), tmp_path, stop)
    train(own, data(), tmp_path)
    assert (path / "metrics.jsonl").read_bytes() == (
        tmp_path / "metrics.jsonl"
    ).read_bytes()
    found = [jax.tree.leaves(last_state(p, own)) for p in (path, tmp_path)]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    again = json.loads((tmp_path / "result.json").read_text())
    assert {**again, "seconds_per_step": 0} == {**record, "seconds_per_step": 0}


@pytest.mark.slow
def test_runs_that_train_together_have_their_own_averages(tmp_path):
    runs = {tmp_path / str(seed): config(seed, steps=2) for seed in range(2)}
    together = train_population(runs, data())
    for path, own in runs.items():
        alone = train(own, data(), tmp_path / f"alone{path.name}")
        assert_close(
            last_state(path, own).average,
            last_state(tmp_path / f"alone{path.name}", own).average,
        )
        assert together[path]["bma"]["step"] == alone["bma"]["step"] == 2


def test_where_nothing_is_trained_runs_may_be_together_too(tmp_path):
    own = config(tuning="zero_shot", steps=0, bma=0.0)
    runs = {tmp_path / "together": own}
    together = train_population(runs, data())[tmp_path / "together"]
    alone = train(own, data(), tmp_path / "alone")
    assert together["last_step"] == alone["last_step"]
    assert alone["last_step"]["step"] == 0
