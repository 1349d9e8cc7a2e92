"""Checks of what the measures are given."""

import math
from collections.abc import Callable

import chex
import jax.numpy as jnp

from disam_jax import trees
from disam_jax.domains import LossFn
from disam_jax.trees import Tree


def scalar_loss(loss_fn: LossFn) -> Callable[..., chex.Array]:
    """Returns (params, ...) -> the loss in at least float32, checked to be one number."""

    def checked(params: Tree, *batch: Tree) -> chex.Array:
        loss = jnp.asarray(loss_fn(params, *batch))
        if loss.ndim != 0 or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise ValueError(
                "loss_fn must return a floating-point scalar; got "
                f"{loss.dtype}{list(loss.shape)}. Take the sum or the mean of the losses."
            )
        return trees.at_least_float32(loss)

    return checked


def check_count(name: str, value: int, least: int, most: float, why: str) -> int:
    """Returns `value`; a ValueError unless it is an integer in least ... most."""
    if not isinstance(value, int) or not least <= value <= most:
        meant = f">= {least}" if most == math.inf else f"in {least} ... {most}"
        raise ValueError(f"{name} must be an integer {meant}, {why}; got {value!r}.")
    return value
