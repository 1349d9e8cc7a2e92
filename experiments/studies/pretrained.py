"""The headline with a pretrained backbone: EfficientNet-Lite0, fine-tuned whole."""

import dataclasses
import itertools

from experiments.studies import accuracy
from experiments.studies.matrix import Group, last, per_seed, run_groups
from experiments.studies.runs import Setting
from experiments.studies.study import Numbers, Study
from experiments.studies.tuning import TUNING_SEED

DATA = "emoji_styles"
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
TRIALS = ((("learning_rate", 3e-4),), (("learning_rate", 1e-3),))

PROTOCOL = """\
EfficientNet-Lite0 with its ImageNet weights, fine-tuned whole on `emoji_styles` at 64
pixels with 8 images of each style in a batch, each style unseen in turn. Every run may
take 80 gradients of a batch, so ERM takes 80 steps and the others 40. rho 0.05, lam 0.1,
alpha 0.001 as the papers have them; the learning rate, 0.0003 or 0.001, chosen for each
method by the accuracy on the held-out parts of the source domains on a seed that is not
reported. Values, intervals and tests as in the study of accuracy."""


def measure(setting: Setting) -> Numbers:
    """Tunes the learning rate, trains, and keeps one accuracy per seed."""
    base = Group(DATA, "erm", BACKBONE, gradients=GRADIENTS)

    def group(method: str, trial: tuple, **changes: int) -> Group:
        return dataclasses.replace(
            base, method=method, overrides=(*BACKBONE, *trial), **changes
        )

    tried = run_groups(
        setting,
        {
            (method, trial): group(method, trial, first_seed=TUNING_SEED, seeds=1)
            for method, trial in itertools.product(accuracy.METHODS, TRIALS)
        },
    )

    def validation(method: str, trial: tuple) -> float:
        return per_seed(tried[method, trial], last("in_domain_accuracy"))[0]

    best = {
        method: max(TRIALS, key=lambda trial: validation(method, trial))
        for method in accuracy.METHODS
    }
    found = run_groups(setting, {m: group(m, trial) for m, trial in best.items()})
    numbers = {method: accuracy.kept(rows, best[method]) for method, rows in found.items()}
    return {f"{DATA}, EfficientNet-Lite0": {accuracy.TUNED: numbers}}


STUDY = Study(
    "pretrained",
    "And with a pretrained backbone?",
    PROTOCOL,
    measure,
    accuracy.draw,
    accuracy.find,
    accuracy.tables,
    data=(DATA,),
)
