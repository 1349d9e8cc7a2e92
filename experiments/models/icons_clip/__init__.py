"""A small CLIP of our own, trained on free icons and their English names.

`experiments.data.icon_pairs` makes the pairs, and `train.py` the weights.
"""

from pathlib import Path

from experiments.models.clip import Clip, load_clip

WEIGHTS = Path(__file__).with_name("icons_clip.safetensors")
NOTICES = Path(__file__).with_name("LICENSES.md")
ACTIVATION = "gelu"
TEMPLATE = "a picture of a {}."


def icons_clip() -> Clip:
    """The model with the weights that come with this package."""
    return load_clip(WEIGHTS, activation=ACTIVATION)
