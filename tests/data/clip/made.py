"""Sizes, inputs and weights of the recorded CLIPs, the same for PyTorch and for JAX."""

import numpy as np

from tests.data.backbones import made

WIDE = dict(width=128, depth=2, patch=16, size=48, vocabulary=600, length=20, embed=32)
TINY = dict(width=64, depth=1, patch=8, size=16, vocabulary=520, length=12, embed=16)
TEXTS = ["owl", "", "a photo of a snowman without snow."]  # the last is too long for either


def images(size):
    return made.generator(f"clip {size}").normal(size=(3, size, size, 3)).astype(np.float32)


def state(shapes):
    """Weights by PyTorch's names, in half precision."""
    return {k: np.asarray(v, np.float16) for k, v in made.weights(shapes).items()}
