"""A pass: one evaluation of the domain losses at some parameters, and the ways back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from disam_jax import trees
from disam_jax.rules import Rule
from disam_jax.trees import Tree

LossFn = Callable[..., Any]  # the user's
DomainLossFn = Callable[..., tuple[jax.Array, Any]]  # (params, *micro_batch)


class LossGrad(NamedTuple):
    """What one pass at some parameters shows of an objective or of a rule.

    Attributes:
      gradient: of the objective by the parameters, in at least float32.
      cotangent: [M], each domain's weight in that gradient; NaN of a rule, which has none.
      losses: [M].
      aux: of the loss function; in micro-batches stacked, [K, ...].
      weights: [M], >= 0, of sum 1; None where nothing that remembers will ask.
    """

    gradient: Tree
    cotangent: jax.Array
    losses: jax.Array
    aux: Any
    weights: jax.Array | None = None


class DomainGradients(NamedTuple):
    """What one pass shows of each domain by itself.

    Attributes:
      gradients: a tree of [M, ...], of each domain's loss.
      losses: [M].
      weights: [M], >= 0, of any sum.
      aux: of the loss function.
    """

    gradients: Tree
    losses: jax.Array
    weights: jax.Array
    aux: Any

    def toward(self, chosen: Callable[..., jax.Array] | Rule) -> LossGrad:
        """The gradient of an objective, or what a rule makes of them; no pass is made."""
        shares = trees.safe_divide(self.weights, jnp.sum(self.weights))
        if isinstance(chosen, Rule):
            gradient = chosen.make(_of_present(self.gradients, shares), shares)
            nothing = trees.unknown(self.losses)
            return LossGrad(gradient, nothing, self.losses, self.aux, shares)
        cotangent = jax.grad(chosen)(self.losses, shares)
        gradient = trees.weighted_sum(cotangent, self.gradients)
        return LossGrad(gradient, cotangent, self.losses, self.aux, shares)


def _of_present(gradients: Tree, shares: jax.Array) -> Tree:
    """The gradients [M, ...], 0 of absent domains."""
    return jax.tree.map(
        lambda g: jnp.where(jnp.reshape(shares > 0, (-1, *[1] * (g.ndim - 1))), g, 0.0),
        gradients,
    )


class Pass(NamedTuple):
    """One forward pass at some parameters, and the way back through it.

    Attributes:
      losses: () -> [M], what a cotangent is computed from. That of a weighted mean needs
        none: the compiler then drops a forward pass that serves these losses alone.
      weights: [M], >= 0, of any sum.
      pullback: cotangent [M] -> (gradient, losses [M], aux).
      own: scale -> what each micro-batch by itself gives; None where there are none.
      beside_rule: whether a rule takes part in the step.
    """

    losses: Callable[[], jax.Array]
    weights: jax.Array
    pullback: Callable[[jax.Array], tuple[Tree, jax.Array, Any]]
    own: Callable[[Any], DomainGradients] | None = None
    beside_rule: bool = False

    def value_and_grad(self, chosen: Callable[..., jax.Array] | Rule) -> LossGrad:
        """The objective's gradient, one way back; or what a rule makes of all domains'."""
        # What are domains to a rule are domains to the objective beside it.
        if isinstance(chosen, Rule) or (self.beside_rule and self._of_pieces):
            return self.by_domain().toward(chosen)
        # a: the weights, of sum 1.
        shares = trees.safe_divide(self.weights, jnp.sum(self.weights))
        # The objective only chooses the cotangent in R^M, grad(objective)(l, a).
        cotangent = jax.grad(chosen)(self.losses(), shares)
        # One way back, whatever the objective is.
        gradient, losses, aux = self.pullback(cotangent)
        return LossGrad(gradient, cotangent, losses, aux, shares)

    def by_domain(self) -> DomainGradients:
        """The gradient of each domain by itself: M ways back.

        Of micro-batches with one loss each these are the domains: one way back of each.
        """
        if self._of_pieces:
            assert self.own is not None
            return self.own(1.0)
        alone = jnp.eye(self.weights.size, dtype=self.weights.dtype)
        ways_back = jax.vmap(self.pullback, out_axes=(0, None, None))
        gradients, losses, aux = ways_back(alone)
        return DomainGradients(gradients, losses, self.weights, aux)

    @property
    def _of_pieces(self) -> bool:
        """Whether there are micro-batches with one loss each."""
        return self.own is not None and self.weights.size == 1


def at_once(loss_fn: DomainLossFn, params: Tree, weights: jax.Array | None) -> Pass:
    """One forward pass over the whole batch; its residuals are kept for the way back."""
    # l, and the way back through its residuals.
    losses, back, aux = jax.vjp(loss_fn, params, has_aux=True)

    def pullback(cotangent: jax.Array) -> tuple[Tree, jax.Array, Any]:
        # sum_i cotangent_i * (the gradient of l_i), at once for all i.
        return trees.at_least_float32(*back(cotangent)), losses, aux

    return Pass(lambda: losses, check_weights(weights, losses), pullback)


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
    floating = jnp.issubdtype(losses.dtype, jnp.floating)
    if losses.ndim > 1 or not losses.size or not floating:
        raise ValueError(
            "loss_fn must return a floating-point scalar or vector of domain losses; "
            f"got {losses.dtype}{list(losses.shape)}. Average over the examples of "
            "each domain, of one at least, e.g. with disam_jax.domain_means."
        )
    half = jnp.finfo(losses.dtype).bits < 32
    return jnp.atleast_1d(losses).astype(jnp.float32 if half else losses.dtype), aux


def check_weights(weights: jax.Array | None, losses: Any) -> jax.Array:
    """Returns weights >= 0 in the shape and dtype of `losses`, of any sum; 1 for None."""
    if weights is None:
        return jnp.ones_like(losses)
    if np.shape(weights) != losses.shape:
        raise ValueError(
            f"domain_weights must have one entry per domain loss, shape {losses.shape}; "
            f"got {np.shape(weights)}."
        )
    check_entries(weights)
    return jnp.asarray(weights, losses.dtype)


def check_entries(weights: jax.Array) -> None:
    """Refuses weights that are negative or not finite, where that can be seen."""
    if isinstance(weights, Tracer):
        return
    given = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(given).all() and (given >= 0).all()):
        raise ValueError(f"domain_weights must be finite and >= 0; got {given.tolist()}.")
