import dataclasses
import json

import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.cli.table import read_records
from experiments.config.run import make_config
from experiments.data.benchmarks import BENCHMARKS
from experiments.runs.records import Records
from experiments.runs.sweep import Sweep, keep_sweep
from tests.experiments.results.records import ended, record
from tests.experiments.results.test_domainbed import line, write_run

PACS = BENCHMARKS["pacs"].domains


def test_records_of_an_older_version_get_the_config_that_their_file_says(tmp_path):
    names = {"method": "sam", "data": "emoji_styles", "unseen_domain": "mono", "seed": 0}
    old = names | {"steps": 7}
    presets = [{"steps": 6, "shift": 1}, {"steps": 7, "shift": 2}]
    told = {"presets": presets, "hyperparameters": {"sam": {"rho": 0.3}}, "records": [old]}
    (tmp_path / "results.json").write_text(json.dumps(told))
    (found,) = read_records(tmp_path)
    assert found["config"]["preset"] == presets[1]
    assert found["config"]["hyperparameters"] == {"rho": 0.3}


RECORD = (
    '{"records": [{"method": "erm", "data": "pacs", "unseen_domain": "photo", "seed": 0, '
    "%s}]}"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"results.json cannot be read as JSON: .* line 1 column 2"),
        ("[]", "results.json must hold a JSON object, not a list"),
        ("{}", "results.json holds no records"),
        ('{"records": [1]}', "results.json holds no records"),
        (RECORD % '"oracle": 0.5', "results.json holds no records"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_records(tmp_path)


def table(*arguments):
    return CliRunner().invoke(app, ["table", *map(str, arguments)])


def told(*arguments):
    """The line of the error."""
    with pytest.raises(ValueError) as error:
        CliRunner().invoke(app, ["table", *map(str, arguments)], catch_exceptions=False)
    return str(error.value)


def make_sweep(folder, records, data="pacs", domains=PACS, trials=3, **overrides):
    """The folder of a sweep of erm, two draws, where these runs ended."""
    overrides = {"weights": "scratch", **overrides}
    config = make_config(data=data, method="erm", unseen="x", seed=0, overrides=overrides)
    plan = Sweep(
        data=data,
        where={},
        domains=list(domains),
        unseen=list(domains),
        pairs=False,
        draws=2,
        trials=trials,
        space="domainbed",
        methods={"erm": dataclasses.asdict(config)},
        drawn={"erm": [[{}, {"learning_rate": 1e-5}]] * trials},
    )
    keep_sweep(folder, plan)
    written = Records(folder / "records")
    for i, content in enumerate(records):
        content = dict(content)
        written.append(str(i), content.pop("state"), **content)
    return folder


def runs(data="pacs", domains=PACS, trials=3):
    """Of draw 0 on every domain, accuracy 0.1, 0.2, ... by trial on both its parts."""
    for trial in range(trials):
        accuracy = 0.1 * (trial + 1)
        for domain in domains:
            scores = [(300, [(accuracy, accuracy)] * len(domains))]
            yield ended("erm", trial, 0, [domain], scores, data=data, domains=domains)


def test_a_sweep_s_table_is_its_data_s_beside_the_papers(tmp_path):
    lost = [
        ended("erm", 0, 1, ["photo"], state="diverged", data="pacs"),
        ended("erm", 1, 1, ["photo"], state="given up", data="pacs"),
    ]
    folder = make_sweep(tmp_path / "s", [*runs(), *lost])
    ours = "| erm | here |" + 5 * " 20.0 ± {} (3) |"
    deviation, error = (table(folder, *s).output for s in ([], ["--spread", "domainbed"]))
    assert ours.format(*5 * ["10.0"]) in deviation and "mean ± standard dev" in deviation
    assert ours.format(*5 * ["4.7"]) in error and "standard deviation / sqrt(n)" in error
    assert "| erm | Zhang et al. 2024, Table 6, ResNet-50 |" in deviation
    whole = "2 draws x 3 trials, 12 of 24 runs finished, 1 diverged, 1 given up."
    assert whole in deviation and "selection by training domain validation" in deviation


def test_sweeps_of_several_data_sets_are_an_overview(tmp_path):
    names = ("0", "15")
    folders = [
        make_sweep(tmp_path / "pacs", runs()),
        make_sweep(tmp_path / "digits", runs("rotated_digits", names, 2), "rotated_digits"),
    ]
    line = "| erm | here | 15.0 ± 7.1 (2) | 20.0 ± 10.0 (3) |"
    assert line in table(*folders, "--selection", "oracle").output
    assert "| erm | here | 15.0" in table(*folders, "--data", "rotated_digits").output


def test_sweeps_of_other_configurations_stand_in_rows_of_their_own(tmp_path):
    """Else a cell would be of runs that differ in more than their seed."""
    usual = make_sweep(tmp_path / "usual", runs(trials=1), steps=100)
    short = make_sweep(tmp_path / "short", runs(), steps=300)
    shown = table(usual, short).output
    assert f"| erm (steps 300) | here |{5 * ' 20.0 ± 10.0 (3) |'}" in shown
    assert f"| erm (steps 100) | here |{5 * ' 10.0 (1) |'}" in shown
    coop = make_sweep(tmp_path / "coop", runs(), model="clip", tuning="coop", weights="F")
    shown = table(usual, coop).output
    assert "| erm | here | 10.0" in shown and "| coop+erm | here | 20.0" in shown
    alone = table(usual, coop, "--tuning", "coop").output
    assert "| coop+erm | here" in alone and "| erm |" not in alone


def test_selections_that_a_sweep_or_a_comparison_has_not_are_refused(tmp_path):
    sweep = make_sweep(tmp_path / "s", runs())
    there = "there are: training_domain_validation, leave_one_domain_out, oracle"
    for rule in ("swad", "last_step"):
        assert f"'{rule}'; {there}" in told(sweep, "--selection", rule)
    asked = ("--selection", "leave_one_domain_out")
    assert "make the sweep with --pairs" in told(sweep, *asked)
    kept = {**record("erm", "photo", 0, 0.5), "data": "pacs"}
    (tmp_path / "results.json").write_text(json.dumps({"records": [kept]}))
    assert "needs a sweep made with --pairs" in told(tmp_path, *asked)
    assert "print a table of each" in told(sweep, tmp_path)
    assert "unknown spread 'error'; there are: std, do" in told(sweep, "--spread", "error")


def test_a_sweep_without_a_finished_run_says_so(tmp_path):
    message = told(make_sweep(tmp_path, []))
    assert "nothing to select from yet" in message and "0 of 24 runs finished" in message


def test_a_comparison_takes_both_spreads(tmp_path):
    chosen = {"step": 1, "validation": 0.5, "whole": 0.5}
    records = [
        {**record("erm", "photo", seed, 0.5), "data": "pacs"}
        | {"training_domain_validation": {**chosen, "scored": 0.1 * (seed + 1)}}
        for seed in range(3)
    ]
    (tmp_path / "results.json").write_text(json.dumps({"records": records}))
    by_domain = (tmp_path, "--data", "pacs")
    assert "20.0 ± 10.0 (3)" in table(*by_domain).output
    assert "20.0 ± 4.7 (3)" in table(*by_domain, "--spread", "domainbed").output


def write_domainbed(folder):
    """ERM on PACS: 10, 20, 30 % by trial on every domain; and a run that did not end."""
    for trial in range(3):
        accuracies = [(0.1 * (trial + 1), 0.5)] * 4
        for unseen in range(4):
            lines = [line(accuracies, unseen=[unseen], trial=trial, dataset="PACS")]
            write_run(folder / f"{trial}{unseen}", lines)
    write_run(folder / "killed", [], done=False)
    return folder


def test_domainbed_s_runs_stand_beside_new_ones(tmp_path):
    old, new = write_domainbed(tmp_path / "old"), make_sweep(tmp_path / "new", runs())
    shown = table(old, new)
    cells = " 20.0 ± 10.0 (3) |" * 5
    assert f"| erm | DomainBed |{cells}" in shown.output and f"| erm | here |{cells}" in (
        shown.output
    )
    assert f"DomainBed: {old}, 12 finished runs, 1 left out." in shown.output
    assert f"warning: left out, without a file `done`: {old / 'killed'}." in shown.stderr
    chosen = {"step": 1, "validation": 0.5, "whole": 0.5, "scored": 0.4}
    kept = [
        record("erm", domain, 0, 0.5)
        | {"data": "pacs", "training_domain_validation": chosen}
        for domain in PACS
    ]
    (tmp_path / "results.json").write_text(json.dumps({"records": kept}))
    shown = table(old, tmp_path / "results.json").output
    assert "| erm | DomainBed | 20.0 ± 10.0 (3) |" in shown
    assert "| erm | here | 40.0 (1) |" in shown


def test_selections_that_domainbed_has_not_are_refused(tmp_path):
    folder = write_domainbed(tmp_path)
    assert "unknown selection over draws 'swad'" in told(folder, "--selection", "swad")
    pairs = told(folder, "--selection", "leave_one_domain_out")
    assert "leave out two domains" in pairs


def test_table_2_and_table_3_are_printed():
    """Of CLIP 8 rows of six numbers, and 7 rows of each part of open classes."""
    clip = ("--tuning", "zero_shot,coop,clipood")
    table_2 = table(*clip).output
    assert table_2.count("Zhang et al. 2024, Table 2, CLIP ViT-B/16") == 8
    for part in ("base", "new", "total"):
        for data in ("office_home", "domain_net"):
            rows = table(*clip, "--part", part, "--data", data).output
            assert rows.count("Zhang et al. 2024, Table 3, CLIP ViT-B/16") == 7
    assert "Table 2" not in rows
    assert "unknown tuning 'prompts'; there are: finetune" in told("--tuning", "prompts")
