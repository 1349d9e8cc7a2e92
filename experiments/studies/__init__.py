"""The papers' figures and claims, tested on real data: one command each.

study.py        what a study is: claims, numbers, figures, a page
runs.py         trained runs, kept by what they are and shared by all studies
matrix.py       groups of runs: every seed with every unseen domain
statistics.py   intervals, paired tests, verdicts
tuning.py       the same number of trials for every method
gather.py       all finished studies as one page

The others are a study each, in the order of `names`.
"""

import importlib

from experiments.fields import check_known
from experiments.studies.study import Study

NAMES = (
    "accuracy",
    "convergence",
    "sweeps",
    "flatness",
    "toy",
    "theorem",
    "synthetic",
    "domain_labels",
    "readings",
    "pretrained",
)


def find_study(name: str) -> Study:
    """The study of this name.

    Args:
      name: one of `NAMES`.

    Returns:
      The study.

    Raises:
      ValueError: there is none; the message lists those there are.
    """
    check_known("study", name, NAMES)
    # Imported when asked for: plotting and statistics take a second to import.
    return importlib.import_module(f"experiments.studies.{name}").STUDY
