"""Results beside the papers' printed numbers: by domain, and an overview of all data."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.config.run import tuning_of
from experiments.data.benchmarks import BENCHMARKS
from experiments.fields import check_known
from experiments.results.configurations import (
    HALVES,
    PARTS,
    Configuration,
    Scores,
    accuracies,
)
from experiments.results.published import Published, load_published
from experiments.results.summary import SPREADS, Records, over_seeds
from experiments.results.table import Table

# What the papers print of a part; of the others nothing.
PRINTED = {
    **dict.fromkeys(("scored", "in_split", "whole"), "out_of_domain"),
    **{part: f"out_of_domain_{part}" for part in ("total", "base", "new")},
}
OPEN = ("office_home", "domain_net")  # benchmarks of open classes, Table 3


def domain_table(
    records: Records,
    data: str,
    *,
    rule: str = "training_domain_validation",
    part: str = "scored",
    spread: str = "std",
    tunings: Sequence[str] = (),
) -> Table:
    """Methods x unseen domains of one data set, ours and published.

    A cell is of runs that differ in their seed alone. Where a method's runs on a data set
    differ in more, each configuration is a row that says what it differs in, e.g.
    `sam (rho 0.1)`. A run that comes twice counts once.

    Args:
      records: of finished runs, or those that were selected over a sweep's draws.
      data: name of the data set.
      rule: a selection rule, or `swad`.
      part: of the unseen domain, a key of `PARTS`.
      spread: what stands behind ±, a key of `SPREADS`.
      tunings: whose methods are shown; none is all.

    Returns:
      The table; a cell is mean ± spread over seeds (n of them), in percent. The
      average is over seeds that finished on every domain, and empty where there are none.

    Raises:
      ValueError: the data, the rule, the part or the spread is unknown, or no record has
        it; or two records of one run differ.
    """
    known = tuple(dict.fromkeys(r["data"] for r in records)) or tuple(BENCHMARKS)
    check_known("data set of these results" if records else "data set", data, known)
    check_known("spread", spread, tuple(SPREADS))
    ours = accuracies([r for r in records if r["data"] == data], rule, part)
    printed = [
        p for p in load_published() if p.data == data and p.score == PRINTED.get(part)
    ]
    domains = _domains(data, ours)
    rows = []
    for method in _methods(ours, printed, tunings):
        for row in _rows(ours, method):
            columns = [list(ours.get((row, data, d), {}).values()) for d in domains]
            columns.append(_averages(ours, row, data, domains))
            rows.append((row.name, row.source, *(_cell(c, spread) for c in columns)))
        rows += _published_rows(printed, method, (*domains, data))
    caption = _caption(data, rule, part, spread) + _notes(printed, rows)
    return Table(caption, ("method", "source", *domains, "avg"), tuple(rows))


def overview_table(
    records: Records,
    *,
    rule: str = "training_domain_validation",
    part: str = "scored",
    spread: str = "std",
    tunings: Sequence[str] = (),
) -> Table:
    """Methods x benchmarks, each the average over its domains, as the papers' Table 1.

    Arguments, rows and errors are those of `domain_table`; the last column is the mean of
    all five benchmarks, of open classes those of Table 3, and empty unless all are there.

    Raises:
      ValueError: also where no method has a seed that finished on every unseen domain.
    """
    check_known("spread", spread, tuple(SPREADS))
    ours = accuracies(records, rule, part)
    averages = [
        p for p in load_published() if not p.domain and p.score == PRINTED.get(part)
    ]
    whole = {(p.paper, p.table) for p in averages if p.data == "average"}
    printed = [p for p in averages if (p.paper, p.table) in whole]
    benchmarks = OPEN if part in HALVES else tuple(BENCHMARKS)
    there = dict.fromkeys(data for _, data, _ in ours)
    own = [data for data in there if data not in benchmarks]
    columns = [*own, *benchmarks]
    rows = []
    for method in _methods(ours, printed, tunings):
        for row in _rows(ours, method):
            means = [_averages(ours, row, d, _domains(d, ours)) for d in columns]
            cells = [_cell(values, spread) for values in means]
            of_all = [float(np.mean(m)) for m in means[len(own) :] if m]
            complete = len(of_all) == len(benchmarks)
            total = f"{100 * np.mean(of_all):.1f}" if complete else ""
            if any(cells):
                rows.append((row.name, row.source, *cells, total))
        rows += _published_rows(printed, method, (*columns, "average"))
    if records and not any(
        _averages(ours, row, data, _domains(data, ours)) for row, data, _ in ours
    ):
        raise ValueError(
            "no seed of these results is there on every unseen domain of its data set; "
            "--data NAME shows each domain by itself."
        )
    caption = _caption("average over unseen domains", rule, part, spread)
    caption += _notes(printed, rows)
    return Table(caption, ("method", "source", *columns, "avg"), tuple(rows))


def _averages(
    scores: Scores, row: Configuration, data: str, domains: Sequence[str]
) -> list[float]:
    """Over the domains, one value for each seed that has them all."""
    by_domain = [scores.get((row, data, domain), {}) for domain in domains]
    seeds = set.intersection(*map(set, by_domain)) if by_domain else set()
    return [float(np.mean([by_seed[s] for by_seed in by_domain])) for s in sorted(seeds)]


def _domains(data: str, scores: Scores) -> list[str]:
    if data in BENCHMARKS:
        return list(BENCHMARKS[data].domains)
    return list(dict.fromkeys(domain for _, name, domain in scores if name == data))


def _methods(
    scores: Scores, printed: Sequence[Published], tunings: Sequence[str]
) -> list[str]:
    """Ours first, then those that are only published and known here."""
    published = [number.method for number in printed if number.method]
    found = dict.fromkeys([*(row.method for row, _, _ in scores), *published])
    return [name for name in found if not tunings or tuning_of(name) in tunings]


def _rows(scores: Scores, method: str) -> list[Configuration]:
    return list(dict.fromkeys(row for row, _, _ in scores if row.method == method))


def _published_rows(
    printed: Sequence[Published], method: str, names: Sequence[str]
) -> list[tuple[str, ...]]:
    """A row for each of a paper's tables; names are of domains or data sets.

    Where a table prints a method more than once, the source says as what.
    """
    rows: dict[tuple[str, str], dict[str, Published]] = defaultdict(dict)
    for number in printed:
        if number.method == method:
            source = f"{number.paper}, {number.table}, {number.backbone}"
            rows[source, number.printed][number.domain or number.data] = number
    sources = Counter(source for source, _ in rows)
    return [
        (
            method,
            f"{source}, {name}" if sources[source] > 1 else source,
            *(_printed(numbers.get(column)) for column in names),
        )
        for (source, name), numbers in rows.items()
    ]


def _cell(values: list[float], spread: str) -> str:
    if not values:
        return ""
    return f"{over_seeds(values, spread).percent()} ({len(values)})"


def _printed(number: Published | None) -> str:
    if number is None:
        return ""
    std = "" if number.std is None else f" ± {number.std}"
    return f"{number.accuracy}{std}{'*' if number.note else ''}"


def _notes(printed: Sequence[Published], rows: Iterable[Sequence[str]]) -> str:
    """What is odd about the published numbers of the methods in these rows."""
    shown = {method for method, *_ in rows}
    noted: dict[str, dict[str, None]] = defaultdict(dict)
    for number in printed:
        if number.note and number.method in shown:
            noted[number.note][number.printed] = None
    return "".join(f" {', '.join(names)}: {note}." for note, names in noted.items())


def _caption(what: str, rule: str, part: str, spread: str) -> str:
    return (
        f"Out-of-domain accuracy in percent, {what}; here: mean ± {SPREADS[spread][0]} "
        f"over seeds (their number), selection by {rule.replace('_', ' ')}, on "
        f"{PARTS[part]}. An asterisk marks a published number with a note."
    )
