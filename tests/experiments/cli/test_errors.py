"""A user's error is one line that names the file; a fault of ours keeps its traceback."""

import errno
import json

import numpy as np
import pytest

import disam_jax as dj
from experiments import fields
from experiments.cli import app as cli
from experiments.cli.errors import mendable
from experiments.data import load
from experiments.files import write_whole
from experiments.training.metrics import RunDivergedError


def error_of(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("there was no error")


@pytest.mark.parametrize(
    "call",
    [
        lambda: fields.check_at_least("steps", 0, 1),
        lambda: load("pcas"),
        lambda: dj.sam(-1.0),
    ],
)
def test_what_a_line_of_ours_refuses_is_the_user_s(call):
    error = error_of(call)
    assert mendable(error) == str(error)


@pytest.mark.parametrize(
    "call",
    [
        lambda: json.loads('"\n"'),
        lambda: np.zeros(3) @ np.zeros(4),
        lambda: list(zip([1], [], strict=True)),
        lambda: fields.check_known("model", "vgg", None),  # a TypeError
    ],
)
def test_what_falls_out_of_python_or_a_package_is_ours(call):
    assert mendable(error_of(call)) is None


def test_python_s_own_word_in_a_line_of_ours_is_ours(monkeypatch):
    code = compile("list(zip([1], [], strict=True))", "experiments/anything.py", "exec")
    error = error_of(lambda: exec(code, {"__name__": "experiments.anything"}))
    assert isinstance(error, ValueError) and mendable(error) is None
    code = compile("raise ValueError('no')", "experiments/anything.py", "exec")
    error = error_of(lambda: exec(code, {"__name__": "experiments.anything"}))
    assert mendable(error) == "no"


def test_what_the_system_says_names_the_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    error = error_of(lambda: write_whole(tmp_path / "file" / "below", ""))
    assert mendable(error) == f"{tmp_path / 'file'}: {error.strerror}"

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    error = error_of(lambda: write_whole(tmp_path / "new", ""))
    assert mendable(error) == f"{tmp_path / 'new'}: No space left on device"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RunDivergedError("[/x] is not\nfinite"), 1),
        (OSError(2, "[red] :smile:", "[/x]"), 2),
    ],
)
def test_an_error_is_one_line_with_its_brackets(error, status, monkeypatch, capsys):
    def fails():
        raise error

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == status
    told = {1: "error: [/x] is not finite\n", 2: "error: [/x]: [red] :smile:\n"}
    assert capsys.readouterr().err == told[status]


def test_a_fault_of_ours_is_not_caught(monkeypatch):
    monkeypatch.setattr(cli, "app", lambda: json.loads("{"))
    with pytest.raises(json.JSONDecodeError):
        cli.main()
