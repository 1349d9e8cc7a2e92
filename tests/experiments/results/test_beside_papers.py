import pytest

from experiments.data.benchmarks import BENCHMARKS
from experiments.results.beside_papers import domain_table, overview_table


def record(method, data, domain, seed, accuracy, penalty="none"):
    chosen = {"step": 1, "validation": 0.5, "scored": accuracy, "whole": accuracy / 2}
    return {
        "method": method,
        "penalty": penalty,
        "data": data,
        "unseen_domain": domain,
        "seed": seed,
        "training_domain_validation": chosen,
        "last_step": {**chosen, "scored": 0.25},
    }


def row(table, method, source="here"):
    found = [r for r in table.rows if r[0] == method and r[1] == source]
    return dict(zip(table.columns, found[0], strict=True)) if found else None


def test_domains_by_hand():
    records = [
        record("disam", "pacs", domain, seed, accuracy)
        for seed, accuracies in enumerate(((0.8, 0.6, 0.9, 0.7), (0.9, 0.7, 0.9, 0.9)))
        for domain, accuracy in zip(BENCHMARKS["pacs"].domains, accuracies, strict=True)
    ]
    table = domain_table(records, "pacs")
    assert table.columns == ("method", "source", *BENCHMARKS["pacs"].domains, "avg")
    ours = row(table, "disam")
    assert ours["art_painting"] == "85.0 ± 7.1 (2)"
    assert ours["avg"] == "80.0 ± 7.1 (2)"  # of 75 and 85
    theirs = row(table, "disam", "Zhang et al. 2024, Table 6, ResNet-50")
    assert theirs["sketch"] == "83.1 ± 0.7" and theirs["avg"] == "87.1"
    whole = row(domain_table(records, "pacs", part="whole"), "disam")
    assert whole["avg"] == "40.0 ± 3.5 (2)"
    last = row(domain_table(records, "pacs", rule="last_step"), "disam")
    assert last["photo"] == "25.0 ± 0.0 (2)"


def test_what_is_missing_stays_empty():
    records = [
        record("sam", "pacs", "photo", 0, 0.5),
        record("sam", "pacs", "sketch", 1, 0.5),
    ]
    ours = row(domain_table(records, "pacs"), "sam")
    assert ours["photo"] == "50.0 (1)"
    assert ours["cartoon"] == "" and ours["avg"] == ""
    assert row(domain_table([], "pacs"), "sam") is None


@pytest.mark.parametrize(
    "table", [overview_table, lambda r, **k: domain_table(r, "pacs", **k)]
)
def test_what_no_record_has_is_refused_and_what_there_is_listed(table):
    with pytest.raises(
        ValueError, match="'swad'; there are: training_domain_validation, l"
    ):
        table([record("sam", "pacs", "photo", 0, 0.5)], rule="swad")


def test_unknown_data_lists_what_there_is():
    with pytest.raises(ValueError, match=r"of these results 'vlcs'; .*: pacs"):
        domain_table([record("sam", "pacs", "photo", 0, 0.5)], "vlcs")
    with pytest.raises(ValueError, match="unknown data set 'pcas'; there are: pacs, vlcs"):
        domain_table([], "pcas")


def test_overview_without_a_whole_seed_is_refused():
    with pytest.raises(ValueError, match=r"no seed .* --data NAME shows each domain"):
        overview_table([record("sam", "pacs", "photo", 0, 0.5)])


def of(config, accuracy, *, method="sam", seed=0, flags=None, **more):
    found = record(method, "digits", "0", seed, accuracy)
    return found | {"config": config, "flags": flags or {}} | more


def test_configurations_stand_in_rows_of_their_own():
    preset = {"steps": 10}
    records = [
        of({"hyperparameters": {"rho": 0.05}, "preset": preset}, 0.1),
        of({"hyperparameters": {"rho": 0.2}, "preset": preset}, 0.3),
        of({"preset": preset}, 0.2, seed=1),  # an older one, whose rho had its default
        of({"hyperparameters": {"rho": 0.05}, "preset": preset}, 0.5, method="erm"),
        of({"hyperparameters": {"rho": 0.2}, "preset": preset}, 0.7, method="erm", seed=1),
    ]
    for several in (records, records[::-1]):
        table = domain_table(several, "digits")
        cells = {cells[0]: cells[2] for cells in table.rows}
        assert cells == {
            "sam (rho 0.05)": "15.0 ± 7.1 (2)",
            "sam (rho 0.2)": "30.0 (1)",
            "erm": "60.0 ± 14.1 (2)",  # which reads no rho
        }
    overview = overview_table(records)
    assert row(overview, "sam (rho 0.2)")["digits"] == "30.0 (1)"


def test_runs_under_other_flags_of_jax_stand_in_rows_of_their_own():
    records = [of({}, 0.1), of({}, 0.3, seed=1, flags={"jax_enable_x64": True})]
    names = {cells[0] for cells in domain_table(records, "digits").rows}
    assert names == {"sam (jax_enable_x64 False)", "sam (jax_enable_x64 True)"}


def test_steps_that_follow_from_epochs_are_no_other_configuration():
    records = [
        of({"preset": {"epochs": 2.0, "steps": steps}}, 0.1, seed=seed)
        for seed, steps in enumerate((10, 12))
    ]
    assert [cells[:3] for cells in domain_table(records, "digits").rows] == [
        ("sam", "here", "10.0 ± 0.0 (2)")
    ]


def test_a_run_that_comes_twice_counts_once():
    cells = domain_table([of({}, 0.1), of({}, 0.1)], "digits").rows
    assert cells == (("sam", "here", "10.0 (1)", "10.0 (1)"),)


def test_two_results_of_one_run_are_refused():
    records = [of({}, 0.1, file="A/results.json"), of({}, 0.2, file="B/results.json")]
    with pytest.raises(ValueError, match=r"seed 0: 0.1 in A/results.json, 0.2 in B/res"):
        domain_table(records, "digits")


def test_overview_averages_over_domains_and_then_over_benchmarks():
    records = [
        record("disam", data, domain, 0, 0.1 * (i + 1))
        for i, (data, benchmark) in enumerate(BENCHMARKS.items())
        for domain in benchmark.domains
    ]
    ours = row(overview_table(records), "disam")
    assert ours["pacs"] == "10.0 (1)" and ours["domain_net"] == "50.0 (1)"
    assert ours["avg"] == "30.0"
    fewer = row(overview_table(records[4:]), "disam")
    assert fewer["pacs"] == "" and fewer["avg"] == ""
    theirs = row(overview_table([]), "disam", "Zhang et al. 2024, Table 1, ResNet-50")
    assert theirs["avg"] == "66.4*"


def test_a_penalty_is_part_of_the_method_s_name():
    records = [record("disam+sagm", "pacs", "photo", 0, 0.5, penalty="coral")]
    table = domain_table(records, "pacs")
    assert row(table, "disam+sagm+coral")["photo"] == "50.0 (1)"
    theirs = row(table, "disam+sagm+coral", "Zhang et al. 2024, Table 6, ResNet-50")
    assert theirs["photo"] == "97.4 ± 0.2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"rule": "best"},
            "unknown selection 'best'; there are: training_domain_validation",
        ),
        ({"part": "half"}, "unknown part 'half'; there are: scored, in_split"),
    ],
)
def test_unknown_choices_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        domain_table([], "pacs", **arguments)


HALVES = {"base": 0.8, "new": 0.4, "harmonic": 0.6, "base_within": 0.9, "new_within": 0.5}
OFFICE_HOME = BENCHMARKS["office_home"].domains
DOMAIN_NET = BENCHMARKS["domain_net"].domains


def opened(tuning, method, data, domain, seed, shift=0.0):
    """A record of a run with open classes."""
    found = record(method, data, domain, seed, 0.6 + shift) | {"tuning": tuning}
    halves = {name: value + shift for name, value in HALVES.items()}
    for rule in ("training_domain_validation", "last_step"):
        found[rule] = {**found[rule], "halves": halves}
    found["bma"] = {**found["last_step"], "halves": dict.fromkeys(halves, 0.1)}
    return found


def test_halves_stand_beside_table_3():
    records = [
        opened("clipood", "disam", "office_home", domain, seed, 0.02 * seed)
        for domain in OFFICE_HOME
        for seed in range(2)
    ]
    source = "Zhang et al. 2024, Table 3, CLIP ViT-B/16"
    for part, ours, theirs in (
        ("base", "81.0 ± 1.4 (2)", "92.7*"),
        ("new", "41.0 ± 1.4 (2)", "90.5*"),
        ("total", "30.5 ± 0.7 (2)", "91.3*"),
        ("harmonic", "61.0 ± 1.4 (2)", None),
        ("base_within", "91.0 ± 1.4 (2)", None),
    ):
        table = domain_table(records, "office_home", part=part)
        assert row(table, "clipood+disam")["Product"] == ours
        printed = row(table, "clipood+disam", source)
        assert (printed or {}).get("Product") == theirs
    averaged = domain_table(records, "office_home", part="new", rule="bma")
    assert row(averaged, "clipood+disam")["avg"] == "10.0 ± 0.0 (2)"


def test_the_row_that_does_not_add_up_says_so():
    caption = domain_table([], "office_home", part="new").caption
    assert "CLIPOOD*+DISAM: base and new do not add up to the printed total" in caption
    alone = domain_table([], "office_home", part="new", tunings=["coop"])
    assert "CLIPOOD" not in alone.caption
    assert "mean of the two data sets' means" in overview_table([], part="new").caption


def test_of_open_classes_the_average_is_that_of_both_data_sets():
    records = [
        opened("coop", "sam", data, domain, 0, shift)
        for data, domains, shift in (
            ("office_home", OFFICE_HOME, 0.0),
            ("domain_net", DOMAIN_NET, 0.1),
        )
        for domain in domains
    ]
    table = overview_table(records, part="new")
    assert table.columns == ("method", "source", "office_home", "domain_net", "avg")
    assert row(table, "coop+sam") == {
        "method": "coop+sam",
        "source": "here",
        "office_home": "40.0 (1)",
        "domain_net": "50.0 (1)",
        "avg": "45.0",  # of the ten domains it would be 46.0
    }
    assert row(overview_table(records[:4], part="new"), "coop+sam")["avg"] == ""
    theirs = row(table, "coop+sam", "Zhang et al. 2024, Table 3, CLIP ViT-B/16")
    assert theirs["avg"] == "67.9*"


def test_only_the_tunings_asked_for_are_shown():
    records = [
        opened(tuning, "erm", "office_home", domain, 0)
        for tuning in ("coop", "lora", "finetune")
        for domain in OFFICE_HOME
    ]
    for make in (overview_table, lambda r, **k: domain_table(r, "office_home", **k)):
        shown = {r[0] for r in make(records, part="new", tunings=["coop", "lora"]).rows}
        assert shown == {"coop+erm", "coop+sam", "coop+disam", "lora+erm"}
        everything = {r[0] for r in make(records, part="new").rows}
        assert everything > shown | {"erm", "clipood+erm", "zero_shot"}
    # Published ones alone, where none here is of that tuning.
    others = overview_table(records, part="new", tunings=["clipood"])
    assert {r[1] for r in others.rows} == {"Zhang et al. 2024, Table 3, CLIP ViT-B/16"}


def test_a_domain_without_new_classes_leaves_its_cell_empty():
    records = [opened("clipood", "disam", "office_home", d, 0) for d in OFFICE_HOME]
    for rule in ("training_domain_validation", "last_step"):
        records[0][rule]["halves"] = {"base": 0.7, "base_within": 0.9}
    found = row(domain_table(records, "office_home", part="new"), "clipood+disam")
    assert not found.get(OFFICE_HOME[0]) and found[OFFICE_HOME[1]] == "40.0 (1)"
    base = row(domain_table(records, "office_home", part="base"), "clipood+disam")
    assert base[OFFICE_HOME[0]] == "70.0 (1)"


def test_without_new_classes_there_are_no_halves():
    plain = record("sam", "office_home", "Art", 0, 0.5)
    for part in (*HALVES, "total"):
        with pytest.raises(ValueError, match=f"no new classes, and part is {part}.*--open"):
            domain_table([plain], "office_home", part=part)
    assert row(domain_table([plain], "office_home"), "sam")["Art"] == "50.0 (1)"
