"""Checks of what the measures are given."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from disam_jax import trees
from disam_jax.passes import forward
from disam_jax.passes.forward import DomainLossFn, LossFn
from disam_jax.trees import Tree


def real_params(params: Tree) -> Tree:
    """Returns the parameters as they are measured: real, and in at least float32."""
    trees.check_params(params)
    return trees.at_least_float32(trees.to_real(params))


def domain_losses(loss_fn: LossFn) -> DomainLossFn:
    """Returns (real params, ...) -> (losses [M] in at least float32, None), checked."""

    def on_given(params: Tree, *batch: Tree) -> Any:
        return loss_fn(trees.from_real(params), *batch)

    return functools.partial(forward.domain_losses, on_given, False)


def scalar_loss(loss_fn: LossFn) -> Callable[..., jax.Array]:
    """Returns (real params, ...) -> the loss in at least float32, checked: one number."""

    def checked(params: Tree, *batch: Tree) -> jax.Array:
        loss = jnp.asarray(loss_fn(trees.from_real(params), *batch))
        if loss.ndim != 0 or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise ValueError(
                "loss_fn must return a floating-point scalar; got "
                f"{loss.dtype}{list(loss.shape)}. Take the sum or the mean of the losses."
            )
        return trees.at_least_float32(loss)

    return checked


def check_batches(batches: Tree) -> int:
    """Returns K >= 1 of batches [K, ...], a tree of arrays."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batches)]
    if () in shapes or len({shape[:1] for shape in shapes}) != 1 or shapes[0][0] < 1:
        raise ValueError(
            "batches must be a tree of arrays [K, ...] with one K >= 1; got shapes "
            f"{shapes}. Stack the mini-batches along a first axis."
        )
    return shapes[0][0]
