"""Programs on the smallest CLIP of `tests/data/clip`, for tests of tunings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config.preset import Preset
from experiments.data.batches import Batch
from experiments.methods.registry import METHODS
from experiments.training.program import Program
from tests.experiments.models.clip.recorded import DATA

NAMES = ("owl", "dog", "ice_cap")
PRESET = Preset(
    steps=10,
    model="clip",
    weights=str(DATA / "open_clip.pth"),
    activation="gelu",
    image_size=16,
    optimizer="adamw",
    learning_rate=1e-3,
    context=2,
    rank=2,
)
RNG = np.random.default_rng(0)
BATCH = Batch(
    jnp.asarray(RNG.uniform(size=(8, 16, 16, 3)), jnp.float32),
    jnp.asarray(RNG.integers(0, 3, 8)),
    jnp.repeat(jnp.arange(2), 4),
    jax.random.key(7),
)


def program(tuning, method="disam", seen=None, **changes):
    """Of the method with its defaults, on two domains."""
    preset = dataclasses.replace(PRESET, tuning=tuning, **changes)
    own = METHODS[method]
    return Program(own, own.defaults, preset, NAMES, num_domains=2, seen=seen)
