"""The claims with a pretrained backbone: EfficientNet-Lite0, fine-tuned whole."""

import dataclasses
import functools
from pathlib import Path

from experiments.results.figures import label
from experiments.results.table import Table
from experiments.studies import accuracy, convergence, flatness
from experiments.studies.kit.matrix import Group, run_groups
from experiments.studies.kit.run import Spec
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Figure, Finding, Numbers, Study
from experiments.studies.kit.tuning import Overrides, choose

DATA = "emoji_styles"
WHERE = f"{DATA}, EfficientNet-Lite0"
BACKBONE = (
    ("model", "efficientnet_lite0"),
    ("weights", "package"),
    ("image_size", 64),
    ("batch_size", 8),
    ("optimizer", "adam"),
    ("weight_decay", 0.0),
    ("dropout", 0.2),
)
GRADIENTS = 80
TRIALS = tuple((("learning_rate", rate),) for rate in (3e-4, 1e-3, 3e-3))
FLATNESS = ("unseen_gradient_variance", "unseen_sharpness")
PARTS = {"accuracy": accuracy, "convergence": convergence, "flatness": flatness}

PROTOCOL = """\
EfficientNet-Lite0 with its ImageNet weights, fine-tuned whole on `emoji_styles` at 64
pixels with 8 images of each style in a batch, each style unseen in turn, with the papers'
rho 0.05, lam 0.1 and alpha 0.001. At equal cost every run may take 80 gradients of a batch,
so ERM takes 80 steps and the others 40, and each method has three trials, learning rate
0.0003, 0.001 or 0.003, chosen by the accuracy on the held-out parts of the source domains
on a seed that is not reported. After equal steps, 40, every method has the learning rate
that ERM chose; convergence (windows of four steps) and flatness at the end, on 128 images
in 8 batches, are of those runs. Values, intervals and tests as in the studies of accuracy,
convergence and flatness."""


def measure(setting: Setting) -> Numbers:
    """Tunes the learning rate, trains, and keeps what the three studies keep."""
    base = Group(DATA, "erm", BACKBONE, gradients=GRADIENTS)

    def group(method: str, trial: Overrides) -> Group:
        return dataclasses.replace(base, method=method, overrides=(*BACKBONE, *trial))

    best = choose(
        setting, {m: {trial: group(m, trial) for trial in TRIALS} for m in accuracy.METHODS}
    )
    equal_cost = {
        (accuracy.TUNED, method): group(method, trial) for method, trial in best.items()
    }
    equal_steps = {
        (accuracy.EQUAL_STEPS, name): dataclasses.replace(
            group(method, (*best["erm"], *overrides)),
            equal_steps=True,
            spec=functools.partial(Spec, probes=("scores", "unseen_flatness"), log_every=4),
        )
        for name, (method, overrides, _) in convergence.RUNS.items()
    }
    found = run_groups(setting, {**equal_cost, **equal_steps})
    runs = {name: found[accuracy.EQUAL_STEPS, name] for name in convergence.RUNS}
    accuracies = {
        accuracy.TUNED: {
            method: accuracy.numbers_of(found[accuracy.TUNED, method], best[method])
            for method in accuracy.METHODS
        },
        accuracy.EQUAL_STEPS: {
            method: accuracy.numbers_of(runs[label(method)], best["erm"])
            for method in accuracy.METHODS[:3]
        },
    }
    flat = {name: flatness.over_training(rows, FLATNESS) for name, rows in runs.items()}
    return {
        "accuracy": {WHERE: accuracies},
        "convergence": {WHERE: {n: convergence.curves(rows) for n, rows in runs.items()}},
        "flatness": {WHERE: flat},
    }


def draw(numbers: Numbers, out: Path) -> list[Figure]:
    """The figures of accuracy and of convergence; flatness is measured once."""
    return [
        *accuracy.draw(numbers["accuracy"], out),
        *convergence.draw(numbers["convergence"], out),
    ]


def find(numbers: Numbers) -> list[Finding]:
    """The claims of the three studies."""
    return [f for part, study in PARTS.items() for f in study.find(numbers[part])]


def tables(numbers: Numbers) -> list[Table]:
    """The tables of the three studies."""
    return [t for part, study in PARTS.items() for t in study.tables(numbers[part])]


STUDY = Study(
    "pretrained",
    "And with a pretrained backbone?",
    PROTOCOL,
    measure,
    draw,
    find,
    tables,
    data=(DATA,),
)
