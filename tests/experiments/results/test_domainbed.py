"""DomainBed's folders of results: its own code's answers, and small ones by hand."""

import itertools
import json
from pathlib import Path

import pytest

from experiments.results.beside_papers import domain_table
from experiments.results.domainbed import is_domainbed, our_name, read_domainbed
from experiments.results.over_draws import RULES, select_over_draws
from tests.experiments.results.test_over_draws import NAMES, ORACLE


def line(accuracies, step=0, unseen=(0,), draw=0, trial=0, **args):
    """An evaluation as DomainBed's train.py writes it; (in, out) by environment."""
    told = {"algorithm": "ERM", "dataset": "Toy", "holdout_fraction": 0.2, **args}
    told |= {"test_envs": list(unseen), "hparams_seed": draw, "trial_seed": trial}
    parts = {
        f"env{i}_{part}_acc": accuracy
        for i, both in enumerate(accuracies)
        for part, accuracy in zip(("in", "out"), both, strict=True)
    }
    return {"args": told, "step": step, "loss": float("nan"), "epoch": 0.5, **parts}


def write_run(folder, lines, done=True):
    """The folder of a run, as DomainBed leaves it."""
    folder.mkdir(parents=True)
    text = "".join(json.dumps(one, sort_keys=True) + "\n" for one in lines)
    (folder / "results.jsonl").write_text(text)
    if done:
        (folder / "done").write_text("done")
    return folder


@pytest.fixture(scope="module")
def oracle_folder(tmp_path_factory):
    """The made-up sweep that DomainBed's own code selected from, written as it writes."""
    folder = tmp_path_factory.mktemp("domainbed")
    runs = itertools.groupby(ORACLE["records"], key=lambda record: record[:4])
    for number, ((method, trial, draw, unseen), evaluations) in enumerate(runs):
        lines = [
            line(accuracies, step, unseen, draw, trial, algorithm=method)
            for *_, step, accuracies in evaluations
        ]
        write_run(folder / f"{number:032x}", lines)
    return folder


@pytest.mark.parametrize("rule", RULES)
def test_what_is_selected_and_its_table_are_domainbed_s_own(oracle_folder, rule):
    records, unfinished = read_domainbed(oracle_folder)
    selected = select_over_draws(records, rule)
    found = {
        f"{r['method'].upper()}/trial{r['seed']}/{r['unseen_domain']}": r[rule]["scored"]
        for r in selected
    }
    expected = ORACLE["expected"][NAMES[rule]]
    assert not unfinished and len(found) == 24 and found == expected["selected"]
    table = domain_table(selected, "Toy", rule=rule, spread="domainbed")
    rows = {method: cells for method, _, *cells in table.rows}
    for method, by_domain in expected["table"].items():
        cells = [f"{mean:.1f} ± {error:.1f} (3)" for mean, error in by_domain.values()]
        assert rows[method.lower()] == cells


# Draw 0: env1 and env2 are validated at (0.5 + 0.7) / 2 = 0.6 and (0.9 + 0.5) / 2 = 0.7.
# Draw 1: 0.65 and, last, 0.4, where env0's held-out part is the better one.
DRAWS = (
    [
        line([(0.11, 0.2), (1, 0.5), (1, 0.7)], step=0),
        line([(0.12, 0.3), (1, 0.9), (1, 0.5)], step=300),
    ],
    [
        line([(0.13, 0.9), (1, 0.6), (1, 0.7)], step=0, draw=1),
        line([(0.14, 0.4), (1, 0.4), (1, 0.4)], step=300, draw=1),
    ],
)


def test_by_hand(tmp_path):
    for draw, lines in enumerate(DRAWS):
        write_run(tmp_path / str(draw), lines)
    records, _ = read_domainbed(tmp_path)
    (validated,) = select_over_draws(records, "training_domain_validation")
    chosen = validated["training_domain_validation"]
    assert (validated["draw"], chosen["step"], chosen["scored"]) == (0, 300, 0.12)
    assert chosen["validation"] == pytest.approx(0.7)
    assert chosen["whole"] == pytest.approx(0.8 * 0.12 + 0.2 * 0.3)
    (last,) = select_over_draws(records, "oracle")
    assert (last["draw"], last["oracle"]["scored"]) == (1, 0.14)
    assert last["oracle"]["validation"] == 0.4


def test_the_draws_of_one_search_may_lie_in_several_folders(tmp_path):
    for draw, lines in enumerate(DRAWS):
        write_run(tmp_path / "together" / str(draw), lines)
        write_run(tmp_path / f"apart{draw}" / "run", lines)
    whole, _ = read_domainbed(tmp_path / "together")
    several, _ = read_domainbed(tmp_path / "apart0", tmp_path / "apart1")
    for rule in ("training_domain_validation", "oracle"):
        found = [select_over_draws(records, rule)[0] for records in (several, whole)]
        assert found[0][rule] == found[1][rule] and found[0]["draw"] == found[1]["draw"]


def test_a_benchmark_has_its_domains_names_and_methods_their_names_here(tmp_path):
    names = ("ERM", "GroupDRO", "VREx", "MIRO")
    for name in names:
        accuracies = [(0.5, 0.5)] * 4
        run = line(accuracies, dataset="PACS", algorithm=name, unseen=[1])
        write_run(tmp_path / name, [run])
    records, _ = read_domainbed(tmp_path)
    found = {(r["method"], r["penalty"]) for r in records}
    ours = {("erm", "none"), ("group_dro", "none"), ("erm", "vrex"), ("MIRO", "none")}
    assert found == ours
    assert {(r["data"], r["unseen_domain"]) for r in records} == {("pacs", "cartoon")}
    assert our_name("OfficeHome", ["office_home"]) == "office_home"


def test_unfinished_folders_are_named_and_left_out(tmp_path):
    write_run(tmp_path / "a", DRAWS[0])
    write_run(tmp_path / "b", DRAWS[1], done=False)
    (tmp_path / "c").mkdir()  # launched, and not begun
    records, unfinished = read_domainbed(tmp_path)
    assert [r["draw"] for r in records] == [0]
    assert unfinished == [str(tmp_path / "b"), str(tmp_path / "c")]


def test_the_folder_of_one_run_is_read_and_the_last_of_equal_steps_counts(tmp_path):
    again = line([(0.9, 0.9), (1, 0.8), (1, 0.8)], step=0)
    folder = write_run(tmp_path / "train_output", [DRAWS[0][0], again])
    assert is_domainbed(folder) and is_domainbed(tmp_path) and not is_domainbed(Path("/x"))
    ((record,), _) = read_domainbed(folder)
    assert record["evaluations"]["step"] == [0]
    assert record["evaluations"]["scored_accuracy/env0"] == [0.9]


def without(name):
    kept = dict(DRAWS[0][0])
    del kept[name]
    return json.dumps(kept)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"step": 300, "ar', "line 2, is no JSON: Unterminated"),
        ("[]", "line 2, is no evaluation of DomainBed's train.py: .* all of it"),
        (without("env2_in_acc"), "line 2, .* be: env2_in_acc"),
        (without("args"), r"line 2, .* be: args.algorithm, .*, args.trial_seed\."),
        (json.dumps(line([(1, 1)] * 3, unseen=[])), "line 2, .* be: args.test_envs"),
        (json.dumps(line([(1, 1)] * 3, unseen=[4])), "be: env3_in_acc, .* env4_out_acc"),
        *(
            (json.dumps(line([(1, 1)] * 3, unseen=unseen)), "be: args.test_envs")
            for unseen in ([-1], [0, 0], [0, 1, 2], ["0"])
        ),
        (json.dumps(line([(1, 1)] * 2, unseen=[0, 1])), "be: env2_in_acc, env2_out_acc"),
        *(
            (json.dumps(line([(1, 1)] * 3, holdout_fraction=x)), "args.holdout_fraction")
            for x in ("0.2", None, 1.5)
        ),
        *(
            (json.dumps(line([(1, x), (1, 1), (1, 1)])), r"be: env0_out_acc\.")
            for x in (float("nan"), 50, "0.5")
        ),
        (
            json.dumps(line([(1, 1)] * 3, dataset="PACS")),
            "line 2, has 3 environments, and PACS has 4",
        ),
    ],
)
def test_a_line_of_something_else_is_told_by_file_and_number(tmp_path, text, message):
    file = write_run(tmp_path / "a", DRAWS[0][:1]) / "results.jsonl"
    file.write_text(file.read_text() + text + "\n")
    with pytest.raises(ValueError, match=rf"a/results.jsonl, .*{message}"):
        read_domainbed(tmp_path)


def test_a_run_that_ended_without_an_evaluation_is_named(tmp_path):
    write_run(tmp_path / "a", [])
    with pytest.raises(ValueError, match=r"a/results.jsonl is empty, and done"):
        read_domainbed(tmp_path)


def test_two_folders_of_one_run_are_refused(tmp_path):
    for name, unseen in {"a": (0, 2), "b": (2, 0)}.items():
        write_run(tmp_path / name, [line([(0.5, 0.5)] * 3, unseen=unseen)])
    with pytest.raises(ValueError, match=r"a/results.jsonl and .*b/results.jsonl hold one"):
        read_domainbed(tmp_path)
