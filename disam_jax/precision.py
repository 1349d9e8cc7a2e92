"""Precision: how much of a perturbation is left when the model casts the parameters."""

from typing import Any, NamedTuple

import chex
import jax

from disam_jax import trees
from disam_jax.parameters import to_real
from disam_jax.trees import Tree


class Realized(NamedTuple):
    """A realized displacement beside the one that was meant.

    Attributes:
      length_ratio: scalar >= 0, norm(realized) / norm(eps).
      cosine: scalar in [-1, 1], between the two.
    """

    length_ratio: chex.Array
    cosine: chex.Array


def realized_perturbation(params: Tree, eps: Tree, dtype: Any) -> Realized:
    """The displacement that is left of eps in `dtype`: cast(w + eps) - cast(w).

    A parameter moves only when eps takes it over the middle between two numbers of the
    dtype. In bfloat16 those lie 1/128 of the parameter apart; at SAM's radii eps is far
    smaller for most, and what moves is noise. It costs one pass over the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> w, eps = jnp.array([1.0, 1.0]), jnp.array([0.001, 0.005])
      >>> realized = realized_perturbation(w, eps, jnp.bfloat16)
      >>> print(realized.length_ratio, realized.cosine)
      1.53 0.98

    Args:
      params: w, in the dtype that is perturbed (float32, usually).
      eps: the displacement, in the parameters' structure.
      dtype: to which the model casts the parameters.

    Returns:
      Length ratio and cosine over all leaves together; both 0 where eps is 0 or nothing
      of it is left.

    References:
      No paper of the field measures it. The remedies: `perturbed_loss_fn` in float32, or
      a larger rho.
    """

    def move(w: jax.Array, e: jax.Array) -> jax.Array:
        there, here = (w + e).astype(w.dtype), w
        return there.astype(dtype).astype(e.dtype) - here.astype(dtype).astype(e.dtype)

    params, eps = to_real((params, eps))
    moved = jax.tree.map(move, params, eps)
    norms = trees.norm(moved), trees.norm(eps)
    return Realized(
        length_ratio=trees.safe_divide(norms[0], norms[1]),
        cosine=trees.safe_divide(trees.dot(moved, eps), norms[0] * norms[1]),
    )
