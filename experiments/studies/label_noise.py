"""Wrong labels in the sources: the strength that SAM is known for."""

from experiments.studies.accuracy import (
    ARMS,
    claims,
    draw,
    measure_conditions,
    tables,
)
from experiments.studies.kit.matrix import Group
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import Measured, Study

SHARE = 0.4
DATA = ("emoji_styles", "rotated_digits")

PROTOCOL = """\
As the study of accuracy, with 40 % wrong labels in the training images, of all source
domains or, on `emoji_styles`, of the first one alone: each image is mislabelled by
itself, as any other class. Every method is tuned anew under each condition, by held-out
images of the sources, whose labels are right (wrong ones, drawn in the same way, would
rank trials alike but for their noise). No label that is scored is wrong."""


def measure(setting: Setting) -> Measured:
    """Tunes and trains under every condition."""
    noise = ("label_noise", SHARE)
    conditions = {}
    for data in setting.data:
        conditions[f"{data}, 40 % wrong labels in all sources"] = Group(data, "", (noise,))
    if "emoji_styles" in setting.data:
        conditions["emoji_styles, 40 % wrong labels in one source"] = Group(
            "emoji_styles", "", (noise, ("noisy_sources", "first"))
        )
    return measure_conditions(setting, conditions, tuple(ARMS)[:5])


STUDY = Study(
    "label_noise",
    "Where labels are wrong: the strength that SAM is known for?",
    PROTOCOL,
    measure,
    claims,
    draw,
    tables,
    data=DATA,
    headline=True,
)
