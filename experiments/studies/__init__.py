"""The papers' figures and claims, tested on real data: one command each.

In kit/:

study.py        what a study is: claims, numbers, figures, a page
runs.py         trained runs, kept by what they are and shared by all studies
matrix.py       groups of runs: every seed with every unseen domain
changes.py      what is changed about the source domains before a run
probes.py       what is measured of a model during its run
trajectories.py full-batch runs with all that Theorem 1 speaks of
statistics.py   intervals, paired tests, verdicts
plots.py        what the figures share
tuning.py       the same number of trials for every method
sections.py     what the finished studies say, section by section and claim by claim
gather.py       all of it as one page

The others are a study each, in the order of `NAMES`.
"""

import importlib

from experiments.fields import check_known
from experiments.studies.kit.study import Study

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
