"""Per-domain convergence of ERM, SAM and DISAM: the paper's Fig. 1b, 3a, 3b, 7 and 8."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.results.figures import color_of, save
from experiments.results.statistics import estimate
from experiments.results.table import Table
from experiments.studies.kit.claims import OURS, PAPERS, Arm, Claim
from experiments.studies.kit.margins import MEASURES
from experiments.studies.kit.matrix import (
    Group,
    Outcome,
    mean_loss,
    run_groups,
    spread,
    values_of,
)
from experiments.studies.kit.plots import band, legend_below, log_ticks, ratio_ticks
from experiments.studies.kit.run import Spec, load_once
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Curves, Figure, Measured, Study
from experiments.studies.kit.values import Values

LAM_10 = "DISAM, lam 10"
# name -> (method, overrides, line style)
RUNS = {
    "ERM": ("erm", (), "-"),
    "SAM": ("sam", (), "-"),
    "DISAM": ("disam", (), "-"),
    LAM_10: ("disam", (("lam", 10.0),), "--"),
}
DATA = ("emoji_styles", "rotated_digits")
PROBES = ("scores", "unseen_sharpness", "source_sharpness", "domain_gradients")
# For the runs of other studies too.
LOOKED_AT = functools.partial(Spec, looks=5, probes=PROBES)
AT_THE_END = functools.partial(Spec, probes=PROBES)
EARLY = 0.25  # share of the training that is called early

PROTOCOL = """\
ERM, SAM and DISAM with the paper's rho 0.05 and lam 0.1, and DISAM with lam 10, in as many
steps each, every domain unseen in turn; nothing tuned, for the claims are about the papers'
values. A domain's convergence is its training loss, the mean over windows of ten steps; the
spread is the standard deviation over the source domains (nats), which sampling a batch
widens for all methods alike. Compared are means over the training, or over its first
quarter (early), as ratios, seed by seed."""

# measure, larger, smaller, claim, source, whose
CLAIMS = (
    ("early_spread", "SAM", "ERM", "SAM widens ERM's spread of the domain losses early on",
     "analogue of DISAM, Fig. 1b", PAPERS),
    ("mean_spread", "SAM", "DISAM", "DISAM narrows SAM's spread",
     "analogue of DISAM, Fig. 7", PAPERS),
    ("early_spread", "SAM", "DISAM", "DISAM narrows SAM's spread early on",
     "analogue of DISAM, Fig. 7", PAPERS),
    ("mean_spread", "SAM", LAM_10, "DISAM with lam 10 narrows SAM's spread",
     "ours: the same at a lam that turns more", OURS),
    ("mean_loss", "SAM", "DISAM", "DISAM's training loss falls faster than SAM's",
     "analogue of DISAM, Fig. 3a and 3b", PAPERS),
    ("mean_loss", "SAM", LAM_10, "DISAM with lam 10: its loss falls faster than SAM's",
     "ours: the same at a lam that turns more", OURS),
    ("mean_loss", "DISAM", "ERM", "ERM's training loss falls faster than DISAM's",
     "analogue of DISAM, Fig. 8", PAPERS),
)  # fmt: skip


def groups(setting: Setting) -> dict[tuple[str, str], Group]:
    """(data, name) -> its runs, which other studies look at too."""
    return {
        (data, name): Group(data, method, overrides, equal_steps=True, spec=LOOKED_AT)
        for data in setting.data
        if data in DATA
        for name, (method, overrides, _) in RUNS.items()
    }


def _early(values: np.ndarray) -> np.ndarray:
    return values[: max(1, int(EARLY * len(values)))]


COMPARED: dict[str, Callable[[Outcome], float]] = {
    "mean_spread": lambda outcome: float(np.mean(spread(outcome))),
    "early_spread": lambda outcome: float(np.mean(_early(spread(outcome)))),
    "mean_loss": lambda outcome: float(np.mean(mean_loss(outcome))),
}


def measure(setting: Setting) -> Measured:
    """Means over the training, and curves."""
    asked = groups(setting)
    found = run_groups(setting, asked)
    values, curves = [], {}
    for (data, name), rows in found.items():
        values += values_of(data, name, asked[data, name], rows, COMPARED)
        curves.setdefault(data, {})[name] = curves_of(data, rows)
    return Measured(values, curves)


def curves_of(data: str, rows: list[list[Outcome]]) -> Curves:
    """Loss and spread, [seeds, T], means over the unseen domains; each split's losses."""
    splits = {
        unseen: {
            "sources": rows[0][i]["sources"],
            "losses": _rounded(np.mean([row[i]["losses"] for row in rows], 0)),
        }
        for i, unseen in enumerate(load_once(data).domains)
    }
    return {
        "steps": rows[0][0]["steps"],
        "spread": _rounded([np.mean([spread(o) for o in row], 0) for row in rows]),
        "loss": _rounded([np.mean([mean_loss(o) for o in row], 0) for row in rows]),
        "splits": splits,
    }


def _rounded(values: object) -> list:
    return np.round(np.asarray(values), 5).tolist()


def claims(values: Values) -> list[Claim]:
    """Every claim on every data set."""
    return [
        Claim(text, source, whose, data, name, Arm(data, larger), Arm(data, smaller))
        for data in values.conditions
        for name, larger, smaller, text, source, whose in CLAIMS
    ]


def draw(values: Values, curves: Curves, out: Path) -> list[Figure]:
    """The methods beside SAM over the training, and the source domains of a split."""
    figures = [_draw_beside_sam(curves, out)]
    return [*figures, *(_draw_domains(data, runs, out) for data, runs in curves.items())]


def _draw_beside_sam(curves: Curves, out: Path) -> Figure:
    figure, axes = plt.subplots(
        2, len(curves), figsize=(6.4, 5), layout="constrained", squeeze=False,
        sharex="col", sharey="row",
    )  # fmt: skip
    for column, (data, runs) in enumerate(curves.items()):
        for panel, quantity in zip(axes[:, column], ("spread", "loss"), strict=True):
            sam = np.log(runs["SAM"][quantity])
            for name in ("ERM", "DISAM", LAM_10):
                ratio = np.log(runs[name][quantity]) - sam
                line(panel, runs[name]["steps"], ratio, name)
            margin = MEASURES[f"mean_{quantity}"].margin
            panel.axhspan(-margin, margin, color="#bbbbbb", lw=0, zorder=0)
            panel.axhline(0, color="black", lw=0.7, zorder=0)
        axes[0, column].set_title(data, fontsize=10)
        axes[1, column].set_xlabel("step")
    for panel in axes[:, 0]:
        ratio_ticks(panel.yaxis)
    axes[0, 0].set_ylabel("spread, times SAM's")
    axes[1, 0].set_ylabel("loss, times SAM's")
    legend_below(figure, axes[0, 0], 3)
    save(figure, out / "beside_sam.png")
    return Figure(
        "beside_sam.png",
        "Spread and mean of the domain losses, as ratios to SAM's",
        "The ratio at every step, seed by seed, of means over the unseen domains; bands: "
        "95 % intervals. SAM is the line at 1; shaded: ratios that do not matter.",
    )


def line(panel: Any, steps: list[int], values: Any, name: str) -> None:
    """Draws a run of `RUNS` with its band, [seeds, T]."""
    method, _, style = RUNS[name]
    options = {"color": color_of(method), "linestyle": style, "lw": 1.6, "label": name}
    band(panel, steps, np.asarray(values), **options)


def widest(runs: Curves) -> str:
    """The unseen domain whose sources lie apart most, over SAM's training."""
    splits = runs["SAM"]["splits"]
    return max(splits, key=lambda unseen: np.std(splits[unseen]["losses"], axis=1).mean())


def _draw_domains(data: str, runs: Curves, out: Path) -> Figure:
    unseen = widest(runs)
    domains = runs["SAM"]["splits"][unseen]["sources"]
    columns = min(len(domains), 3)
    rows = -(-len(domains) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(6.4, 2.2 * rows + 0.6), layout="constrained",
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    for i, (panel, domain) in enumerate(zip(axes.flat, domains, strict=False)):
        for name, run in runs.items():
            method, _, style = RUNS[name]
            losses = np.array(run["splits"][unseen]["losses"])[:, i]
            options = {"color": color_of(method), "linestyle": style, "label": name}
            panel.plot(run["steps"], losses, lw=1.3, **options)
        panel.set_title(domain, fontsize=10)
        panel.set_yscale("log")
        log_ticks(panel.yaxis)
        if i + columns >= len(domains):  # nothing stands below it
            panel.set_xlabel("step")
            panel.tick_params(labelbottom=True)
    for panel in axes.flat[len(domains) :]:
        panel.set_axis_off()
    for panel in axes[:, 0]:
        panel.set_ylabel("training loss (nats)")
    legend_below(figure, axes[0, 0], 4)
    file = f"domains_{data}.png"
    save(figure, out / file)
    return Figure(
        file,
        f"Convergence of each source domain of {data}, {unseen} unseen",
        "The split whose sources lie apart most. Means over seeds; logarithmic axis.",
    )


def tables(values: Values, curves: Curves) -> list[Table]:
    """Means over the training."""
    rows = [
        [
            data,
            name,
            *(
                estimate(values.per_seed(data, name, what)).interval(".4f")
                for what in COMPARED
            ),
        ]
        for data in values.conditions
        for name in values.methods(data)
    ]
    columns = ("data", "run", "mean spread", "early spread", "mean loss")
    caption = "Mean over seeds and unseen domains with its 95 % interval (nats)"
    return [Table(caption, columns, rows)]


STUDY = Study(
    "convergence",
    "Does SAM drive the domains apart, and does DISAM bring them together?",
    PROTOCOL,
    measure,
    claims,
    draw,
    tables,
    data=DATA,
)
