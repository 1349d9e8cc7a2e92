"""Results beside the papers' printed numbers: by domain, and an overview of all data."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.config.run import tuning_of
from experiments.data.benchmarks import BENCHMARKS
from experiments.fields import check_known
from experiments.methods.registry import find_method
from experiments.results.earlier import comparison_record
from experiments.results.published import Published, load_published
from experiments.results.summary import SPREADS, Records, method_of, over_seeds
from experiments.results.table import Table
from experiments.training.numerics import FLAGS
from experiments.training.run_folder import field_defaults, flatten
from experiments.training.selection import SELECTION_RULES

RULES = (*SELECTION_RULES, "swad", "bma", "leave_one_domain_out")
PARTS = {
    "scored": "what was not trained on of the unseen domain: of emoji_styles the unseen "
    "concepts, of others the part that was not held out (80 % in DomainBed)",
    "in_split": "the part of the unseen domain that was not held out (80 % in DomainBed)",
    "whole": "all images of the unseen domain",
    "total": "all images of the unseen domain, some of new classes",
    "base": "its images of the classes that were trained on, told among all classes",
    "new": "its images of new classes, told among all classes",
    "harmonic": "the harmonic mean of both",
    "base_within": "its images of the classes that were trained on, told among those",
    "new_within": "its images of new classes, told among those",
}
HALVES = ("base", "new", "harmonic", "base_within", "new_within")
# What the papers print of a part; of the others nothing.
PRINTED = {
    **dict.fromkeys(("scored", "in_split", "whole"), "out_of_domain"),
    **{part: f"out_of_domain_{part}" for part in ("total", "base", "new")},
}


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
    ours = _scores([r for r in records if r["data"] == data], rule, part)
    printed = [
        p for p in load_published() if p.data == data and p.score == PRINTED.get(part)
    ]
    domains = _domains(data, ours)
    rows = []
    for method in _methods(ours, printed, tunings):
        for row in _rows(ours, method):
            columns = [list(ours.get((row, data, d), {}).values()) for d in domains]
            columns.append(_averages(ours, row, data, domains))
            rows.append((row.name, "here", *(_cell(c, spread) for c in columns)))
        rows += _published_rows(printed, method, (*domains, data))
    caption = _caption(data, rule, part, spread) + _notes(printed)
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

    Arguments, rows and errors are those of `domain_table`; the last column is over all five
    benchmarks and empty unless all of them are there.

    Raises:
      ValueError: also where no method has a seed that finished on every unseen domain.
    """
    check_known("spread", spread, tuple(SPREADS))
    ours = _scores(records, rule, part)
    averages = [
        p for p in load_published() if not p.domain and p.score == PRINTED.get(part)
    ]
    whole = {(p.paper, p.table) for p in averages if p.data == "average"}
    printed = [p for p in averages if (p.paper, p.table) in whole]
    own = [data for data in dict.fromkeys(key[1] for key in ours) if data not in BENCHMARKS]
    columns = [*own, *BENCHMARKS]
    rows = []
    for method in _methods(ours, printed, tunings):
        for row in _rows(ours, method):
            means = [_averages(ours, row, d, _domains(d, ours)) for d in columns]
            cells = [_cell(values, spread) for values in means]
            of_all = [float(np.mean(m)) for m in means[len(own) :] if m]
            complete = len(of_all) == len(BENCHMARKS)
            total = f"{100 * np.mean(of_all):.1f}" if complete else ""
            if any(cells):
                rows.append((row.name, "here", *cells, total))
        rows += _published_rows(printed, method, (*columns, "average"))
    if records and not any(source == "here" for _, source, *_ in rows):
        raise ValueError(
            "no seed of these results is there on every unseen domain of its data set; "
            "--data NAME shows each domain by itself."
        )
    caption = _caption("average over unseen domains", rule, part, spread)
    return Table(caption, ("method", "source", *columns, "avg"), tuple(rows))


@dataclasses.dataclass(frozen=True)
class _Row:
    """Runs of one method that share a configuration.

    Attributes:
      method: with the penalty that was added to its losses.
      differing: what the configuration differs in from the method's others, in words.
    """

    method: str
    differing: str = ""

    @property
    def name(self) -> str:
        return f"{self.method} ({self.differing})" if self.differing else self.method


Scores = dict[tuple[_Row, str, str], dict[int, float]]  # (row, data, domain) -> by seed


def _scores(records: Records, rule: str, part: str) -> Scores:
    check_known("selection", rule, RULES)
    check_known("part", part, tuple(PARTS))
    there = tuple(name for name in RULES if any(name in record for record in records))
    if records and not there:
        raise ValueError(
            "these results are of a version that selected nothing; run their command again."
        )
    if records:
        check_known("selection of these results", rule, there)
    scores: Scores = {}
    first: dict[Any, Any] = {}
    for record, row in zip(records, _rows_of(records), strict=True):
        if rule not in record:
            continue
        seed, value = record["seed"], _accuracy(record, rule, part)
        cell = (row, record["data"], record["unseen_domain"])
        file = record.get("file", "a record")
        before, earlier = first.setdefault((*cell, seed), (value, file))
        if before != value:
            raise ValueError(
                f"two results of one run differ, {row.name} on {' '.join(cell[1:])} with "
                f"seed {seed}: {before} in {earlier}, {value} in {file}; leave one out."
            )
        scores.setdefault(cell, {})[seed] = value
    return scores


def _accuracy(record: dict[str, Any], rule: str, part: str) -> float:
    found = record[rule]
    if part == "total" or part in HALVES:
        if not found.get("halves"):
            raise ValueError(
                f"{record.get('file', 'a record')} has no new classes, and part is {part}: "
                "ask for another, or run its command with --open-classes."
            )
        return {**found["halves"], "total": found["whole"]}[part]
    if part not in found:
        found = comparison_record(record)[rule]
    if part not in found:
        raise ValueError(
            f"{record.get('file', 'a record')} does not say how accurate what {rule} "
            "selected is on what was not trained on, for it was made before that was "
            "scored: run its command again, in another folder, or ask for --part in_split "
            "or whole."
        )
    return found[part]


def _rows_of(records: Records) -> list[_Row]:
    """The row of each record: its method, and what its configuration differs in."""
    methods = [method_of(record) for record in records]
    configs = [_config(record) for record in records]
    alike = defaultdict(list)
    for record, method, config in zip(records, methods, configs, strict=True):
        alike[method, record["data"]].append(config)
    differing = defaultdict(set)
    for (method, _), several in alike.items():
        for name in set().union(*several):
            if any(c.get(name) != several[0].get(name) for c in several):
                differing[method].add(name)
    return [
        _Row(
            method,
            ", ".join(
                f"{name.rpartition('.')[2]} {config.get(name)}"
                for name in sorted(differing[method])
            ),
        )
        for method, config in zip(methods, configs, strict=True)
    ]


def _config(record: dict[str, Any]) -> dict[str, Any]:
    """What the numbers of a record depend on beside seed and unseen domain, flat.

    A field that is missing had its default. A hyperparameter that the method does not read
    changes nothing, and steps that epochs asked for follow from the images.
    """
    method = record["method"]
    try:
        reads, defaults = find_method(method).reads, field_defaults(method)
    except ValueError:  # a method of someone's own that is not installed here
        reads, defaults = None, {}
    config = flatten(defaults) | flatten(record.get("config", {}))
    config |= flatten({"flags": FLAGS | record.get("flags", {})})
    if config.get("preset.epochs"):
        del config["preset.steps"]
    return {
        name: value
        for name, value in config.items()
        if not name.startswith("hyperparameters.")
        or reads is None
        or name.rpartition(".")[2] in reads
    }


def _averages(scores: Scores, row: _Row, data: str, domains: Sequence[str]) -> list[float]:
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


def _rows(scores: Scores, method: str) -> list[_Row]:
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


def _notes(printed: Sequence[Published]) -> str:
    """What is odd about the published numbers that are shown."""
    notes = dict.fromkeys(f"{p.printed}: {p.note}." for p in printed if p.note)
    return "".join(f" {note}" for note in notes)


def _caption(what: str, rule: str, part: str, spread: str) -> str:
    return (
        f"Out-of-domain accuracy in percent, {what}; here: mean ± {SPREADS[spread][0]} "
        f"over seeds (their number), selection by {rule.replace('_', ' ')}, on "
        f"{PARTS[part]}. "
        "An asterisk marks a published number with a note in results/published."
    )
