"""Selection over a sweep's draws: which run, and which of its checkpoints, a table shows.

Every trial selects for itself, of each method on each unseen domain, among its own draws.
The rules are those of Gulrajani and Lopez-Paz, ICLR 2021, appendix D, as DomainBed has
them; of draws with equal scores the highest is taken, and of checkpoints the first.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from experiments.fields import check_known
from experiments.methods.registry import METHODS
from experiments.results.earlier import sweep_record
from experiments.runs.records import FINISHED, STATES

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a rule chose of a run.

    Attributes:
      place: of the checkpoint among the run's evaluations.
      validation: the score that draws are compared by.
    """

    place: int
    validation: float


# (run, source domain -> the run of the same draw with that domain unseen, too)
Rule = Callable[[Record, dict[str, Record]], Checkpoint | None]


def training_domain_validation(run: Record, pairs: dict[str, Record]) -> Checkpoint | None:
    """The best mean accuracy on the source domains' held-out parts."""
    del pairs
    return _first_best(run["evaluations"]["in_domain_accuracy"])


def leave_one_domain_out(run: Record, pairs: dict[str, Record]) -> Checkpoint | None:
    """The best mean accuracy on source domains that were unseen in their turn.

    Each source domain's is what the run without it is scored by, at the same step. None
    where one of those runs is missing, or there is no step that all have.
    """
    steps = run["evaluations"]["step"]
    columns = []
    for domain in _domains(run):
        if domain == run["unseen_domain"]:
            continue
        if domain not in pairs:
            return None
        there = pairs[domain]["evaluations"]
        columns.append(
            dict(zip(there["step"], there[f"scored_accuracy/{domain}"], strict=True))
        )
    whole = [place for place, step in enumerate(steps) if all(step in c for c in columns)]
    if not whole:
        return None
    scores = [[column[steps[place]] for place in whole] for column in columns]
    best = _first_best(np.mean(scores, axis=0).tolist())
    return Checkpoint(whole[best.place], best.validation)


def oracle(run: Record, pairs: dict[str, Record]) -> Checkpoint | None:
    """The last checkpoint, by the accuracy on what is not scored of the unseen domain."""
    del pairs
    rest = run["evaluations"]["validation_accuracy"]
    return Checkpoint(len(rest) - 1, rest[-1])


RULES: dict[str, Rule] = {
    "training_domain_validation": training_domain_validation,
    "leave_one_domain_out": leave_one_domain_out,
    "oracle": oracle,
}


def select_over_draws(records: Iterable[Record], rule: str) -> list[Record]:
    """The selected run of every method, trial and unseen domain.

    Args:
      records: of a sweep's runs, in any order; those that did not finish are skipped.
      rule: a key of `RULES`.

    Returns:
      Records with `method`, `penalty`, `data`, `unseen_domain`, `seed` (the trial), `draw`,
      and under the rule's name the `step`, the `validation` score, and the accuracies
      `scored`, `in_split` and `whole` on the unseen domain. In the order of `METHODS`,
      trials and domains, whatever that of the records. Where no draw can be selected there
      is none.

    Raises:
      ValueError: the rule is unknown, or needs runs that the sweep does not have.
    """
    check_known("selection over draws", rule, tuple(RULES))
    finished = [sweep_record(run) for run in records if run["state"] == FINISHED]
    cells, pairs = _by_cell(finished)
    if rule == "leave_one_domain_out" and finished and not pairs:
        raise ValueError(
            "leave_one_domain_out needs finished runs that leave out two domains, and "
            "there are none: make the sweep with --pairs, in another folder, or select by "
            "training_domain_validation or oracle."
        )
    in_order = sorted(cells.values(), key=lambda runs: _place(runs[0]))
    selected = [_select(runs, pairs, rule) for runs in in_order]
    return [record for record in selected if record]


def count_states(records: Iterable[Record]) -> dict[str, int]:
    """How many runs ended in each of the states."""
    states = [record["state"] for record in records]
    return {state: states.count(state) for state in STATES}


def _by_cell(finished: Sequence[Record]) -> tuple[dict, dict]:
    """Cell -> runs with its domain alone unseen; (cell, draw) -> domain -> pair's run."""
    cells, pairs = defaultdict(list), defaultdict(dict)
    for run in finished:
        first, second = run["unseen_domain"], run["also_unseen_domain"]
        if second:
            pairs[_cell(run, first), run["draw"]][second] = run
            pairs[_cell(run, second), run["draw"]][first] = run
        else:
            cells[_cell(run, first)].append(run)
    return cells, pairs


def _cell(run: Record, domain: str) -> tuple:
    return run["method"], run["penalty"], run["data"], run["trial"], domain


def _place(run: Record) -> tuple:
    """Where a cell stands among the others, whichever run was finished first."""
    method, domain = run["method"], _domains(run).index(run["unseen_domain"])
    known = list(METHODS).index(method) if method in METHODS else len(METHODS)
    return known, method, run["penalty"], run["data"], run["trial"], domain


def _select(runs: list[Record], pairs: dict, rule: str) -> Record | None:
    """The record of the best draw of a cell."""
    best: tuple[Checkpoint, Record] | None = None
    for run in sorted(runs, key=lambda run: run["draw"]):
        cell = _cell(run, run["unseen_domain"])
        chosen = RULES[rule](run, pairs.get((cell, run["draw"]), {}))
        if chosen and (best is None or chosen.validation >= best[0].validation):
            best = chosen, run
    return best and _record(*best, rule)


def _record(chosen: Checkpoint, run: Record, rule: str) -> Record:
    evaluations, unseen = run["evaluations"], run["unseen_domain"]
    return {
        "method": run["method"],
        "penalty": run["penalty"],
        "data": run["data"],
        "unseen_domain": unseen,
        "seed": run["trial"],
        "draw": run["draw"],
        rule: {
            "step": evaluations["step"][chosen.place],
            "validation": chosen.validation,
            "scored": evaluations[f"scored_accuracy/{unseen}"][chosen.place],
            "in_split": evaluations[f"in_split_accuracy/{unseen}"][chosen.place],
            "whole": evaluations["out_of_domain_accuracy"][chosen.place],
        },
    }


def _first_best(scores: Sequence[float]) -> Checkpoint:
    place = int(np.argmax(scores))
    return Checkpoint(place, scores[place])


def _domains(run: Record) -> list[str]:
    """All domains of the run's data, in its order."""
    prefix = "out_split_accuracy/"
    return [
        name.removeprefix(prefix) for name in run["evaluations"] if name.startswith(prefix)
    ]
