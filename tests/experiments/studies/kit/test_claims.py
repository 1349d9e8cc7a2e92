import numpy as np
import pytest

from experiments.results.statistics import Estimate, equivalence, estimate, paired
from experiments.studies.kit import claims as kit
from experiments.studies.kit.claims import (
    CANNOT_TELL,
    NO_DIFFERENCE,
    OPPOSITE,
    OURS,
    PAPERS,
    SEEN,
    Arm,
    Claim,
    answer,
    answer_equal,
)
from experiments.studies.kit.values import Value, Values, read_values, write_values

MEASURE = "unseen_concept_accuracy"  # half a point does not matter
MARGIN = 0.005


def of(low, high):
    """An estimate of ten seeds with this interval."""
    t = 2.2621571628540993  # of nine degrees of freedom, 97.5 %
    error = (high - low) / 2 / t
    mean = (low + high) / 2
    return Estimate(mean, low, high, 0.0 if low > 0 or high < 0 else 0.5, 10, error)


CASES = [
    # low, high, larger?, equal?
    (0.01, 0.03, SEEN, OPPOSITE),
    (-0.03, -0.01, OPPOSITE, OPPOSITE),
    (0.001, 0.02, SEEN, CANNOT_TELL),  # apart from 0, but perhaps too little to matter
    (0.001, 0.004, NO_DIFFERENCE, SEEN),  # apart from 0, but too little to matter
    (-0.004, 0.004, NO_DIFFERENCE, SEEN),
    (-0.02, 0.03, CANNOT_TELL, CANNOT_TELL),
    (-0.02, 0.004, CANNOT_TELL, CANNOT_TELL),  # not better; perhaps worse
    (0.0, 0.0, NO_DIFFERENCE, SEEN),
]


@pytest.mark.parametrize(("low", "high", "larger", "equal"), CASES)
def test_four_answers(low, high, larger, equal):
    found = of(low, high)
    arguments = found, found.p, equivalence(found, MARGIN), MARGIN
    assert answer(*arguments) == larger and answer_equal(*arguments) == equal


def test_adjusted_p_values_decide_in_both_directions():
    for low, high in ((0.01, 0.03), (-0.03, -0.01)):
        assert answer(of(low, high), 0.06, 1.0, MARGIN) == CANNOT_TELL
    assert answer(of(-0.004, 0.004), 1.0, 0.03, MARGIN) == CANNOT_TELL


def made_up(effects, seeds=10):
    """A method for each effect beside `base`, with noise of 0.2 points per run."""
    rng = np.random.default_rng(0)
    return Values(
        Value("data", name, seed, domain, MEASURE, 0.5 + effect + 0.002 * rng.normal())
        for name, effect in {"base": 0.0, **effects}.items()
        for seed in range(seeds)
        for domain in ("a", "b")
    )


def claim(name, **changes):
    fields = {
        "text": f"{name} is more accurate than base",
        "source": "someone, Table 1",
        "whose": PAPERS,
        "where": "data",
        "measure": MEASURE,
        "larger": Arm("data", name),
        "smaller": Arm("data", "base"),
    }
    return Claim(**(fields | changes))


def test_findings_are_paired_by_seed_over_the_mean_of_the_domains():
    values = made_up({"better": 0.03, "worse": -0.03, "same": 0.0})
    found = kit.answer_claims([claim(n) for n in ("better", "worse", "same")], values)
    assert [f.answer for f in found] == [SEEN, OPPOSITE, NO_DIFFERENCE]
    rows = {(r.method, r.seed, r.unseen_domain): r.value for r in values.rows}
    means = {
        name: [(rows[name, s, "a"] + rows[name, s, "b"]) / 2 for s in range(10)]
        for name in ("better", "base")
    }
    expected = paired(means["better"], means["base"])
    np.testing.assert_allclose(
        [found[0].mean, found[0].low, found[0].high],
        [expected.mean, expected.low, expected.high],
        rtol=1e-4,
    )
    assert found[0].seeds == 10 and found[0].contrast == "better \N{MINUS SIGN} base"
    assert found[0].holm == pytest.approx(3 * expected.p, rel=1e-4)  # the least of three


def test_families_are_adjusted_apart_and_arms_that_are_missing_have_no_answer():
    values = made_up({"better": 0.03, "other": 0.03})
    alone = kit.answer_claims([claim("better"), claim("missing")], values)
    assert len(alone) == 1 and alone[0].holm == alone[0].p
    apart = kit.answer_claims([claim("better"), claim("other", family="b")], values)
    assert [f.holm for f in apart] == [f.p for f in apart]


def test_a_run_that_diverged_leaves_its_seed_out():
    values = made_up({"better": 0.03})
    rows = [
        row._replace(value=np.nan) if row[1:4] == ("better", 3, "a") else row
        for row in values.rows
    ]
    assert kit.answer_claims([claim("better")], Values(rows))[0].seeds == 9


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            lambda row: row.seed != 3,
            r"2 values of unseen_.* alone, the first of seed 3 on a",
        ),
        (lambda row: (row.seed, row.unseen_domain) != (3, "b"), "of seed 3 on b: measure"),
    ],
)
def test_arms_of_other_seeds_or_domains_are_refused(kept, message):
    """As many values would be paired by their places, and fewer domains averaged."""
    values = made_up({"better": 0.03})
    rows = [row for row in values.rows if row.method != "better" or kept(row)]
    with pytest.raises(ValueError, match=message):
        kit.answer_claims([claim("better")], Values(rows))
    shifted = [
        row._replace(seed=row.seed + 1) if row.method == "better" else row
        for row in values.rows
    ]
    with pytest.raises(ValueError, match=r"4 values of .* the first of seed 0 on a"):
        kit.answer_claims([claim("better")], Values(shifted))


def test_an_arm_of_differences_is_tested_against_0():
    values = made_up({"better": 0.03})
    [found] = kit.answer_claims([claim("better", smaller=None, whose=OURS)], values)
    expected = estimate(values.per_seed("data", "better", MEASURE))
    assert found.mean == pytest.approx(expected.mean, rel=1e-4)


def test_what_is_written_is_what_is_read(tmp_path):
    values = made_up({"better": 0.03})
    file = tmp_path / "values.csv.gz"
    write_values(file, [("study", values.rows), ("other", values.rows[:1])])
    once = file.read_bytes()
    write_values(file, [("study", values.rows), ("other", values.rows[:1])])
    assert file.read_bytes() == once  # no time is in it
    found = read_values(file)
    assert list(found) == ["study", "other"] and len(found["other"].rows) == 1
    for row, read in zip(values.rows, found["study"].rows, strict=True):
        assert read[:-1] == row[:-1] and read.value == pytest.approx(row.value, rel=1e-5)
