"""Per-domain convergence of ERM, SAM and DISAM: the paper's Fig. 1b, 3a, 3b, 7 and 8."""

import functools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from disam_jax import diagnostics
from experiments.results.figures import DOMAIN_STYLES, color_of, legend, save
from experiments.results.statistics import (
    Estimate,
    estimate,
    p_text,
    ratio_text,
    verdict,
)
from experiments.results.table import Table
from experiments.studies.kit.matrix import Group, Outcome, mean_loss, run_groups, spread
from experiments.studies.kit.plots import band, legend_below, log_ticks, panels
from experiments.studies.kit.run import Spec
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Figure, Finding, Numbers, Study

# name -> (method, overrides, line style)
RUNS = {
    "ERM": ("erm", (), "-"),
    "SAM": ("sam", (), "-"),
    "DISAM": ("disam", (), "-"),
    "DISAM, lam 10": ("disam", (("lam", 10.0),), "--"),
}
MARGIN = 0.02  # of the value compared with: 2 %
EARLY = 0.25  # share of the training that is called early

PROTOCOL = """\
ERM, SAM and DISAM with the paper's rho 0.05 and lam 0.1, and DISAM with lam 10, in as many
steps each, every domain unseen in turn; nothing tuned, for the claims are about the papers'
values. A domain's convergence is its training loss, the mean over windows of ten steps; the
spread is the standard deviation over the source domains (nats). Compared are means over
the training, or over its first quarter (early), as ratios to the other method's, seed by
seed; a difference below 2 % does not matter."""

CLAIMS = (
    # a's value is larger than b's
    ("SAM widens the spread of the domain losses early on", "DISAM, Fig. 1b",
     "early_spread", "SAM", "ERM"),
    ("DISAM narrows SAM's spread", "DISAM, Fig. 1b and 7",
     "spread", "SAM", "DISAM"),
    ("DISAM with lam 10 narrows SAM's spread", "ours",
     "spread", "SAM", "DISAM, lam 10"),
    ("DISAM narrows SAM's spread early on", "DISAM, Fig. 7",
     "early_spread", "SAM", "DISAM"),
    ("DISAM's training loss falls faster than SAM's", "DISAM, Fig. 3a and 3b",
     "loss", "SAM", "DISAM"),
    ("DISAM with lam 10: its training loss falls faster than SAM's", "ours",
     "loss", "SAM", "DISAM, lam 10"),
    ("ERM's training loss falls faster than DISAM's", "DISAM, Fig. 8",
     "loss", "DISAM", "ERM"),
)  # fmt: skip


def groups(setting: Setting) -> dict[tuple[str, str], Group]:
    """(data, name) -> its runs; the study of flatness looks at the same ones."""
    return {
        (data, name): Group(
            data,
            method,
            overrides,
            equal_steps=True,
            spec=functools.partial(
                Spec, looks=5, probes=("scores", "unseen_sharpness", "source_sharpness")
            ),
        )
        for data in setting.data
        for name, (method, overrides, _) in RUNS.items()
    }


def measure(setting: Setting) -> Numbers:
    """Curves, one per seed, as means over unseen domains; domains by themselves."""
    found = run_groups(setting, groups(setting))
    numbers: Numbers = {}
    for (data, name), rows in found.items():
        numbers.setdefault(data, {})[name] = curves(rows)
    return numbers


def curves(rows: list[list[Outcome]]) -> Numbers:
    """What is kept of a method's runs: loss and spread, [seeds, T], and the domains'."""
    return {
        "steps": rows[0][0]["steps"],
        "spread": _rounded([np.mean([spread(o) for o in row], 0) for row in rows]),
        "loss": _rounded([np.mean([mean_loss(o) for o in row], 0) for row in rows]),
        # The last unseen domain's, whose sources are drawn by themselves.
        "domains": rows[0][-1]["sources"],
        "losses": _rounded(np.mean([row[-1]["losses"] for row in rows], 0)),
    }


def _rounded(values: object) -> list:
    return np.round(np.asarray(values), 5).tolist()


def draw(numbers: Numbers, out: Path) -> list[Figure]:
    """Losses and spreads of the methods; the source domains by themselves."""
    figures = []
    for quantity, what, title in (
        ("loss", "mean training loss (nats)", "Training loss of the source domains"),
        ("spread", "std of the domain losses (nats)", "Spread of the domain losses"),
    ):
        figure, axes = panels(len(numbers))
        for panel, (data, runs) in zip(axes, numbers.items(), strict=True):
            for name, run in runs.items():
                line(panel, run["steps"], run[quantity], name)
            panel.set_title(data, fontsize=10)
            panel.set_xlabel("step")
            if quantity == "loss":
                panel.set_yscale("log")
                log_ticks(panel.yaxis)
            else:
                panel.set_ylim(bottom=0)
        axes[0].set_ylabel(what)
        legend_below(figure, axes[0], 4)
        save(figure, out / f"{quantity}.png")
        caption = (
            "Mean over the unseen domains; bands: 95 % intervals over seeds. Each line is "
            "thinner than those under it, so that equal ones show."
        )
        figures.append(Figure(f"{quantity}.png", title, caption))
    for data, runs in numbers.items():
        figures.append(_draw_domains(data, runs, out))
    return figures


def line(panel: Any, steps: list[int], values: list[list[float]], name: str) -> None:
    """Draws a run of `RUNS`; each is thinner than those under it, so that all show."""
    method, _, style = RUNS[name]
    width = 3.2 - 0.7 * list(RUNS).index(name)
    options = {"color": color_of(method), "linestyle": style, "lw": width, "label": name}
    band(panel, steps, np.array(values), **options)


def _draw_domains(data: str, runs: Numbers, out: Path) -> Figure:
    shown = {name: runs[name] for name in ("ERM", "SAM", "DISAM", "DISAM, lam 10")}
    figure, axes = plt.subplots(
        2, len(shown), figsize=(9.2, 4.4), sharex=True, sharey="row", layout="constrained"
    )
    for column, (name, run) in enumerate(shown.items()):
        losses = np.array(run["losses"])
        scaled = np.asarray(diagnostics.scaled_losses(losses))
        for row, values in enumerate((losses, scaled)):
            for i, domain in enumerate(run["domains"]):
                axes[row, column].plot(
                    run["steps"],
                    values[:, i],
                    linestyle=DOMAIN_STYLES[i % len(DOMAIN_STYLES)],
                    color=color_of(RUNS[name][0]),
                    lw=1.2,
                    label=domain,
                )
        axes[0, column].set_title(name, fontsize=10)
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("training loss (nats)")
    axes[1, 0].set_ylabel("scaled to [0, 1]")
    axes[0, 0].set_ylim(bottom=0)
    legend(axes[0, -1], fontsize=8, handlelength=2.6, title="source domain")
    file = f"domains_{data.partition(',')[0]}.png"
    save(figure, out / file)
    return Figure(
        file,
        f"Convergence of each source domain of {data}",
        "Above, the losses; below, each less its minimum and divided by its maximum after "
        "that, as the paper scales them. The last domain is unseen; means over seeds.",
    )


def ratio(numbers: Numbers, data: str, quantity: str, a: str, b: str) -> Estimate:
    """The estimate of log(a / b) of a quantity's mean over the training."""
    name = quantity.removeprefix("early_")

    def mean(run: str) -> np.ndarray:
        values = np.array(numbers[data][run][name])
        until = len(values[0]) if name == quantity else max(1, int(EARLY * len(values[0])))
        return values[:, :until].mean(1)

    return estimate(np.log(mean(a) / mean(b)))


def find(numbers: Numbers) -> list[Finding]:
    """Every claim on every data set."""
    findings = []
    for data in numbers:
        for claim, source, quantity, a, b in CLAIMS:
            test = ratio(numbers, data, quantity, a, b)
            findings.append(
                Finding(
                    claim,
                    source,
                    data,
                    verdict(test, MARGIN),
                    f"{a} / {b} = {ratio_text(test)}, p {p_text(test.p)}",
                )
            )
    return findings


def tables(numbers: Numbers) -> list[Table]:
    """Means over the training."""
    rows = []
    for data, runs in numbers.items():
        for name, run in runs.items():
            losses, spreads = np.array(run["loss"]), np.array(run["spread"])
            early = max(1, int(EARLY * losses.shape[1]))
            rows.append(
                [
                    data,
                    name,
                    f"{losses.mean():.3f}",
                    f"{losses[:, -1].mean():.3f}",
                    f"{spreads[:, :early].mean():.4f}",
                    f"{spreads.mean():.4f}",
                ]
            )
    columns = ("data", "run", "mean loss", "last loss", "early spread", "mean spread")
    return [Table("Means over seeds, unseen domains and steps (nats)", columns, rows)]


STUDY = Study(
    "convergence",
    "Does SAM drive the domains apart, and does DISAM bring them together?",
    PROTOCOL,
    measure,
    draw,
    find,
    tables,
)
