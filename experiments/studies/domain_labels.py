"""What DISAM needs of the domain labels: noisy, missing, merged, unequal, few and many.

The paper leaves all of this open; the questions are ours, some of them its reviewers'.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from experiments.results.figures import color_of, save
from experiments.results.statistics import (
    estimate,
    holm,
    p_text,
    paired,
    verdict,
)
from experiments.results.table import Table
from experiments.studies.kit.changes import Change
from experiments.studies.kit.matrix import Group, last, per_seed, run_groups, spread
from experiments.studies.kit.plots import errorbars, legend_below, panels
from experiments.studies.kit.run import Spec, load_once
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Figure, Finding, Numbers, Study

MARGIN = 0.005
OURS = "DISAM, lam 10"
# name -> (method, overrides, marker)
RUNS = {
    "SAM": ("sam", (), "o"),
    OURS: ("disam", (("lam", 10.0),), "s"),
}
MERGED = Change("merged_domains", 2)
CHANGES = {
    "labels as they are": None,
    "25 % wrong": Change("wrong_labels", 0.25),
    "50 % wrong": Change("wrong_labels", 0.5),
    "all at random": Change("wrong_labels", 1.0),
    "50 % missing": Change("missing_labels", 0.5),
    "merged to 2": MERGED,
}
RATIOS = (1, 10, 50)
COUNTS = (2, 4, 8, 20)
EXAMPLES = 160  # of all domains together, in a batch of the study of their number

PROTOCOL = """\
The paper's rho 0.05, and lam 10, since at the paper's 0.1 DISAM is SAM to a tenth of a
point (see the sweeps); the protocol of the data set otherwise, nothing tuned. The source
images keep their pictures and classes, and only what the method is told of their domains
changes: a share of them gets the label of another image, a share has no label and makes up
one domain more, or neighbours are merged to two domains. A batch has 32 images of each
domain that the method is told of, so it is larger with a domain more and smaller with two.
Imbalance: the first source domain keeps its images, the others 1/10 or 1/50 of theirs, and
a batch is drawn from all of them together, so that a domain may be absent from it. Number
of domains: all 1797 scans are dealt to 2, 4, 8 or 20 angles from 0 to 75 degrees, and to 90
degrees, which is unseen; 160 images in a batch whatever the number. Differences are from
SAM on the same images, paired by seed, p adjusted by Holm over a figure's points; half a
point does not matter."""


def measure(setting: Setting) -> Numbers:
    """One accuracy per seed for every condition."""
    groups = {}
    for data in setting.data:
        for condition, group in {**_changed(data), **_unequal(data)}.items():
            groups |= _with_methods(data, condition, group)
    if "rotated_digits" in setting.data:
        for condition, group in _numbers().items():
            groups |= _with_methods("rotated_digits", condition, group)
    found = run_groups(setting, groups)
    numbers: Numbers = {data: {} for data in setting.data}
    for (data, condition, name), rows in found.items():
        numbers[data].setdefault(condition, {})[name] = {
            "out_of_domain": per_seed(rows, last("out_of_domain_accuracy")),
            "spread": per_seed(rows, lambda outcome: float(spread(outcome).mean())),
        }
    return numbers


def _with_methods(data: str, condition: str, group: Group) -> dict:
    return {
        (data, condition, name): dataclasses.replace(
            group, method=method, overrides=(*group.overrides, *overrides)
        )
        for name, (method, overrides, _) in RUNS.items()
    }


def _changed(data: str) -> dict[str, Group]:
    sources = len(load_once(data).domains) - 1
    return {
        name: Group(data, "sam", spec=functools.partial(Spec, change=change))
        for name, change in CHANGES.items()
        if change != MERGED or sources > MERGED.amount
    }


def _unequal(data: str) -> dict[str, Group]:
    in_all = 32 * (len(load_once(data).domains) - 1)
    merged = (("batching", "merged"), ("batch_size", in_all))
    return {
        f"1 to {ratio}": Group(
            data,
            "sam",
            merged,
            spec=functools.partial(Spec, change=Change("imbalance", ratio)),
        )
        for ratio in RATIOS
    }


def _numbers() -> dict[str, Group]:
    groups = {}
    for count in COUNTS:
        angles = (*np.linspace(0, 75, count).tolist(), 90.0)
        groups[f"{count} domains"] = Group(
            "rotated_digits",
            "sam",
            (("batch_size", EXAMPLES // count),),
            unseen=("90",),
            spec=functools.partial(Spec, data_options=(("angles", angles),)),
        )
    return groups


FIGURES = {
    "labels": (tuple(CHANGES), "Wrong, missing and merged domain labels"),
    "imbalance": (tuple(f"1 to {r}" for r in RATIOS), "Imbalance of the source domains"),
    "count": (tuple(f"{c} domains" for c in COUNTS), "Number of source domains"),
}


def _of_figure(conditions: Numbers, names: tuple[str, ...]) -> dict[str, Numbers]:
    return {name: conditions[name] for name in names if name in conditions}


def draw(numbers: Numbers, out: Path) -> list[Figure]:
    """Accuracy under every condition."""
    figures = []
    for file, (names, title) in FIGURES.items():
        shown = {d: _of_figure(c, names) for d, c in numbers.items()}
        shown = {data: conditions for data, conditions in shown.items() if conditions}
        if not shown:
            continue
        figure, axes = panels(len(shown), width=3.6, height=3.2)
        for panel, (data, conditions) in zip(axes, shown.items(), strict=True):
            for i, (name, (method, _, marker)) in enumerate(RUNS.items()):
                errorbars(
                    panel,
                    np.arange(len(conditions)) + 0.14 * (i - 0.5),
                    [100 * np.array(c[name]["out_of_domain"]) for c in conditions.values()],
                    marker=marker,
                    ms=4,
                    linestyle="none",
                    color=color_of(method),
                    label=name,
                )
            turned = {"rotation": 35, "ha": "right"} if file == "labels" else {}
            panel.set_xticks(range(len(conditions)), list(conditions), fontsize=8, **turned)
            panel.set_title(data, fontsize=10)
        axes[0].set_ylabel("accuracy, unseen domain (%)")
        legend_below(figure, axes[0], 3)
        save(figure, out / f"{file}.png")
        caption = "Mean over the unseen domains; bars: 95 % intervals over seeds."
        figures.append(Figure(f"{file}.png", title, caption))
    return figures


def find(numbers: Numbers) -> list[Finding]:
    """Where DISAM gains on SAM, and where it loses."""
    return [
        finding
        for data, conditions in numbers.items()
        for names, _ in FIGURES.values()
        for finding in _find(data, _of_figure(conditions, names))
    ]


def _find(data: str, conditions: Numbers) -> list[Finding]:
    tests = {
        condition: paired(runs[OURS]["out_of_domain"], runs["SAM"]["out_of_domain"])
        for condition, runs in conditions.items()
    }
    adjusted = holm([test.p for test in tests.values()])
    return [
        Finding(
            f"{OURS}, is more accurate than SAM: {condition}",
            "ours",
            data,
            verdict(test, MARGIN, p),
            f"{test.text(100, 2, 'points')} (Holm p {p_text(p)})",
        )
        for (condition, test), p in zip(tests.items(), adjusted, strict=True)
    ]


def tables(numbers: Numbers) -> list[Table]:
    """Accuracy and spread under every condition."""
    rows = []
    for data, conditions in numbers.items():
        for condition, runs in conditions.items():
            for name, run in runs.items():
                found = estimate(100 * np.array(run["out_of_domain"]))
                rows.append(
                    [
                        data,
                        condition,
                        name,
                        found.interval(".1f"),
                        f"{np.mean(run['spread']):.4f}",
                    ]
                )
    columns = ("data", "condition", "method", "unseen %", "spread of the told domains")
    return [Table("Every condition, mean over seeds with its 95 % interval", columns, rows)]


STUDY = Study(
    "domain_labels",
    "What does DISAM need of the domain labels?",
    PROTOCOL,
    measure,
    draw,
    find,
    tables,
)
