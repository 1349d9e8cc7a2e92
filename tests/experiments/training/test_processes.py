"""Several processes on the loopback: one run, whatever their number, and no one waits."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.data.export import export
from experiments.data.prepare import prepare
from experiments.devices import all_devices
from experiments.training.loop import train
from experiments.training.metrics import read_metrics
from tests.float32 import BOUND

ROOT = Path(__file__).parents[3]


def config(prepared):
    return make_config(
        data="folder",
        method="disam",
        unseen="mono",
        seed=0,
        data_fingerprint=prepared.fingerprint,
        overrides={
            "model": "patchnet",
            "weights": "scratch",
            "image_size": 16,
            "batch_size": 8,
            "steps": 8,
            "log_every": 2,
            "checkpoint_every": 4,
            "swad": True,
            # Adam's first steps are signs: they would make rounding errors visible.
            "optimizer": "sgd",
            "learning_rate": 0.05,
        },
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("processes")
    data = load("emoji_styles", image_size=16)
    few = data.subset([np.arange(len(y)) % 6 == 0 for y in data.labels])
    export(few, root / "tree")
    return root


@pytest.fixture(scope="module")
def data(folder):
    return prepare("folder", folder / "tree", folder / "prepared")


@pytest.fixture(scope="module")
def of_one_device(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    train(config(data), data, out)
    return read_metrics(out)


def run(count, folder, out, **options):
    """Runs that many processes; returns their exit statuses and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    die_at = options.pop("die_at", {})
    shared = [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.experiments.training.process_worker"),
                *("--coordinator", f"127.0.0.1:{port}"),
                *("--processes", str(count), "--process", str(i)),
                *("--prepared", str(folder), "--out", str(out)),
                *("--die-at", str(die_at.get(i, -1)), *shared),
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for i in range(count)
    ]
    said = [process.communicate(timeout=240)[1] for process in processes]
    return [process.returncode for process in processes], said


def assert_same_lines(found, expected):
    """All that was logged; accuracies exactly, for they count images."""
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if "accuracy" in name or name == "kind":
                assert ours[name] == value, name
            else:
                np.testing.assert_allclose(ours[name], value, rtol=BOUND, err_msg=name)


def test_eight_devices_make_the_run_of_one(data, of_one_device, tmp_path):
    train(config(data), data, tmp_path, layout=all_devices(8, "sharded"))
    assert_same_lines(read_metrics(tmp_path), of_one_device)


@pytest.mark.slow
def test_one_killed_ends_all_and_others_go_on(folder, data, of_one_device, tmp_path):
    """Four processes, one of them switched off; two, with four devices, go on."""
    statuses, said = run(4, folder, tmp_path, die_at={2: 6})
    assert statuses == [3, 3, -9, 3], said
    for i in (0, 1, 3):
        assert "one of the 4 processes has failed or cannot be reached" in said[i]
        assert "the same command, on all of them, goes on from there" in said[i]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["4"]
    statuses, said = run(2, folder, tmp_path, local_devices=2, parameters="sharded")
    assert statuses == [0, 0], said
    assert_same_lines(read_metrics(tmp_path), of_one_device)


def test_a_batch_that_the_devices_do_not_divide(data, tmp_path):
    with pytest.raises(ValueError, match="24 examples cannot be spread over 5 devices"):
        train(config(data), data, tmp_path, layout=all_devices(5))


@pytest.mark.parametrize("count", [0, 9])
def test_more_devices_than_there_are(count):
    with pytest.raises(ValueError, match=rf"devices must be in 1\.\.8.* got {count}"):
        all_devices(count)
