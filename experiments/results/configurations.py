"""Records -> the accuracies that tables show, apart for every configuration."""

import dataclasses
from collections import defaultdict
from typing import Any

from experiments.fields import check_known
from experiments.methods.registry import find_method
from experiments.results.earlier import comparison_record
from experiments.results.summary import Records, method_of
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
# Of open classes; see `training.halves`.
HALVES = ("total", "base", "new", "harmonic", "base_within", "new_within")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Runs of one method that share a configuration.

    Attributes:
      method: with the penalty that was added to its losses.
      differing: what the configuration differs in from the method's others, in words.
      source: whose runs they are; `here` is this project's.
    """

    method: str
    differing: str = ""
    source: str = "here"

    @property
    def name(self) -> str:
        """E.g. `sam (rho 0.1)`."""
        return f"{self.method} ({self.differing})" if self.differing else self.method


# (configuration, data, unseen domain) -> seed -> accuracy.
Scores = dict[tuple[Configuration, str, str], dict[int, float]]


def accuracies(records: Records, rule: str, part: str) -> Scores:
    """The records' accuracies on a part of the unseen domain, by a selection rule.

    A run that comes twice counts once.

    Args:
      records: of finished runs, or those that were selected over a sweep's draws.
      rule: one of `RULES`.
      part: a key of `PARTS`.

    Returns:
      They; a record without the rule, or the part, has none.

    Raises:
      ValueError: the rule or the part is unknown, or no record has it; or two records of
        one run differ.
    """
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
    for record, own in zip(records, _configurations_of(records), strict=True):
        if rule not in record:
            continue
        seed, value = record["seed"], _accuracy(record, rule, part)
        if value is None:
            continue
        cell = (own, record["data"], record["unseen_domain"])
        file = record.get("file", "a record")
        before, earlier = first.setdefault((*cell, seed), (value, file))
        if before != value:
            raise ValueError(
                f"two results of one run differ, {own.name} on {' '.join(cell[1:])} with "
                f"seed {seed}: {before} in {earlier}, {value} in {file}; leave one out."
            )
        scores.setdefault(cell, {})[seed] = value
    return scores


def _accuracy(record: dict[str, Any], rule: str, part: str) -> float | None:
    """None where the unseen domain has no image of that part."""
    found = record[rule]
    if part in HALVES:
        if not found.get("halves"):
            raise ValueError(
                f"{record.get('file', 'a record')} has no new classes, and part is {part}: "
                "ask for another, or run its command with --open-classes."
            )
        return {**found["halves"], "total": found["whole"]}.get(part)
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


def _configurations_of(records: Records) -> list[Configuration]:
    """Of each record: its method, and what its configuration differs in."""
    rows = [(method_of(record), record.get("source", "here")) for record in records]
    configs = [_config(record) for record in records]
    alike = defaultdict(list)
    for record, row, config in zip(records, rows, configs, strict=True):
        alike[row, record["data"]].append(config)
    differing = defaultdict(set)
    for (row, _), several in alike.items():
        for name in set().union(*several):
            if any(c.get(name) != several[0].get(name) for c in several):
                differing[row].add(name)
    return [
        Configuration(
            method,
            ", ".join(
                f"{name.rpartition('.')[2]} {config.get(name)}"
                for name in sorted(differing[method, source])
            ),
            source,
        )
        for (method, source), config in zip(rows, configs, strict=True)
    ]


def _config(record: dict[str, Any]) -> dict[str, Any]:
    """What the numbers of a record depend on beside seed and unseen domain, flat.

    A field that is missing had its default. A hyperparameter that the method does not read
    changes nothing, and steps that epochs asked for follow from the images. Of runs from
    elsewhere, whose fields are not ours, nothing is compared.
    """
    if "source" in record:
        return {}
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
