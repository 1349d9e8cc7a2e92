import dataclasses
import itertools

import pytest

from experiments.config.run import make_config
from experiments.methods.registry import METHODS
from experiments.results import figures
from experiments.results.report import unfinished, verdict, write_report
from experiments.results.summary import summarize
from experiments.training.compare import Comparison
from tests.experiments.results.records import curves_of, record

CONFIG = make_config(data="colored_digits", method="erm", unseen="+90%", seed=0)


def test_many_methods_are_ranked_and_draw_no_curves(tmp_path):
    some = list(METHODS)[:9]
    records = [
        {**record(name, domain, seed, 0.5 + 0.01 * i), "commit": "0"}
        for i, name in enumerate(some)
        for domain in ("a", "b")
        for seed in (0, 1)
    ]
    comparison = Comparison([CONFIG], records, [], {})
    rows = write_report(comparison, tmp_path, "the command")
    assert [row.method for row in rows] == some
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "report.md").read_text()
    assert "convergence" not in text and "spread.png" not in text
    assert "| DISAM+GSAM | 28.5 ± 0.0 | +3.5 [+3.5, +3.5] |" in text
    assert "90.0 ± 0.0" in text and "| 6 x 2.00 |" in text
    assert "step |" not in text  # times of runs that did not run together tell nothing


def test_a_penalty_s_runs_are_in_the_table_and_in_the_figures(tmp_path, monkeypatch):
    """Their curves are kept under the name with the penalty, as the row's must be."""
    shown = []
    monkeypatch.setattr(figures, "save", lambda figure, path: shown.append(figure))
    found = {**record("erm", "a", 0, 0.5), "penalty": "coral", "commit": "0"}
    curves = curves_of("erm+coral/a/seed0", ["b"])
    comparison = Comparison([CONFIG], [found], [], curves)
    (row,) = write_report(comparison, tmp_path, "the command")
    assert row.method == "erm+coral"
    assert "| ERM+CORAL | 25.0 |  | 50.0 | 90.0 |" in (tmp_path / "report.md").read_text()
    spread, convergence = shown  # nothing to compare with: no figure of differences
    assert spread.axes[0].get_title(loc="left").startswith("ERM+CORAL: std")
    assert convergence.axes[0].get_title(loc="left") == "ERM+CORAL"
    (told,) = convergence.legends
    assert [text.get_text() for text in told.get_texts()] == ["b"]


def test_the_report_says_what_the_differences_tell(tmp_path, monkeypatch):
    """And names what is scored by what the data are."""
    monkeypatch.setattr(figures, "save", lambda figure, path: None)
    offsets = {"erm": (0, 0, 0), "sam": (0.05, 0.06, 0.07), "disam": (0.1, -0.1, 0.03)}
    records = [
        {**record(name, "a", seed, 0.5 + offset), "commit": "0"}
        for name, seeds in offsets.items()
        for seed, offset in enumerate(seeds)
    ]
    comparison = Comparison([CONFIG], records, [], {}, "Digits. 2 classes.")
    write_report(comparison, tmp_path, "the command")
    text = (tmp_path / "report.md").read_text()
    told = "**Above ERM: SAM +3.0; not told apart from ERM: DISAM +0.5 (points on"
    assert "Digits. 2 classes. Each method" in text and told in text
    assert "| method | unseen concepts % | less ERM (points) | all images % |" in text
    for one in records:
        one["out_of_domain_accuracy"] = one["unseen_concept_accuracy"]
    write_report(comparison, tmp_path, "the command")
    text = (tmp_path / "report.md").read_text()
    assert "| method | unseen domain % | less ERM (points) | in-domain % |" in text


def test_many_differences_are_counted():
    names = ["erm", *list(METHODS)[1:11]]
    records = [
        record(name, "a", seed, 0.5 + 0.01 * i * (-1) ** (i + seed))
        for i, name in enumerate(names)
        for seed in range(3)
    ]
    told = verdict(summarize(records))
    assert told.startswith("Not told apart from ERM: 10 methods, -1.5 to +1.7 (points")


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        ([("sam", "b", 1)], ["fewer seeds of some methods: SAM 1 of 2."]),
        (
            [("erm", "a", 0), ("erm", "b", 1)],
            ["fewer seeds of some methods: ERM 0 of 2. Of ERM there is none, and the "
             "differences are to SAM in its place."],
        ),
        (
            [(method, "b", seed) for method in ("erm", "sam") for seed in (0, 1)],
            ["Of b no run finished; the means are of the others."],
        ),
        ([], []),
    ],
)  # fmt: skip
def test_what_did_not_finish_is_told_where_the_means_are(
    failed, told, tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "save", lambda figure, path: figures.plt.close(figure))
    asked = list(itertools.product(("erm", "sam"), ("a", "b"), (0, 1)))
    configs = {
        run: dataclasses.replace(CONFIG, method=run[0], unseen=run[1], seed=run[2])
        for run in asked
    }
    records = [{**record(*run, 0.5), "commit": "0"} for run in asked if run not in failed]
    failures = [(configs[run], "it diverged") for run in failed]
    comparison = Comparison(list(configs.values()), records, failures, {})
    rows = write_report(comparison, tmp_path, "the command")
    text = (tmp_path / "report.md").read_text()
    assert unfinished(comparison, rows).endswith("".join(told))
    assert all(sentence in text for sentence in told)
    assert ("A seed counts" in text) == ("fewer" in "".join(told))


def test_every_tuning_s_training_and_both_halves_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "save", lambda figure, path: None)
    tunings = {"zero_shot": "clipood", "coop": "coop", "clipood": "clipood"}
    configs, records = [], []
    halves = {"base": 0.6, "new": 0.2, "harmonic": 0.3}
    for tuning in tunings:
        made = make_config(
            data="pacs",
            method="erm",
            unseen="a",
            seed=0,
            overrides={"tuning": tuning, "weights": "F", "open_classes": 0.5},
        )
        configs.append(made)
        chosen = {"scored": 0.25, "whole": 0.4, "halves": halves}
        own = {"tuning": tuning, "last_step": chosen, "commit": "0"}
        records.append({**record("erm", "a", 0, 0.5), **own})
    del records[0]["loss_spread"]  # nothing was trained
    curves = {c.name: curves_of(c.name, ["b"])[c.name] for c in configs[1:]}
    write_report(Comparison(configs, records, [], curves), tmp_path, "the command")
    text = (tmp_path / "report.md").read_text()
    for protocol in ("clipood: Shu", "coop: Zhang"):
        assert f"Protocol {protocol}" in text
    trained = [line for line in text.splitlines() if line.startswith("Protocol")]
    assert len(trained) == 3
    assert "optimizer adamw" in trained[0] and "optimizer sgd" in trained[1]
    assert "optimizer" not in trained[2]  # as the first has it
    assert "bma 0.5" in trained[2] and "steps 5000" in trained[2]
    assert "| 60.0 | 20.0 | 40.0 |" in text and "| 40.0 | 60.0 | 20.0 | 30.0 |" in text
