import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from experiments.cli.app import app, main
from experiments.methods.registry import METHODS

RUNNER = CliRunner()


def run(*arguments):
    takes_devices = arguments[0] in ("train", "compare")  # of eight, here
    one = ("--devices", "1") if takes_devices else ()
    return RUNNER.invoke(app, [*arguments, *one])


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("methods", " ".join(METHODS)),
        (
            "datasets",
            "emoji_styles emoji_concepts rotated_digits colored_digits pacs vlcs "
            "office_home terra_incognita domain_net folder",
        ),
    ],
)
def test_lists_hold_one_name_a_line_first(command, names):
    pinned = "erm sam asam gsam sagm disam disam+sagm disam+gsam"
    assert command == "datasets" or names.startswith(pinned)
    result = run(command)
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == names.split()


def test_a_command_that_draws_nothing_waits_for_no_drawing():
    """These two take longer to import than JAX."""
    script = "import experiments.cli.app, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert not {"matplotlib", "scipy.stats"} & {*found.stdout.decode().split()}


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
    assert "sagm/0/seed1: step 4 of 4, loss " in result.output  # where there is no terminal
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
    assert "erm/0/seed0: run 1 of 4" in result.output
    assert result.output.count("disam+sagm/75/seed0: run 4 of 4") == 1
    assert (tmp_path / "report.md").exists()


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (("compare", "--methods", "erm,foo"), "unknown method 'foo'; there are: erm, sam"),
        (
            ("compare", "--unseen", "15,foo"),
            "unknown domain of rotated_digits 'foo'; there",
        ),
        (("train", "--data", "foo"), "unknown data set 'foo'; there are: emoji_styles"),
        (
            ("train", "--unseen", "foo"),
            "unknown domain of emoji_styles 'foo'; there are",
        ),
        (("train", "--rho", "-1"), "rho must be finite and >= 0; got -1.0"),
        (("compare", "--methods", " ,"), "--methods is ' ,', which names none: give some"),
        (
            ("compare", "--gradients", "800", "--steps", "40"),
            "--gradients is 800 and --steps 40: a run's length is said by one of them",
        ),
        (("compare", "--gradients", "nan"), "gradients must be at least 0; got nan"),
        (("train", "--steps", "7", "--epochs", "2"), "steps is 7 and epochs 2: a run's l"),
        (("train", "--seed", "4294967296"), "seed must lie in [0, 2**32); got 4294967296"),
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


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli") / "digits"
    result = run("export", "--data", "rotated_digits", "--out", str(root))
    assert result.exit_code == 0, result.output
    assert "1797 images" in result.output
    return root


def test_export_prepare_compare_and_table(tree, tmp_path):
    """What a person with a folder of images does."""
    where = ["--data", "folder", "--data-dir", str(tree), "--prepared-dir", str(tmp_path)]
    result = run("prepare", *where)
    assert result.exit_code == 0, result.output
    assert "75: 299 images" in result.output and "10 classes" in result.output
    out = tmp_path / "out"
    result = run(
        *("compare", *where, "--methods", "erm,disam", "--unseen", "0,75", "--seeds", "1"),
        *("--model", "patchnet", "--weights", "scratch", "--image-size", "16"),
        *("--steps", "2", "--batch-size", "2", "--swad", "--penalty", "coral"),
        *("--out", str(out)),
    )
    assert result.exit_code == 0, result.output
    assert "BatchNorm live" in " ".join(result.output.split())
    results = json.loads((out / "results.json").read_text())
    assert len(results["records"]) == 4
    text = run("table", str(out), "--data", "folder", "--selection", "swad").output
    assert text.count("| disam+coral | here |") == 1
    assert "(1)" in text
    report = (out / "report.md").read_text()
    assert "## By selection rule" in report and "SWAD" in report


@pytest.mark.slow
def test_names_with_brackets_come_out_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    tree = tmp_path / "[" / "b]"  # a markup's end where it is printed: [/b]
    for domain, name, i in itertools.product(("[red]", ":smile:", "x"), "ab", range(10)):
        file = tree / domain / f"[{name}]" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    out = tmp_path / "out[/x]"
    told = (
        *("compare", "--data", "folder", "--data-dir", str(tree)),
        *("--prepared-dir", str(tmp_path), "--methods", "erm", "--unseen", "[red],:smile:"),
        *("--model", "patchnet", "--weights", "scratch", "--image-size", "16"),
        *("--steps", "2", "--batch-size", "2", "--seeds", "1", "--out", str(out)),
    )
    result = run(*told)
    assert result.exit_code == 0, result.output
    assert "erm/[red]/seed0: run 1 of 2" in result.output
    assert "erm/:smile:/seed0: run 2 of 2" in result.output
    assert "out[/x]/results.json" in result.output.replace("\n", "")
    assert (
        "| source | [red] | :smile: |" in run("table", str(out), "--data", "folder").output
    )


def test_table_without_results_is_the_papers(tmp_path):
    text = run("table", "--data", "pacs", "--format", "csv").output
    assert 'disam,"Zhang et al. 2024, Table 6, ResNet-50",87.1 ± 0.4' in text
    assert ",here," not in text


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (("prepare",), "data folder needs --data-dir DIR"),
        (("prepare", "--data", "emoji_styles"), "emoji_styles comes with the package"),
        (("prepare", "--data-dir", "/nowhere"), "/nowhere"),
        (("train", "--data", "vlcs", "--prepared-dir", "/nowhere"), "vlcs is not prepared"),
        (("train", "--data-dir", "x"), "emoji_styles"),
        (("train", "--model", "vgg"), "unknown model 'vgg'; there are: patchnet, resnet"),
        (("train", "--protocol", "sagm"), "unknown protocol of emoji_styles 'sagm'"),
        (("table", "/nowhere"), "/nowhere holds no results.json"),
        (("table", "--format", "html"), "unknown format 'html'; there are: markdown"),
        (("export", "--data", "pacs", "--out", "x"), "unknown data set 'pacs'"),
    ],
)
def test_bad_input_of_the_data_commands_is_one_line(arguments, known, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["experiments", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert known in " ".join(capsys.readouterr().err.split())


def test_a_study_of_no_gradients_is_refused_before_it_begins(tmp_path, monkeypatch):
    """And is none of the data set's own number."""
    begun = []
    monkeypatch.setattr(
        "experiments.studies.kit.study.run_study", lambda *asked: begun.append(asked) or []
    )
    kept = ("--out", str(tmp_path / "study"), "--runs", str(tmp_path / "runs"))
    result = run("study", "rho", "--gradients", "0", *kept)
    assert result.exit_code == 2 and "--gradients" in result.output
    assert not begun and not any(tmp_path.iterdir())
