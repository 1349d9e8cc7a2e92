"""A population is its runs: the same numbers, files and errors as one after another."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.config.run import make_config
from experiments.data import load
from experiments.data.prepare import Prepared
from experiments.devices import one_device
from experiments.training import population
from experiments.training.loop import train
from experiments.training.metrics import RunDivergedError, read_metrics
from experiments.training.pattern import pattern
from experiments.training.population import lanes_on_cpu, train_population
from experiments.training.program import make_program, shapes
from experiments.training.run_folder import RunFolder
from tests.float32 import BOUND

SMALL = {
    "steps": 30,
    "batch_size": 4,
    "log_every": 5,
    "checkpoint_every": 10,
    "optimizer": "sgd",  # Adam's first steps are signs: they make rounding errors visible
}
DATA = load("rotated_digits")
# They differ in all that members may differ in; the unseen domains leave training parts
# of different sizes.
MEMBERS = (
    {
        **{"seed": 0, "unseen": "75", "rho": 0.05, "lam": 0.1, "alpha": 1e-3},
        **{"weight_decay": 1e-4, "dropout": 0.1},
        **{"penalty": "vrex", "penalty_weight": 0.1, "penalty_start": 5},
    },
    {
        **{"seed": 1, "unseen": "0", "rho": 0.2, "lam": 0.7, "alpha": 0.1},
        **{"weight_decay": 1e-2, "dropout": 0.3, "learning_rate": 1e-2},
        **{"penalty": "vrex", "penalty_weight": 0.5, "penalty_start": 17},
    },
)


def config(method="erm", seed=0, unseen="75", also_unseen="", **changes):
    return make_config(
        data="rotated_digits",
        method=method,
        unseen=unseen,
        also_unseen=also_unseen,
        seed=seed,
        overrides={**SMALL, **changes},
    )


def final_params(path, own):
    program = make_program(own, DATA.classes, len(own.sources(DATA.domains)))
    state, _ = shapes(program)  # compiles nothing
    with contextlib.closing(RunFolder(path, own, one_device())) as folder:
        return jax.tree.leaves(folder.restore(state).params)


def assert_close_runs(path, expected, own):
    """All that was logged and all weights; accuracies count the same images."""
    lines, expected_lines = read_metrics(path), read_metrics(expected)
    assert len(lines) == len(expected_lines)
    for line, expected_line in zip(lines, expected_lines, strict=True):
        assert line.keys() == expected_line.keys()
        for name, value in line.items():
            if "accuracy" in name or name in ("step", "kind"):
                assert value == expected_line[name], (name, line["step"])
            else:
                assert value == pytest.approx(expected_line[name], rel=BOUND), name
    pairs = zip(final_params(path, own), final_params(expected, own), strict=True)
    for ours, theirs in pairs:
        assert np.linalg.norm(ours - theirs) <= BOUND * np.linalg.norm(theirs)
    assert (path / "config.json").read_text() == (expected / "config.json").read_text()
    files = [{p.name for p in folder.iterdir()} for folder in (path, expected)]
    assert files[0] == files[1]
    assert list((path / "tensorboard").glob("events*"))
    records = [
        json.loads((folder / "result.json").read_text()) for folder in (path, expected)
    ]
    assert records[0].keys() == records[1].keys()


@pytest.mark.parametrize(("method", "compared"), [("disam+sagm", 0)])
def test_members_are_the_separate_runs(method, compared, tmp_path):
    configs = [config(method, checkpoint_every=30, **changes) for changes in MEMBERS]
    runs = {tmp_path / f"together{i}": own for i, own in enumerate(configs)}
    assert len({pattern(own) for own in configs}) == 1
    outcomes = train_population(runs, DATA)
    for path in runs:
        assert outcomes[path] == json.loads((path / "result.json").read_text())
    path, own = tmp_path / f"together{compared}", configs[compared]
    train(own, DATA, tmp_path / "apart")  # one alone: each compiles a program of its own
    assert_close_runs(path, tmp_path / "apart", own)


ERM = [
    config(seed=0, learning_rate=3e-3),
    config(seed=1, unseen="0", learning_rate=1e-2),
    config(seed=2, learning_rate=3e-3),
]


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    for own in ERM:
        train(own, DATA, folder / str(own.seed))
    return folder


def train_erm(folder, configs=ERM, *watch, **options):
    runs = {folder / str(own.seed): own for own in configs}
    return list(train_population(runs, DATA, *watch, **options).values())


def test_erm_and_two_populations_one_after_the_other(apart, tmp_path):
    """Three runs with two lanes: the third stays by itself."""
    seen = []

    def watch(own, step, line):
        seen.append((own.seed, step))

    records = train_erm(tmp_path, ERM, watch, lanes=2)
    assert seen[:4] == [(0, 5), (1, 5), (0, 10), (1, 10)]
    assert seen[-1] == (2, 30) and len(seen) == 18
    assert [record["seed"] for record in records] == [0, 1, 2]
    for own in ERM:
        assert_close_runs(tmp_path / str(own.seed), apart / str(own.seed), own)


class Stop(Exception):
    pass


def stop_at(step):
    def watch(own, done, line):
        if done == step and own.seed == 1:
            raise Stop

    return watch


@pytest.mark.parametrize("step", [5, 25])
def test_a_killed_population_goes_on(step, apart, tmp_path):
    pair = ERM[:2]
    with pytest.raises(Stop):
        train_erm(tmp_path, pair, stop_at(step))
    assert not (tmp_path / "0" / "result.json").exists()
    train_erm(tmp_path, pair)
    for own in pair:
        assert_close_runs(tmp_path / str(own.seed), apart / str(own.seed), own)


def test_members_at_different_checkpoints_wait_for_each_other(apart, tmp_path):
    """The first is finished, the second killed after step 10, the third not begun."""

    def stop(done, line):
        if done == 15:
            raise Stop

    train(ERM[0], DATA, tmp_path / "0")
    with pytest.raises(Stop):
        train(ERM[1], DATA, tmp_path / "1", stop)
    seen = []
    train_erm(tmp_path, ERM, lambda own, step, _: seen.append((own.seed, step)))
    assert seen[:4] == [(2, 5), (2, 10), (1, 15), (2, 15)]
    assert len(seen) == 10
    for own in ERM:
        assert_close_runs(tmp_path / str(own.seed), apart / str(own.seed), own)


def test_a_finished_population_is_only_read(apart, monkeypatch):
    monkeypatch.setattr(
        population, "compile_population", lambda *_: pytest.fail("trained again")
    )
    records = train_erm(apart)
    assert [record["seed"] for record in records] == [0, 1, 2]
    assert train(ERM[0], DATA, apart / "0") == records[0]


def test_a_member_that_diverges_disturbs_no_other(apart, tmp_path):
    wild = config(seed=1, unseen="0", learning_rate=1e30)
    record, error = train_erm(tmp_path, [ERM[0], wild])
    assert record["steps"] == 30
    assert_close_runs(tmp_path / "0", apart / "0", ERM[0])
    with pytest.raises(RunDivergedError) as alone:
        train(wild, DATA, tmp_path / "alone")
    assert isinstance(error, RunDivergedError)
    assert str(error) == str(alone.value)
    assert not (tmp_path / "1" / "result.json").exists()
    assert RunFolder(tmp_path / "1", wild, one_device()).checkpoint_step() is None
    lines = [read_metrics(tmp_path / name) for name in ("1", "alone")]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]


def test_a_member_that_the_last_step_made_infinite_disturbs_no_other(tmp_path):
    at_once = {"steps": 1, "log_every": 1, "checkpoint_every": 1, "schedule": "constant"}
    tame, wild = (
        config(seed=seed, learning_rate=rate, **at_once)
        for seed, rate in enumerate((1e-3, 1e38))
    )
    record, error = train_erm(tmp_path, [tame, wild])
    assert record["steps"] == 1
    assert isinstance(error, RunDivergedError)
    assert "held-out images of domain 0, 15" in str(error)
    assert not (tmp_path / "1" / "result.json").exists()


def test_compare_vectorize_writes_the_same_records(tmp_path):
    results = {}
    for name, option in (("apart", ()), ("together", ("--vectorize",))):
        out = tmp_path / name
        arguments = (
            *("compare", "--data", "rotated_digits", "--methods", "erm", "--seeds", "2"),
            *("--unseen", "75", "--steps", "30", "--batch-size", "4", "--log-every", "5"),
            *("--checkpoint-every", "10", "--optimizer", "sgd", "--devices", "1"),
            *("--out", str(out), *option),
        )
        called = CliRunner().invoke(app, arguments)
        assert called.exit_code == 0, called.output
        results[name] = json.loads((out / "results.json").read_text())
        assert (out / "report.md").exists()
    assert len(results["apart"]["records"]) == 2
    for apart, together in zip(*(results[n]["records"] for n in results), strict=True):
        assert apart.keys() == together.keys()
        for name, value in apart.items():
            if name.startswith("loss") or name.startswith("out_split_loss"):
                assert together[name] == pytest.approx(value, rel=BOUND)
            elif name not in ("seconds_per_step", "in_domain_loss", "commit"):
                assert together[name] == value, name


def test_what_cannot_be_vectorized_is_refused_before_anything_is_written(tmp_path):
    swad = dataclasses.replace(ERM[0], preset=dataclasses.replace(ERM[0].preset, swad=True))
    with pytest.raises(ValueError, match=r"swad is True: leave --vectorize or --swad out"):
        train_population({tmp_path / "a": ERM[0], tmp_path / "b": swad}, DATA)
    nowhere = dataclasses.replace(ERM[0], unseen="90")
    with pytest.raises(ValueError, match="unknown domain of rotated_digits '90'"):
        train_population({tmp_path / "a": ERM[0], tmp_path / "b": nowhere}, DATA)
    on_disk = Prepared("pacs", tmp_path, DATA.domains, DATA.classes)
    message = "--vectorize needs images held in memory, and those of pacs are on the disk"
    with pytest.raises(ValueError, match=message):
        train_population({tmp_path / "a": ERM[0]}, on_disk)
    with pytest.raises(ValueError, match="lanes must be at least 1; got 0"):
        train_population({tmp_path / "a": ERM[0]}, DATA, lanes=0)
    assert not any(tmp_path.iterdir())


def test_on_a_cpu_the_pixels_of_a_batch_limit_the_lanes():
    emoji = make_config(data="emoji_styles", method="erm", unseen="mono", seed=0)
    digits = make_config(data="rotated_digits", method="erm", unseen="0", seed=0)
    assert lanes_on_cpu(emoji, load("emoji_styles")) == 2  # 3 domains x 32 x 32 x 32
    assert lanes_on_cpu(digits, DATA) == 4  # 5 domains x 32 x 16 x 16
    assert lanes_on_cpu(config(), DATA) == 39


@pytest.mark.slow
def test_pairs_of_unseen_domains_are_a_population_of_their_own(tmp_path):
    pairs = [config(unseen="75", also_unseen="0"), config(unseen="15", also_unseen="30")]
    assert pattern(pairs[0]) == pattern(pairs[1]) != pattern(config())
    runs = {tmp_path / str(i): own for i, own in enumerate((*pairs, config()))}
    outcomes = train_population(runs, DATA)
    train(pairs[1], DATA, tmp_path / "apart")
    assert_close_runs(tmp_path / "1", tmp_path / "apart", pairs[1])
    assert list(outcomes.values())[2]["also_unseen_domain"] == ""


def test_runs_of_different_trainings_are_different_populations():
    other = [config(steps=40), config("sam"), config(variance="count_weighted")]
    assert len({pattern(own) for own in (*ERM, *other)}) == 4
