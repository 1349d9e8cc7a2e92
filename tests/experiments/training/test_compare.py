import csv
import json

import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.methods.registry import METHODS
from experiments.results import figures
from experiments.results.report import write_report
from experiments.results.summary import over_seeds, summarize
from experiments.training import compare
from experiments.training.compare import Comparison, run_matrix, write_results

SMALL = {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 2}


def record(method, domain, seed, out, inside=0.9):
    return {
        "method": method,
        "unseen_domain": domain,
        "seed": seed,
        "in_domain_accuracy": inside,
        "out_of_domain_accuracy": out,
        "out_of_domain_heldout_accuracy": out / 2,
        "loss_spread": 0.1 * (seed + 1),
        "steps": 6,
        "gradients_per_step": 1.0 if method == "erm" else 2.0,
    }


RECORDS = [
    record("erm", "a", 0, 0.5),
    record("erm", "b", 0, 0.7),
    record("erm", "a", 1, 0.6),
    record("erm", "b", 1, 1.0),
    record("sam", "a", 0, 0.4),
    record("sam", "b", 0, 0.2),
    record("sam", "a", 1, 0.9),  # seed 1 did not finish on b
]


def test_summary_by_hand():
    erm, sam = summarize(RECORDS)
    assert (erm.method, erm.seeds, sam.method, sam.seeds) == ("erm", 2, "sam", 1)
    assert erm.out_of_domain.mean == pytest.approx(0.7)  # seeds 0.6 and 0.8
    assert erm.out_of_domain.std == pytest.approx(np.sqrt(0.02))
    assert erm.out_of_domain.percent() == "70.0 ± 14.1"
    assert erm.by_domain["b"].mean == pytest.approx(0.85)
    assert erm.worst_domain[0] == "a"
    assert erm.worst_domain[1].mean == pytest.approx(0.55)
    assert erm.loss_spread.mean == pytest.approx(0.15)
    assert sam.out_of_domain.percent() == "30.0"
    assert sam.out_of_domain_heldout.mean == pytest.approx(0.15)
    assert sam.worst_domain[0] == "b"


def test_over_seeds_divides_by_n_minus_one():
    assert over_seeds([0.0, 2.0]).std == pytest.approx(2**0.5)
    assert over_seeds([0.3]).std is None


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
        for key in ("in_domain_accuracy", "out_of_domain_accuracy"):
            assert 0.0 <= found[key] <= 1.0
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


def test_report_and_figures_are_there(finished):
    out, _, rows = finished
    text = (out / "report.md").read_text()
    for row in rows:
        assert f"| {figures.label(row.method)} | {row.in_domain.percent()} |" in text
    assert "the command" in text
    names = ["accuracy", "spread", "convergence_+90%", "convergence_-90%"]
    for name in names:
        data = (out / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 5_000
    assert not list(out.glob("*.tmp"))


def test_convergence_curves_are_means_over_seeds(finished):
    _, comparison, _ = finished
    steps, losses = figures.mean_losses(comparison.curves, "disam", "-90%")
    np.testing.assert_array_equal(steps, [2, 4, 6])
    runs = [comparison.curves[f"disam/-90%/seed{seed}"] for seed in (0, 1)]
    first = [next(line for line in run if line["kind"] == "train") for run in runs]
    assert losses["+80%"][0] == pytest.approx(
        np.mean([line["loss/+80%"] for line in first])
    )
    assert losses.keys() == {"+90%", "+80%"}


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


def test_many_methods_are_ranked_and_draw_no_curves(tmp_path):
    some = list(METHODS)[:9]
    config = configs()[0]
    records = [
        {**record(name, domain, seed, 0.5 + 0.01 * i), "commit": "0"}
        for i, name in enumerate(some)
        for domain in ("a", "b")
        for seed in (0, 1)
    ]
    comparison = Comparison([config], records, [], {})
    rows = write_report(comparison, tmp_path, "the command")
    assert [row.method for row in rows] == some
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "report.md").read_text()
    assert "convergence" not in text and "spread.png" not in text
    assert "| DISAM+GSAM | 90.0" in text and "| 6 x 2.00 |" in text
    assert "step |" not in text  # times of runs that did not run together tell nothing


def curves_of(name, domains, steps=3):
    """Lines of metrics as a run of this name leaves them."""
    losses = {f"loss/{domain}": 1.0 for domain in domains}
    lines = [
        {"step": step, "kind": "train", "loss_spread": 0.1, **losses}
        for step in range(1, steps + 1)
    ]
    return {name: lines}


def test_a_penalty_s_runs_are_in_the_table_and_in_the_figures(tmp_path, monkeypatch):
    """Their curves are kept under the name with the penalty, as the row's must be."""
    shown = []
    monkeypatch.setattr(figures, "save", lambda figure, path: shown.append(figure))
    found = {**record("erm", "a", 0, 0.5), "penalty": "coral", "commit": "0"}
    comparison = Comparison(
        configs()[:1], [found], [], curves_of("erm+coral/a/seed0", ["b"])
    )
    (row,) = write_report(comparison, tmp_path, "the command")
    assert row.method == "erm+coral"
    assert "| ERM+CORAL | 90.0 | 50.0 |" in (tmp_path / "report.md").read_text()
    told = [
        [text.get_text() for text in f.axes[0].get_legend().get_texts()] for f in shown[1:]
    ]
    assert told == [["ERM+CORAL"], ["b"]]


def test_a_figure_in_which_nothing_is_labelled_has_no_legend(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "save", lambda figure, path: shown.append(figure))
    figures.spread({}, ["erm"], ["a"], tmp_path / "spread.png")
    figures.convergence({}, ["erm"], "a", tmp_path / "convergence.png")
    assert [axes.get_legend() for figure in shown for axes in figure.axes] == [None] * 3


def test_every_method_has_a_colour_of_its_own():
    assert len(set(figures.COLORS.values())) == len(figures.COLORS)
