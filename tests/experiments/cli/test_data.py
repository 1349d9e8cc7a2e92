"""What the commands say of a run before it is trained."""

import pytest
from typer.testing import CliRunner

from experiments.cli import compare, train
from experiments.cli.app import app
from experiments.cli.data import warn_of_perturbations
from experiments.config.run import make_config


def said(capsys, method="sam", **overrides):
    config = make_config(
        data="rotated_digits", method=method, unseen="0", seed=0, overrides=overrides
    )
    warn_of_perturbations([config, config])
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_perturbation_that_a_dtype_may_swallow_is_warned_of_once(capsys, dtype):
    text = said(capsys, dtype=dtype, rho=1e-4)
    assert text.count("warning") == 1
    assert f"sam at rho 0.0001 in {dtype}: w + eps may round to w" in text
    assert "--perturbed-dtype float32" in text


def test_an_ascent_after_the_last_step_is_warned_of(capsys):
    text = said(capsys, method="late_sam", start=50, steps=50)
    assert "late_sam ascends from step 50 on, and a run has 50: it is ERM" in text
    assert not said(capsys, method="late_sam", start=49, steps=50)


@pytest.mark.parametrize(
    "overrides",
    [
        {"dtype": "float32", "rho": 1e-4},
        {"dtype": "bfloat16", "rho": 1e-3},
        {"dtype": "bfloat16", "rho": 0.0},
        {"dtype": "bfloat16", "rho": 1e-4, "perturbed_dtype": "float32"},
        {"dtype": "bfloat16", "rho": 1e-4, "method": "erm"},
    ],
)
def test_what_is_kept_is_not_warned_of(capsys, overrides):
    assert not said(capsys, **overrides)


@pytest.mark.parametrize(
    ("module", "trains", "arguments"),
    [
        (train, "_train", ("train", "--method", "disam")),
        (compare, "_compare", ("compare", "--methods", "erm,disam")),
    ],
)
def test_it_is_said_before_the_training(monkeypatch, tmp_path, module, trains, arguments):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, trains, stop)
    asked = ("--data", "rotated_digits", "--dtype", "bfloat16", "--rho", "1e-4")
    told = CliRunner().invoke(app, [*arguments, *asked, "--out", str(tmp_path)])
    text = " ".join(told.output.split())
    assert text.count("warning: disam at rho 0.0001 in bfloat16") == 1
