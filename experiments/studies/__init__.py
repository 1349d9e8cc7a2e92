"""The papers' figures and claims, tested on real data: one command each.

In kit/:

study.py        what a study is: claims, numbers, figures, a page
runs.py         trained runs, kept by what they are and shared by all studies
matrix.py       groups of runs: every seed with every unseen domain
changes.py      what is changed about the source domains before a run
probes.py       what is measured of a model during its run
turns.py        how far DISAM turns SAM's perturbation
trajectories.py full-batch runs with all that Theorem 1 speaks of
values.py       every value that was measured, in one table
margins.py      what is measured, and which difference matters
claims.py       claims, and the four answers
scope.py        what was trained, from the configs of the runs
forest.py       effects with their intervals
plots.py        what the other figures share
tuning.py       the hyperparameters of every method, found alike
sections.py     what the finished studies say, section by section and claim by claim
gather.py       all of it as one page

The others are a study each, in the order of `NAMES`.
"""

import importlib

from experiments.fields import check_known
from experiments.studies.kit.study import Study

NAMES = (
    "accuracy",
    "label_noise",
    "dose",
    "pretrained",
    "convergence",
    "flatness",
    "rho",
    "prediction",
    "open_classes",
    "theorem",
    "toy",
    "synthetic",
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
