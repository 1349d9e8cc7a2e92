"""Runs that DomainBed left, read as the records of a sweep.

OUTPUT/HASH/results.jsonl   a line for each evaluation
OUTPUT/HASH/done            written when the run had ended

Environment i is domain i of the data, by name: DomainBed sorts their folders, too. A draw
is its `hparams_seed`, a trial its `trial_seed`. What is selected of them is then what
DomainBed selects, see `over_draws`.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data.benchmarks import BENCHMARKS
from experiments.methods.penalties import PENALTIES
from experiments.methods.registry import METHODS
from experiments.runs.records import FINISHED, Record

SOURCE = "DomainBed"
RESULTS, DONE = "results.jsonl", "done"
NEEDED = {  # of a run's arguments, in the order of `Run`
    "algorithm": str,
    "dataset": str,
    "hparams_seed": int,
    "test_envs": list,
    "trial_seed": int,
}
MOST_UNSEEN = 2  # one, or two of `leave_one_domain_out`
HELD_OUT = 0.2  # of an environment, where the arguments do not say


class Run(NamedTuple):
    """What DomainBed tells runs apart by, as its arguments name it."""

    algorithm: str
    dataset: str
    draw: int
    test_envs: tuple[int, ...]
    trial: int


Lines = dict[int, dict[str, Any]]  # by step


def is_domainbed(folder: Path) -> bool:
    """Whether a folder holds runs of DomainBed, or is that of a run."""
    return (folder / RESULTS).is_file() or any(folder.glob(f"*/{RESULTS}"))


def read_domainbed(*folders: Path) -> tuple[list[Record], list[str]]:
    """The finished runs of all these folders: draws of one search may lie in several.

    Of several evaluations at one step the last counts: a run that is begun again writes on
    in its file.

    Args:
      folders: DomainBed's output: with a folder for each run, or that of one.

    Returns:
      (records as a sweep's, folders that are left out, for they have no `done`).

    Raises:
      ValueError: a line is none of DomainBed's, and the message names file and line; or two
        folders hold one run.
    """
    places = [place for folder in folders for place in _places(folder)]
    records: dict[Run, Record] = {}
    unfinished = []
    for place in places:
        if not (place / DONE).is_file():
            unfinished.append(str(place))
            continue
        for run, lines in _read_runs(place / RESULTS).items():
            record = _record(run, lines) | {"file": str(place / RESULTS)}
            if (first := records.setdefault(run, record)) is not record:
                raise ValueError(
                    f"{first['file']} and {record['file']} hold one run, {run}: read them "
                    "apart, or take one away."
                )
    return list(records.values()), unfinished


def _places(folder: Path) -> list[Path]:
    if (folder / RESULTS).is_file():
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir())


def our_name(theirs: str, ours: Collection[str]) -> str:
    """That of ours which is theirs but for case and underscores; else theirs as it is."""
    same = {name.replace("_", "").lower(): name for name in ours}
    return same.get(theirs.replace("_", "").lower(), theirs)


def _read_runs(file: Path) -> dict[Run, Lines]:
    """A file holds one run, or all that were given one folder."""
    runs: dict[Run, Lines] = defaultdict(dict)
    for number, text in enumerate(file.read_text("utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}, is no JSON: {error}.") from None
        _check(line, f"{file}, line {number},")
        algorithm, dataset, draw, environments, trial = (line["args"][n] for n in NEEDED)
        run = Run(algorithm, dataset, draw, tuple(sorted(environments)), trial)
        runs[run][line["step"]] = line
    if not runs:
        raise ValueError(f"{file} is empty, and {DONE} beside it says that the run ended.")
    return runs


def _check(line: Any, where: str) -> None:
    """Raises a ValueError unless DomainBed's train.py could have written the line."""
    wrong = _wrong(line) if isinstance(line, dict) else ["all of it"]
    if wrong:
        raise ValueError(
            f"{where} is no evaluation of DomainBed's train.py: missing, or not what it "
            f"can be: {', '.join(wrong)}."
        )
    dataset, count = line["args"]["dataset"], _count(line)
    known = BENCHMARKS.get(our_name(dataset, BENCHMARKS))
    if known and len(known.domains) != count:
        raise ValueError(
            f"{where} has {count} environments, and {dataset} has {len(known.domains)}."
        )


def _wrong(line: dict[str, Any]) -> list[str]:
    """What an evaluation must have and this one has not, or not as it can be."""
    args = line.get("args", {})
    args = args if isinstance(args, dict) else {}
    wrong = [f"args.{n}" for n, kind in NEEDED.items() if not isinstance(args.get(n), kind)]
    if wrong:
        return wrong
    unseen, count = args["test_envs"], _count(line)
    if not (
        all(isinstance(i, int) and i >= 0 for i in unseen)
        and 1 <= len(set(unseen)) == len(unseen) <= MOST_UNSEEN
    ):
        return ["args.test_envs"]
    if not _is_share(args.get("holdout_fraction", HELD_OUT)):
        return ["args.holdout_fraction"]
    environments = range(max(count, len(unseen) + 1, *(i + 1 for i in unseen)))
    accuracies = [f"env{i}_{part}_acc" for i in environments for part in ("in", "out")]
    wrong = [name for name in accuracies if not _is_share(line.get(name))]
    return wrong if isinstance(line.get("step"), int) else ["step", *wrong]


def _is_share(value: Any) -> bool:
    """Of NaN, which would win any selection, not."""
    return isinstance(value, int | float) and 0 <= value <= 1


def _count(line: dict[str, Any]) -> int:
    return next(i for i in itertools.count() if f"env{i}_out_acc" not in line)


def _record(run: Run, lines: Lines) -> Record:
    """The record of a run with one unseen domain or more."""
    penalty = our_name(run.algorithm, PENALTIES)
    is_penalty = penalty in PENALTIES
    data = our_name(run.dataset, BENCHMARKS)
    evaluations = [lines[step] for step in sorted(lines)]
    count = _count(evaluations[0])
    domains = [f"env{i}" for i in range(count)]
    if data in BENCHMARKS:
        domains = list(BENCHMARKS[data].domains)
    first, *others = (domains[i] for i in run.test_envs)
    return {
        "method": "erm" if is_penalty else our_name(run.algorithm, METHODS),
        "penalty": penalty if is_penalty else "none",
        "data": data,
        "unseen_domain": first,
        "also_unseen_domain": ",".join(others),
        "trial": run.trial,
        "draw": run.draw,
        "state": FINISHED,
        "evaluations": _columns(run, domains, evaluations),
    }


def _columns(
    run: Run, domains: list[str], evaluations: list[dict[str, Any]]
) -> dict[str, list[float]]:
    """The accuracies by our names, a value for each evaluation."""
    unseen, names = run.test_envs[0], range(len(domains))
    inside, outside = (
        np.array([[line[f"env{i}_{part}_acc"] for i in names] for line in evaluations])
        for part in ("in", "out")
    )
    sources = [i for i in names if i not in run.test_envs]
    held_out = evaluations[0]["args"].get("holdout_fraction", HELD_OUT)
    whole = (1 - held_out) * inside[:, unseen] + held_out * outside[:, unseen]
    columns = {f"out_split_accuracy/{d}": outside[:, i] for i, d in enumerate(domains)}
    for i in run.test_envs:
        columns[f"in_split_accuracy/{domains[i]}"] = inside[:, i]
        columns[f"scored_accuracy/{domains[i]}"] = inside[:, i]
    columns["in_domain_accuracy"] = outside[:, sources].mean(axis=1)
    columns["validation_accuracy"] = outside[:, unseen]
    columns["out_of_domain_accuracy"] = whole
    steps = [evaluation["step"] for evaluation in evaluations]
    return {"step": steps, **{name: column.tolist() for name, column in columns.items()}}
