import json

import pytest
from typer.testing import CliRunner

from experiments.cli import app, main

RUNNER = CliRunner()


def run(*arguments):
    return RUNNER.invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("methods", "erm sam asam gsam sagm disam disam+sagm disam+gsam"),
        (
            "datasets",
            "emoji_styles rotated_digits colored_digits pacs vlcs office_home "
            "terra_incognita domain_net folder",
        ),
    ],
)
def test_lists_hold_one_name_a_line_first(command, names):
    result = run(command)
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == names.split()


@pytest.mark.parametrize("command", ["train", "compare"])
def test_help_names_every_pinned_option(command):
    text = run(command, "--help").output
    pinned = {
        "train": ("--data", "--method", "--unseen", "--seed", "--steps", "--out"),
        "compare": ("--data", "--methods", "--unseen", "--seeds", "--steps", "--out"),
    }[command]
    for option in pinned:
        assert option in text


def test_train_prints_the_record(tmp_path):
    result = run(
        *("train", "--data", "rotated_digits", "--method", "sagm", "--unseen", "0"),
        *(
            "--seed",
            "1",
            "--steps",
            "4",
            "--batch-size",
            "4",
            "--out",
            str(tmp_path / "run"),
        ),
    )
    assert result.exit_code == 0, result.output
    assert "out_of_domain_accuracy" in result.output
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (record["method"], record["seed"], record["steps"]) == ("sagm", 1, 4)


def test_compare_writes_results_and_report(tmp_path):
    result = run(
        *("compare", "--data", "rotated_digits", "--methods", "erm,disam+sagm"),
        *("--unseen", "0,75", "--seeds", "1", "--steps", "4", "--batch-size", "4"),
        *("--out", str(tmp_path)),
    )
    assert result.exit_code == 0, result.output
    records = json.loads((tmp_path / "results.json").read_text())["records"]
    runs = {(r["method"], r["unseen_domain"], r["seed"]) for r in records}
    assert runs == {(m, d, 0) for m in ("erm", "disam+sagm") for d in ("0", "75")}
    assert "A fuller run" in result.output
    assert (tmp_path / "report.md").exists()


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (("compare", "--methods", "erm,foo"), "unknown method 'foo'; there are: erm, sam"),
        (
            ("compare", "--unseen", "noto,foo"),
            "unknown domain 'foo' of emoji_styles; it",
        ),
        (("train", "--data", "foo"), "unknown data set 'foo'; there are: emoji_styles"),
        (
            ("train", "--unseen", "foo"),
            "unknown domain 'foo' of emoji_styles; it has",
        ),
        (("train", "--rho", "-1"), "rho must be finite and >= 0; got -1.0"),
    ],
)
def test_bad_input_is_one_line_that_lists_what_there_is(
    arguments, known, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["experiments", *arguments, "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert known in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
