"""A pass: one evaluation of the domain losses at some parameters, and the way back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from disam_jax import trees
from disam_jax.trees import Tree

LossFn = Callable[..., Any]  # the user's
DomainLossFn = Callable[..., tuple[jax.Array, Any]]  # (params, *micro_batch)


class LossGrad(NamedTuple):
    """What one pass at some parameters shows of an objective.

    Attributes:
      gradient: of the objective by the parameters, in at least float32.
      cotangent: [M], each domain's weight in that gradient.
      losses: [M].
      aux: of the loss function; in micro-batches stacked, [K, ...].
    """

    gradient: Tree
    cotangent: jax.Array
    losses: jax.Array
    aux: Any


class Pass(NamedTuple):
    """One forward pass at some parameters, and the way back through it.

    Attributes:
      losses: [M], what a cotangent is computed from. That of a weighted mean needs none:
        the compiler then drops a forward pass that serves these losses alone.
      weights: [M], >= 0, of any sum.
      pullback: cotangent [M] -> (gradient, losses [M], aux).
    """

    losses: jax.Array
    weights: jax.Array
    pullback: Callable[[jax.Array], tuple[Tree, jax.Array, Any]]

    def value_and_grad(self, objective: Callable[..., jax.Array]) -> LossGrad:
        """The objective's gradient and what was seen on the way: one backward pass."""
        # a: the weights, of sum 1.
        shares = trees.safe_divide(self.weights, jnp.sum(self.weights))
        # The objective only chooses the cotangent in R^M, grad(objective)(l, a).
        cotangent = jax.grad(objective)(self.losses, shares)
        # One way back, whatever the objective is.
        gradient, losses, aux = self.pullback(cotangent)
        return LossGrad(gradient, cotangent, losses, aux)


def at_once(loss_fn: DomainLossFn, params: Tree, weights: jax.Array | None) -> Pass:
    """One forward pass over the whole batch; its residuals are kept for the way back."""
    # l, and the way back through its residuals.
    losses, back, aux = jax.vjp(loss_fn, params, has_aux=True)

    def pullback(cotangent: jax.Array) -> tuple[Tree, jax.Array, Any]:
        # sum_i cotangent_i * (the gradient of l_i), at once for all i.
        return trees.at_least_float32(*back(cotangent)), losses, aux

    return Pass(losses, check_weights(weights, losses), pullback)


def domain_losses(
    loss_fn: Any, has_aux: bool, params: Tree, *micro_batch: Tree
) -> tuple[jax.Array, Any]:
    """The user's loss function, checked: losses [M] in at least float32, and its aux."""
    output = loss_fn(params, *micro_batch)
    if isinstance(output, tuple) != has_aux or (has_aux and len(output) != 2):
        expected = "a pair (losses, aux)" if has_aux else "losses alone"
        raise TypeError(
            f"loss_fn must return {expected} with has_aux={has_aux}; "
            f"got {type(output).__name__}."
        )
    losses, aux = output if has_aux else (output, None)
    if not isinstance(losses, list | float | int) and not hasattr(losses, "dtype"):
        raise TypeError(
            "loss_fn must return a scalar or the vector of domain losses; got "
            f"{losses!r} ({type(losses).__name__}). Return jnp.stack of several losses."
        )
    losses = jnp.asarray(losses)
    if losses.ndim > 1 or not jnp.issubdtype(losses.dtype, jnp.floating):
        raise ValueError(
            "loss_fn must return a floating-point scalar or vector of domain losses; "
            f"got {losses.dtype}{list(losses.shape)}. Average over the examples of "
            "each domain, e.g. with disam_jax.domain_means."
        )
    half = jnp.finfo(losses.dtype).bits < 32
    return jnp.atleast_1d(losses).astype(jnp.float32 if half else losses.dtype), aux


def check_weights(weights: jax.Array | None, losses: jax.Array) -> jax.Array:
    """Returns weights >= 0 in the shape and dtype of `losses`, of any sum; 1 for None."""
    if weights is None:
        return jnp.ones_like(losses)
    if np.shape(weights) != losses.shape:
        raise ValueError(
            f"domain_weights must have one entry per domain loss, shape {losses.shape}; "
            f"got {np.shape(weights)}."
        )
    if not isinstance(weights, Tracer):
        given = np.asarray(weights, dtype=np.float64)
        if not (np.isfinite(given).all() and (given >= 0).all()):
            raise ValueError(
                f"domain_weights must be finite and >= 0; got {given.tolist()}."
            )
    return jnp.asarray(weights, losses.dtype)
