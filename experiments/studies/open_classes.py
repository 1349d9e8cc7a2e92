"""Prompts, fine-tuning and LoRA on a CLIP, and classes that no image was trained on."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.run import make_config
from experiments.results.figures import color_of, save
from experiments.results.statistics import estimate
from experiments.results.table import Table
from experiments.studies.kit.claims import OURS, PAPERS, Arm, Claim
from experiments.studies.kit.forest import draw_forest
from experiments.studies.kit.matrix import (
    Group,
    last,
    run_groups,
    spread,
    values_of,
)
from experiments.studies.kit.plots import legend_below, panels
from experiments.studies.kit.run import Spec
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Curves, Figure, Measured, Study
from experiments.studies.kit.tuning import RHO, Tuned, tune
from experiments.studies.kit.values import Value, Values

DATA = "emoji_concepts"
BASE, NEW, HARMONIC = "base_accuracy", "new_accuracy", "harmonic_accuracy"
TOTAL, HELD = "out_of_domain_accuracy", "in_domain_accuracy"
MEASURED = (BASE, NEW, HARMONIC, TOTAL, HELD)
ZERO, HALF, ERM, SAM, DISAM = "zero-shot", "ERM, equal steps", "ERM", "SAM", "DISAM"
AVERAGED = ", BMA"  # after an arm's name: its weights averaged over the steps
# title -> (name, what is scored of an arm: its last step, or its averaged weights)
TUNINGS = {"CoOp": ("coop", ""), "CLIPOOD": ("clipood", AVERAGED), "LoRA": ("lora", "")}
OPEN = (("model", "icons_clip"), ("open_classes", 0.5))
BOTH = functools.partial(Spec, probes=("scores", "averaged_scores"))

PROTOCOL = """\
The small CLIP of this package, `icons_clip`, is told 687 emoji by their English names. The
first half of the names, sorted, are the base classes and the others are new: training sees
no image of them, and at the test all 687 stand to choice. One style is unseen in turn, and
both halves are scored on its images. `icons_clip` has seen none of the drawings, and has
read most of the names. What is tuned are prompts (CoOp, four vectors), the image tower
(CLIPOOD: margin softmax, and the Beta moving average of the weights, BMA, is scored) or
low-rank changes of the attentions (LoRA, rank 8); of CoOp and LoRA the last step is scored.
BMA is looked at beside the last step for all three.

Every run may take 100 gradients of a batch, so ERM takes twice the steps of SAM and DISAM;
"ERM, equal steps" is what the paper compares with. Both ERMs and SAM are tuned alike, each
on its own, from the protocol's learning rate (and rho 0.05) to the best neighbour (by 10/3,
and by 2) until none is better, judged at the last step by held-out images of base classes
in the sources, every style unseen once, on three seeds that are not reported. DISAM has
SAM's learning rate and rho and the paper's lam, 0.1, so that the two differ in the
mechanism alone.

The halves are the same for all seeds, and zero-shot is one number: an interval tells what
other batches, hold-outs and first weights would give, and nothing of other names. And
5.0 million weights that saw 48 thousand icons are not OpenAI's CLIP: zero-shot is far lower
here, which leaves more for tuning to gain."""


def measure(setting: Setting) -> Measured:
    """Tunes, and trains every arm."""
    values: list[Value] = []
    curves: Curves = {}
    for title in TUNINGS:
        where = f"{DATA}, {title}"
        tuned = {
            name: tune(setting, {name: group}, _dials(group))[name]
            for name, group in tuned_arms(setting, title).items()
        }
        groups = arms(setting, title, tuned)
        for name, rows in run_groups(setting, groups).items():
            scored = {"": ""} if name == ZERO else {"": "", AVERAGED: "averaged_"}
            for suffix, prefix in scored.items():
                reads = {measure: last(prefix + measure) for measure in MEASURED}
                values += values_of(where, name + suffix, groups[name], rows, reads)
            if name != ZERO:
                told = {"spread": _mean_spread(rows)} | _chosen(tuned.get(name))
                curves.setdefault(where, {})[name] = told
    return Measured(values, curves)


def tuned_arms(setting: Setting, title: str) -> dict[str, Group]:
    """The arms that are tuned, each on its own, of a key of `TUNINGS`."""
    gradients = setting.gradients[DATA]
    options = (*OPEN, ("tuning", TUNINGS[title][0]))
    erm = Group(DATA, "erm", options, gradients=gradients, spec=BOTH)
    return {
        HALF: dataclasses.replace(erm, gradients=gradients // 2),
        ERM: erm,
        SAM: dataclasses.replace(erm, method="sam"),
    }


def _dials(group: Group) -> Any:
    """Its learning rate, from the protocol's on; and rho, where it has one."""
    first = make_config(
        data=DATA, method=group.method, unseen="", seed=0, overrides=dict(group.overrides)
    )
    rate = ("learning_rate", first.preset.learning_rate, 10 / 3)
    return {"erm": (rate,), "sam": (rate, RHO)}


def arms(setting: Setting, title: str, tuned: dict[str, Tuned]) -> dict[str, Group]:
    """Every arm, with what was found for those that were tuned; DISAM is as SAM."""
    made = {
        name: dataclasses.replace(group, overrides=group.overrides + tuned[name].overrides)
        for name, group in tuned_arms(setting, title).items()
    }
    nothing = Group(DATA, "erm", (*OPEN, ("tuning", "zero_shot")), equal_steps=True)
    disam = dataclasses.replace(made[SAM], method="disam")
    return {ZERO: nothing, **made, DISAM: disam}


def _mean_spread(rows: Any) -> float:
    ended = [outcome for row in rows for outcome in row if not outcome["diverged"]]
    return float(np.mean([spread(outcome).mean() for outcome in ended]))


def _chosen(tuned: Tuned | None) -> dict[str, Any]:
    if tuned is None:
        return {}
    chosen = {"chosen": dict(tuned.overrides)}
    return {**chosen, "trials": tuned.trials, "inside": tuned.inside}


# (larger, smaller, measure, the claim, source, whose, keys of TUNINGS); {} is the tuning
ALL = tuple(TUNINGS)
CLAIMS = (
    (HALF, ZERO, BASE, "{} lifts base classes above zero-shot",
     "analogue of DISAM, Table 3: CoOp 74.4, CLIPOOD 76.0 against 72.6", PAPERS, ALL),
    (ZERO, HALF, NEW, "{} costs accuracy on new classes",
     "analogue of DISAM, Table 3: CoOp 66.3, CLIPOOD 66.9 against 67.4", PAPERS, ALL),
    (SAM, HALF, NEW, "With {} SAM is more accurate on new classes than ERM",
     "analogue of DISAM, Table 3: CoOp 67.9 against 66.3", PAPERS, ("CoOp",)),
    (DISAM, HALF, NEW, "With {} DISAM is more accurate on new classes than ERM",
     "analogue of DISAM, Table 3: CoOp 69.6 against 66.3, CLIPOOD 69.7 against 66.9",
     PAPERS, ALL),
    (DISAM, SAM, NEW, "With {} DISAM is more accurate on new classes than SAM",
     "analogue of DISAM, Table 3: CoOp 69.6 against 67.9, CLIPOOD 69.7 against 66.9",
     PAPERS, ALL),
    (SAM, HALF, NEW, "With {} SAM is more accurate on new classes than ERM", "ours", OURS,
     ("CLIPOOD", "LoRA")),
    (SAM, ERM, NEW, "With {} SAM is more accurate on new classes than ERM at equal cost",
     "ours: the same at equal cost", OURS, ALL),
    (DISAM, ERM, NEW,
     "With {} DISAM is more accurate on new classes than ERM at equal cost",
     "ours: the same at equal cost", OURS, ALL),
)  # fmt: skip
GIVES_BACK = (
    (NEW, "BMA gives back accuracy on new classes"),
    (BASE, "BMA costs none on base classes: it is more accurate there too"),
    (HARMONIC, "BMA has the better harmonic mean of both"),
)
OF_BMA = "ours: what Shu et al., ICML 2023, average for"


def claims(values: Values) -> list[Claim]:
    """Those of methods and zero-shot, and those of BMA, a family each for every tuning."""
    made = []
    for title, (_, scored) in TUNINGS.items():
        where = f"{DATA}, {title}"

        def arm(name: str, suffix: str, where: str = where) -> Arm:
            return Arm(where, name if name == ZERO else name + suffix)

        made += [
            Claim(text.format(title), source, whose, f"{where}, {LABELS[measure]}", measure,
                  arm(larger, scored), arm(smaller, scored), family=where)
            for larger, smaller, measure, text, source, whose, those in CLAIMS
            if title in those
        ]  # fmt: skip
        made += [
            Claim(f"{text} ({name})", OF_BMA, OURS, f"{where}, {LABELS[measure]}", measure,
                  arm(name, AVERAGED), arm(name, ""), family=f"{where}, BMA")
            for measure, text in GIVES_BACK
            for name in (HALF, SAM)
        ]  # fmt: skip
    return made


LABELS = {BASE: "base classes", NEW: "new classes", HARMONIC: "harmonic mean"}


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """The differences on new classes, and where every arm stands on both halves."""
    forest = draw_forest(
        claims(values),
        values,
        NEW,
        out / "new_classes.png",
        "Paired differences in accuracy on new classes of the unseen style",
    )
    return [_draw_halves(values, out / "halves.png"), forest]


STYLES = {
    HALF: ("#8c8c8c", "^"),
    ERM: ("erm", "v"),
    SAM: ("sam", "o"),
    DISAM: ("disam", "s"),
}


def _draw_halves(values: Values, file: Path) -> Figure:
    figure, axes = panels(len(TUNINGS), width=2.0, height=3.2, sharex=True, sharey=True)
    for panel, title in zip(axes, TUNINGS, strict=True):
        where = f"{DATA}, {title}"

        def at(name: str, where: str = where) -> tuple[Any, Any]:
            return tuple(
                estimate(100 * values.per_seed(where, name, measure))
                for measure in (BASE, NEW)
            )  # pyright: ignore[reportReturnType]

        base, new = at(ZERO)
        panel.plot(base.mean, new.mean, "*", color="black", ms=9, label=ZERO)
        panel.axhline(new.mean, color="#bbbbbb", lw=0.8, zorder=0)
        panel.axvline(base.mean, color="#bbbbbb", lw=0.8, zorder=0)
        for name, (color, marker) in STYLES.items():
            color = color if color.startswith("#") else color_of(color)
            for suffix, filled in (("", False), (AVERAGED, True)):
                base, new = at(name + suffix)
                panel.errorbar(
                    base.mean,
                    new.mean,
                    xerr=[[base.mean - base.low], [base.high - base.mean]],
                    yerr=[[new.mean - new.low], [new.high - new.mean]],
                    fmt=marker,
                    ms=5,
                    color=color,
                    mfc=color if filled else "white",
                    elinewidth=0.8,
                    label=name if filled else None,
                )
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("base classes (%)")
    axes[0].set_ylabel("new classes (%)")
    legend_below(figure, axes[0], 3, fontsize=9)
    save(figure, file)
    return Figure(
        file.name,
        "Accuracy on base and on new classes of the unseen style, among all 687 names",
        "Means over seeds and unseen styles, with 95 % intervals. Open: the last step; "
        "filled: the weights averaged over the steps (BMA). The star is zero-shot, and the "
        "lines go through it. Where SAM cannot be seen, DISAM lies on it.",
    )


def tables(values: Values, curves: Curves) -> list[Table]:
    """Accuracies of every arm, and what was chosen."""
    rows = []
    for where in values.conditions:
        for name in values.methods(where):
            cells = [
                estimate(100 * values.per_seed(where, name, measure)).interval(".1f")
                for measure in MEASURED
            ]
            rows.append([where.removeprefix(f"{DATA}, "), name, *cells])
    columns = (
        "tuning", "arm", "base classes %", "new classes %", "harmonic mean %", "total %",
        "held-out images of the sources %",
    )  # fmt: skip
    accuracies = Table(
        "Accuracy on the unseen style, among all names; mean over seeds with its 95 % "
        "interval",
        columns,
        rows,
    )
    chosen = [
        [
            where.removeprefix(f"{DATA}, "),
            name,
            ", ".join(f"{k} {v:g}" for k, v in told.get("chosen", {}).items()) or "as SAM",
            f"{told.get('trials', 0)}"
            + (
                "" if told.get("inside", True) else ", stopped before the end of the search"
            ),
            f"{told['spread']:.2f}",
        ]
        for where, found in curves.items()
        for name, told in found.items()
    ]
    columns = ("tuning", "arm", "chosen", "trials", "spread of the domain losses, nats")
    return [
        accuracies,
        Table("What was chosen, and the spread that there was", columns, chosen),
    ]


STUDY = Study(
    "open_classes",
    "Classes that no image was seen of: what do prompts, fine-tuning and LoRA cost there?",
    PROTOCOL,
    measure,
    claims,
    draw,
    tables,
    data=(DATA,),
)
