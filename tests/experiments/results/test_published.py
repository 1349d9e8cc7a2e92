import collections

import numpy as np

from experiments.data.benchmarks import BENCHMARKS
from experiments.results.published import load_published

PUBLISHED = load_published()


def test_published_numbers_are_counted():
    counts = collections.Counter((p.paper, p.table, p.score) for p in PUBLISHED)
    zhang, wang = "Zhang et al. 2024", "Wang et al. 2023"
    assert counts[zhang, "Table 1", "out_of_domain"] == 9 * 6
    assert counts[zhang, "Table 1", "in_domain"] == 7 * 6
    assert counts[zhang, "Table 2", "out_of_domain"] == 9 * 6
    assert counts[zhang, "Table 5", "out_of_domain"] == 4 * 6
    assert counts[wang, "Table 1", "out_of_domain"] == 23 * 6
    assert [counts[zhang, f"Table {i}", "out_of_domain"] for i in range(6, 11)] == [
        40, 40, 40, 40, 56,
    ]  # fmt: skip
    assert len(PUBLISHED) == 588


def test_published_domains_and_data_are_ours():
    for number in PUBLISHED:
        assert number.data in (*BENCHMARKS, "average")
        assert not number.domain or number.domain in BENCHMARKS[number.data].domains
        assert 0 < number.accuracy < 100


def test_printed_averages_are_those_of_the_domains_or_have_a_note():
    tables = collections.defaultdict(dict)
    for number in PUBLISHED:
        if number.table in {f"Table {i}" for i in range(6, 11)}:
            tables[number.table, number.printed][number.domain] = number
    assert len(tables) == 8 * 5
    for found in tables.values():
        average = found.pop("")
        mean = np.mean([number.accuracy for number in found.values()])
        assert abs(mean - average.accuracy) < 0.11 or average.note


def test_rows_that_a_paper_quotes_are_equal_to_the_quoted():
    by_key = {
        (p.paper, p.table, p.printed, p.data, p.score): p for p in PUBLISHED if not p.domain
    }
    for method in ("SAM", "GSAM", "SAGM"):
        for data in BENCHMARKS:
            quoted = by_key["Zhang et al. 2024", "Table 1", method, data, "out_of_domain"]
            own = by_key["Wang et al. 2023", "Table 1", method, data, "out_of_domain"]
            assert (quoted.accuracy, quoted.std) == (own.accuracy, own.std)
            assert quoted.note.startswith("quoted")
