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
    for score in ("base", "new", "total"):  # 4 and 6 domains, and their average
        assert counts[zhang, "Table 3", f"out_of_domain_{score}"] == 7 * 11
    assert len(PUBLISHED) == 588 + 231


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


def table_3():
    """(printed, score) -> data set -> domain -> number, and the average of both."""
    rows = collections.defaultdict(lambda: collections.defaultdict(dict))
    for number in PUBLISHED:
        if number.table == "Table 3":
            rows[number.printed, number.score][number.data][number.domain] = number
    return rows


def test_table_3_has_all_domains_of_both_data_sets():
    for row in table_3().values():
        assert row.keys() == {"office_home", "domain_net", "average"}
        for data in ("office_home", "domain_net"):
            assert row[data].keys() == set(BENCHMARKS[data].domains)


def test_table_3_averages_the_means_of_the_two_data_sets():
    for row in table_3().values():
        means = [
            np.mean([number.accuracy for number in row[data].values()])
            for data in ("office_home", "domain_net")
        ]
        average = row["average"][""]
        assert abs(np.mean(means) - average.accuracy) < 0.06
        assert average.note.startswith("mean of the two data sets' means")


def test_of_table_3_one_row_does_not_add_up_and_says_so():
    """Total lies between base and new, at the same place for all methods of a domain."""
    rows = table_3()
    for printed in {printed for printed, _ in rows}:
        base, new, total = (
            rows[printed, f"out_of_domain_{score}"] for score in ("base", "new", "total")
        )
        off = [
            shares_of_base()[domain] * (base[data][domain].accuracy - number.accuracy)
            + number.accuracy
            - total[data][domain].accuracy
            for data in ("office_home", "domain_net")
            for domain, number in new[data].items()
        ]
        assert (min(off) > 0.25) == (printed == "CLIPOOD*+DISAM")
        noted = ["add up" in n.note for d in total.values() for n in d.values()]
        assert set(noted) == {printed == "CLIPOOD*+DISAM"}


def shares_of_base():
    """OfficeHome's by its images; DomainNet's fitted to CLIPOOD* and CLIPOOD*+SAM."""
    images = {"Art": (1433, 2427), "Clipart": (2127, 4365)}
    images |= {"Product": (2265, 4439), "Real_World": (2291, 4357)}
    fitted = zip(
        ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
        (0.461, 0.393, 0.492, 0.496, 0.509, 0.422),
        strict=True,
    )
    return {domain: base / whole for domain, (base, whole) in images.items()} | dict(fitted)


def test_every_row_of_clip_has_its_tuning():
    names = {
        "zero-shot": "zero_shot",
        "ERM (fine-tune)": "erm",
        "CoOp": "coop+erm",
        "CLIPOOD": "clipood+erm",
    }
    for number in PUBLISHED:
        if number.backbone != "CLIP ViT-B/16":
            continue
        start, plus, method = number.printed.replace("*", "").partition("+")
        base = names[start.split(" (their")[0].split(" (as")[0]]
        assert number.method == (base.replace("erm", method.lower()) if plus else base), (
            number.printed
        )


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
