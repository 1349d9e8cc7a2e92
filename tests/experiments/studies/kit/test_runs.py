"""A study's run is the run that `train` makes, and is trained once."""

import dataclasses
import json
import multiprocessing
import time

import jax
import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.runs.claims import Claims
from experiments.runs.records import Records, records_in_files
from experiments.studies.kit import probes, run, runs
from experiments.studies.kit.matrix import Group, last, per_seed, run_groups
from experiments.studies.kit.run import Spec, train_spec
from experiments.studies.kit.runs import Setting, Store
from experiments.training.first_batch import first_batch
from experiments.training.loop import train
from experiments.training.metrics import read_metrics

CONFIG = make_config(
    data="colored_digits",
    method="disam",
    unseen="-90%",
    seed=3,
    overrides={"steps": 12, "batch_size": 8, "log_every": 5, "checkpoint_every": 5},
)
SPEC = Spec(
    CONFIG,
    looks=2,
    probes=("scores", "unseen_sharpness", "source_sharpness", "domain_gradients", "few"),
    log_every=5,
)


@pytest.fixture(scope="module")
def outcome():
    with pytest.MonkeyPatch.context() as patch:
        for most in ("LARGEST", "FEW"):  # 512 images take most of the time
            patch.setattr(probes, most, 64)
        patch.setitem(probes.PROBES, "few", lambda t: {"few": probes.unseen_flatness(t)})
        return train_spec(SPEC)


def test_losses_and_scores_are_those_of_train(outcome, tmp_path):
    record = train(CONFIG, load("colored_digits", image_size=16), tmp_path)
    logged = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    # There windows are counted back from the last step, here from the first.
    assert outcome["steps"] == [5, 10, 12]
    sizes = [2, 5, 5]
    whole = np.average(
        [[line[f"loss/{d}"] for d in outcome["sources"]] for line in logged], 0, sizes
    )
    np.testing.assert_allclose(
        np.average(outcome["losses"], 0, [5, 5, 2]), whole, rtol=1e-4
    )
    assert [look["step"] for look in outcome["looks"]] == [6, 12]
    final = outcome["looks"][-1]
    for name in ("in_domain_accuracy", "in_domain_loss", "out_of_domain_accuracy"):
        assert final[name] == pytest.approx(record[name], rel=1e-4), name


def test_what_is_measured_is_finite_and_ordered(outcome):
    for look in outcome["looks"]:
        assert look["unseen_sharpness_10"] >= look["unseen_sharpness"] - 1e-6
        assert look["unseen_gradient_variance"] > 0
        assert np.isfinite(look["unseen_top_eigenvalue"])
        assert len(look["source_sharpness"]) == 2
        assert min(look["source_sharpness"]) > 0
        # Eight batches of 8 of both sources; a mean gradient is no longer than their mean.
        assert np.shape(look["batch_grams"]) == (8, 2, 2)
        whole = np.diagonal(look["domain_gram"])
        assert np.all(whole <= np.mean(look["batch_grams"], 0).diagonal())
        np.testing.assert_allclose(
            np.mean(look["batch_losses"], 0), look["domain_losses"], rtol=1e-5
        )


def test_flatness_is_part_of_sharpness(outcome):
    for look in outcome["looks"]:
        assert set(look["few"]) == {"unseen_gradient_variance", "unseen_sharpness"}
        for name, value in look["few"].items():
            assert value == pytest.approx(look[name], rel=1e-4), name


def test_a_digest_tells_specs_apart():
    others = [
        SPEC,
        dataclasses.replace(SPEC, looks=1),
        dataclasses.replace(SPEC, probes=("scores",)),
        dataclasses.replace(SPEC, data_options=(("angles", (0, 1)),)),
        dataclasses.replace(SPEC, config=dataclasses.replace(CONFIG, seed=4)),
    ]
    assert len({spec.digest for spec in others}) == len(others)
    assert SPEC.digest == dataclasses.replace(SPEC).digest


def test_digests_stay_as_they_are():
    """Hours of kept runs are found by them: a new field must not change an old digest."""
    config = make_config(data="colored_digits", method="disam", unseen="-90%", seed=3)
    assert Spec(config).digest == "d13adf730415082fa8aa6544"


@pytest.fixture
def counted(monkeypatch):
    """Runs are not trained; what was asked for is listed."""
    asked = []

    def told(spec):
        asked.append(spec)
        value = {"out_of_domain_accuracy": spec.config.seed / 10, "step": 1}
        diverged = 1 if spec.config.hyperparameters.rho > 10 else None
        return {"looks": [value], "diverged": diverged, "losses": [[1.0, 3.0]]}

    monkeypatch.setattr(run, "train_spec", told)
    return asked


def test_a_run_is_trained_once(tmp_path, counted):
    seen = []
    first = Store(tmp_path).outcomes([SPEC, SPEC], lambda *at: seen.append(at))
    assert first[0] == first[1] and len(counted) == 1
    assert seen == [(0, 1), (1, 1)]
    again = Store(tmp_path)
    assert again.outcomes([SPEC]) == first[:1] and len(counted) == 1
    ((_, kept),) = records_in_files(tmp_path / "records").values()
    again.outcomes([SPEC])
    assert again.seconds_used == kept["seconds"]
    assert again.commits_used == {kept["commit"]}
    assert again.batches_used == {
        "colored_digits/-90%/3/8/16": first_batch(CONFIG, load("colored_digits"))
    }
    assert kept["id"] == SPEC.digest and kept["state"] == "finished"
    assert kept["spec"]["config"]["seed"] == 3


def test_a_run_of_other_flags_is_not_taken_for_this_one(tmp_path, counted):
    with jax.enable_x64(True):
        Store(tmp_path).outcomes([SPEC])
        Store(tmp_path).outcomes([SPEC])
    ((file, kept),) = records_in_files(tmp_path / "records").values()
    message = f"{file} was trained under other flags .*JAX_ENABLE_X64=True"
    with pytest.raises(ValueError, match=message):
        Store(tmp_path).outcomes([SPEC])
    del kept["flags"]  # as of a version that kept none: JAX's defaults
    file.write_text(json.dumps(kept) + "\n")
    Store(tmp_path).outcomes([SPEC])
    assert len(counted) == 1


def test_a_run_that_an_older_version_kept_is_not_trained_again(tmp_path, counted):
    (outcome,) = Store(tmp_path / "new").outcomes([SPEC])
    ((_, kept),) = records_in_files(tmp_path / "new/records").values()
    old = {name: kept[name] for name in ("spec", "outcome", "seconds", "commit", "flags")}
    (tmp_path / f"{SPEC.digest}.json").write_text(json.dumps(old))
    assert Store(tmp_path).outcomes([SPEC]) == [outcome] and len(counted) == 1
    assert not (tmp_path / "records").exists()


def test_an_error_in_this_process_is_the_run_s_own_whatever_came_before(
    tmp_path, counted, monkeypatch
):
    def broken(spec):
        raise ValueError("no such data set")

    with monkeypatch.context() as patch:
        patch.setattr(run, "train_spec", broken)
        for _ in range(5):  # an ended call is no start of the next one
            with pytest.raises(ValueError, match=r"^no such data set$"):
                Store(tmp_path).outcomes([SPEC])
    assert len(Store(tmp_path).outcomes([SPEC])) == len(counted) == 1


def test_a_run_that_was_given_up_is_named_and_tried_again_by_the_next_call(
    tmp_path, counted, monkeypatch
):
    other = dataclasses.replace(SPEC, looks=1)

    def one_ends_its_process(plan, jobs, watch):
        records = Records(plan.records)
        records.append(other.digest, "finished", **kept)
        records.append(SPEC.digest, "given up", why="its process ended 3 times")

    Store(tmp_path / "there").outcomes([other])
    ((_, kept),) = records_in_files(tmp_path / "there/records").values()
    kept = {name: kept[name] for name in ("outcome", "seconds", "commit", "flags")}
    monkeypatch.setattr(runs, "run_node", one_ends_its_process)
    message = rf"1 of 2 runs .* disam/-90%/seed3 on colored_digits \({SPEC.digest}\).*nodes"
    with pytest.raises(ValueError, match=message):
        Store(tmp_path, jobs=2).outcomes([SPEC, other])
    counted.clear()
    assert len(Store(tmp_path).outcomes([SPEC, other])) == 2
    assert counted == [SPEC]


def test_records_are_not_written_anew_while_others_append_to_them(tmp_path, counted):
    """Another study trains in the same store: what it kept meanwhile would be lost."""
    records, others = Records(tmp_path / "records"), Claims(tmp_path / "claims")
    records.append("of another study", "given up", why="its process ended 3 times")
    assert others.take("another run")
    Store(tmp_path).outcomes([dataclasses.replace(SPEC, looks=1)])  # its own were not
    records.append(SPEC.digest, "given up", why="its process ended 3 times")
    with pytest.raises(ValueError, match="1 runs are being trained; stop their nodes"):
        Store(tmp_path).outcomes([SPEC])
    others.release("another run")
    Store(tmp_path).outcomes([SPEC])
    assert len(counted) == 2
    assert "of another study" in records_in_files(tmp_path / "records")


def tiny(seed, **more):
    overrides = {"steps": 4, "batch_size": 4}
    given = {"data": "colored_digits", "unseen": "-90%", "seed": seed}
    return Spec(make_config(method="erm", overrides=overrides, **given), **more)


@pytest.mark.slow
def test_a_study_outlives_a_process_that_is_killed(tmp_path):
    specs, killed = [tiny(seed) for seed in range(6)], []

    def kill_one(done, total):
        if done and not killed:
            killed.append(multiprocessing.active_children()[0])
            killed[0].kill()

    found = Store(tmp_path / "broken", jobs=2).outcomes(specs, kill_one)
    assert killed and found == Store(tmp_path / "whole").outcomes(specs)
    (log,) = (tmp_path / "broken/nodes").glob("*.log")
    assert "ended by signal 9; another begins" in log.read_text()


@pytest.mark.slow
def test_runs_that_all_fail_are_told_in_one_error_that_ends_the_others(tmp_path):
    specs = [tiny(seed, probes=("no such probe",)) for seed in range(6)]
    with pytest.raises(ValueError, match=r"3 runs failed .* KeyError: 'no such probe'"):
        Store(tmp_path, jobs=2).outcomes(specs)
    while multiprocessing.active_children():  # they were killed; the system takes a moment
        time.sleep(0.1)


def test_groups_are_seeds_by_unseen_domains(tmp_path, counted):
    setting = Setting(Store(tmp_path), seeds=2)
    group = Group("colored_digits", "sam", (("rho", 0.2),), first_seed=5)
    found = run_groups(setting, {"a": group})["a"]
    assert [len(row) for row in found] == [3, 3]
    assert per_seed(found, last("out_of_domain_accuracy")) == [0.5, 0.6]
    assert {spec.config.preset.steps for spec in counted} == {200}  # 400 gradients
    assert {spec.config.hyperparameters.rho for spec in counted} == {0.2}
    assert {spec.config.unseen for spec in counted} == {"+90%", "+80%", "-90%"}


def test_a_run_that_diverged_leaves_its_seed_without_value(tmp_path, counted):
    setting = Setting(Store(tmp_path), seeds=1)
    group = Group("colored_digits", "sam", (("rho", 11.0),))
    found = run_groups(setting, {"a": group})["a"]
    assert np.isnan(per_seed(found, last("out_of_domain_accuracy"))).all()


@pytest.mark.parametrize(
    ("method", "equal_steps", "steps"),
    [("erm", False, 400), ("erm", True, 200), ("sam", False, 200), ("sam", True, 200)],
)
def test_equal_cost_or_equal_steps(tmp_path, method, equal_steps, steps):
    group = Group("colored_digits", method, equal_steps=equal_steps, seeds=1)
    ((spec, *_),) = group.specs(Setting(Store(tmp_path)))
    assert spec.config.preset.steps == steps
