"""What `tests/data/clip/record.py` recorded, as the tests ask for it."""

from pathlib import Path

import numpy as np

from tests.data.clip import made

DATA = Path(made.__file__).parent
RECORDED = np.load(DATA / "recorded.npz")
# Of features up to 7, both sides in float32: 20 times its rounding there, 2^-22 at most. A
# norm's epsilon of 1e-6, say, is 4e-2 off.
BOUND = 1e-5
MODELS = [name.removesuffix("/image") for name in RECORDED.files if name.endswith("/image")]


def state(model):
    """The weights of a recorded model, by its own names."""
    shapes = [tuple(map(int, s.split())) for s in RECORDED[f"{model}/shapes"]]
    return made.state(dict(zip(RECORDED[f"{model}/names"], shapes, strict=True)))


def assert_features_are_those(clip, model):
    """Of the images and texts of `made`, by the two calls that users make."""
    image = clip.image_features(made.images(clip.sizes.image_size))
    text = clip.text_features(made.TEXTS)
    np.testing.assert_allclose(image, RECORDED[f"{model}/image"], rtol=0, atol=BOUND)
    np.testing.assert_allclose(text, RECORDED[f"{model}/text"], rtol=0, atol=BOUND)
