import csv
import json

import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.results.labels import label
from experiments.results.report import write_report
from experiments.training import compare
from experiments.training.compare import run_matrix, write_results

SMALL = {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 2}


def run_all(configs, out):
    return run_matrix(configs, load("colored_digits"), out)


def configs(methods=("erm", "disam"), seeds=(0, 1), **changes):
    return [
        make_config(
            data="colored_digits",
            method=method,
            unseen=domain,
            seed=seed,
            overrides={**SMALL, **changes},
        )
        for method in methods
        for domain in ("+90%", "-90%")
        for seed in seeds
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    comparison = run_all(configs(), out)
    write_results(comparison, out, "the command")
    rows = write_report(comparison, out, "the command")
    return out, comparison, rows


def test_results_hold_a_record_per_run(finished):
    out, _, _ = finished
    results = json.loads((out / "results.json").read_text())
    runs = {(r["method"], r["unseen_domain"], r["seed"]) for r in results["records"]}
    assert len(runs) == len(results["records"]) == 8
    for found in results["records"]:
        assert found["data"] == "colored_digits"
        for key in ("in_domain", "unseen_concept", "out_of_domain"):
            assert 0.0 <= found[f"{key}_accuracy"] <= 1.0
    assert results["environment"]["packages"]["disam_jax"]
    assert results["failures"] == []
    with (out / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8


def test_the_same_call_repeats_nothing(finished, monkeypatch):
    out, comparison, _ = finished
    monkeypatch.setattr(
        "experiments.training.loop.Run", lambda *_: pytest.fail("trained again")
    )
    assert run_all(configs(), out).records == comparison.records


def test_the_same_call_finishes_what_is_missing(finished, monkeypatch):
    out, comparison, _ = finished
    trained = []
    real = compare.train
    monkeypatch.setattr(
        compare, "train", lambda c, *rest: trained.append(c.name) or real(c, *rest)
    )
    more = run_all(configs(seeds=(0, 1, 2)), out)
    assert len(more.records) == 12
    old = {json.dumps(r) for r in comparison.records}
    assert old < {json.dumps(r) for r in more.records}


def test_another_config_in_the_same_folder_is_refused(finished):
    out, _, _ = finished
    with pytest.raises(ValueError, match=r"another config.*steps: 6 there, 8 asked"):
        run_all(configs(steps=8), out)
    asked = [*configs(seeds=(7,)), *configs(steps=8)]  # the last ones alone are refused
    with pytest.raises(ValueError, match="another config"):
        run_all(asked, out)
    assert not (out / "runs" / asked[0].name).exists()


def test_report_and_figures_are_there(finished):
    out, _, rows = finished
    text = (out / "report.md").read_text()
    for row in rows:
        cells = label(row.method), row.unseen_concepts.percent()
        assert f"| {' | '.join(cells)} |" in text
    assert "the command" in text
    for name in ("accuracy", "spread", "convergence"):
        data = (out / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 5_000
    assert not list(out.glob("*.tmp"))


def test_a_run_that_diverges_is_named_and_stops_no_other(tmp_path, monkeypatch):
    real = compare.train

    def broken(config, *rest):
        if config.method == "disam":
            raise compare.RunDivergedError(
                "the loss of domain +90% is not finite at step 1"
            )
        return real(config, *rest)

    monkeypatch.setattr(compare, "train", broken)
    comparison = run_all(configs(seeds=(0,)), tmp_path)
    assert [r["method"] for r in comparison.records] == ["erm", "erm"]
    assert len(comparison.failures) == 2
    rows = write_report(comparison, tmp_path, "the command")
    assert [row.method for row in rows] == ["erm"]
    assert "is not finite at step 1" in (tmp_path / "report.md").read_text()
