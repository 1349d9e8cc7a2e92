"""Passes: one evaluation of the domain losses at some parameters, and the way back.

A batch is evaluated in one of three ways, which mean the same:

at once             l = loss_fn(w)
in micro-batches    l = sum_k share_k * loss_fn(w, micro_batch_k), one after another
over devices        l = psum(share * loss_fn(w)), each with its part of the batch

where a part's share [M] is how much of each domain's weight it holds. The gradient of an
objective of l is the sum over the parts of their pull(share * cotangent), with the one
cotangent in R^M that is known when all of l is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from disam_jax import trees
from disam_jax.domains import DomainLossFn, check_weights
from disam_jax.trees import Tree


class Seen(NamedTuple):
    """What a pass saw on the way to its gradient.

    Attributes:
      losses: [M].
      aux: of the loss function; in micro-batches stacked, [K, ...].
    """

    losses: chex.Array
    aux: Any


class Look(NamedTuple):
    """What one pass at some parameters shows of an objective.

    Attributes:
      gradient: of the objective by the parameters, in at least float32.
      domain_weights: [M], each domain's weight in that gradient.
      losses: [M].
      aux: of the loss function; in micro-batches stacked, [K, ...].
    """

    gradient: Tree
    domain_weights: chex.Array
    losses: chex.Array
    aux: Any


class Pass(NamedTuple):
    """One forward pass at some parameters, and the way back through it.

    Attributes:
      losses: [M], what a cotangent is computed from. That of a weighted mean needs none:
        the compiler then drops a forward pass that serves these losses alone.
      weights: [M], >= 0, of any sum.
      pull: cotangent [M] -> (gradient, Seen).
    """

    losses: chex.Array
    weights: chex.Array
    pull: Callable[[chex.Array], tuple[Tree, Seen]]

    def cotangent(self, objective: Callable[..., chex.Array]) -> chex.Array:
        """Each domain's weight [M] in the gradient of the objective."""
        shares = trees.safe_divide(self.weights, jnp.sum(self.weights))
        return jax.grad(objective)(self.losses, shares)

    def look(self, objective: Callable[..., chex.Array]) -> Look:
        """The objective's gradient and what was seen on the way: one backward pass."""
        domain_weights = self.cotangent(objective)
        gradient, seen = self.pull(domain_weights)
        return Look(gradient, domain_weights, *seen)


PassAt = Callable[[Tree], Pass]
AxisName = str | tuple[str, ...]  # of one mesh axis, or of several


def at_once(loss_fn: DomainLossFn, weights: chex.Array | None) -> PassAt:
    """One forward pass over the whole batch; its residuals are kept for the way back."""

    def pass_at(params: Tree) -> Pass:
        losses, back, aux = jax.vjp(loss_fn, params, has_aux=True)

        def pull(cotangent: chex.Array) -> tuple[Tree, Seen]:
            return trees.at_least_float32(*back(cotangent)), Seen(losses, aux)

        return Pass(losses, check_weights(weights, losses), pull)

    return pass_at


def in_micro_batches(
    loss_fn: DomainLossFn, weights: chex.Array | None, micro_batches: Tree, unroll: Any
) -> PassAt:
    """Forward passes over all pieces, then for each piece a forward pass and its way back.

    Never are the residuals of more than one piece held.
    """
    check_micro_batches(micro_batches)

    def pass_at(params: Tree) -> Pass:
        def forward(_: None, piece: Tree) -> tuple[None, chex.Array]:
            return None, loss_fn(params, piece)[0]

        _, piece_losses = jax.lax.scan(forward, None, micro_batches, unroll=unroll)
        piece_weights = check_weights(weights, piece_losses)
        whole_weights = jnp.sum(piece_weights, axis=0)
        shares = trees.safe_divide(piece_weights, whole_weights[None])

        def pull(cotangent: chex.Array) -> tuple[Tree, Seen]:
            # Or a compiler that unrolls would keep the first passes' residuals instead.
            again, cotangent = jax.lax.optimization_barrier((params, cotangent))

            def add_gradient(sum_so_far: Tree, part: tuple[Tree, Any]) -> tuple[Tree, Seen]:
                piece, share = part
                here = at_once(lambda params: loss_fn(params, piece), None)(again)
                grad, seen = here.pull(share * cotangent)
                return jax.tree.map(jnp.add, sum_so_far, grad), seen

            zeros = trees.zeros_like(trees.at_least_float32(params))
            parts = (micro_batches, shares)
            grad, seen = jax.lax.scan(add_gradient, zeros, parts, unroll=unroll)
            return grad, Seen(jnp.sum(_held(shares, seen.losses), axis=0), seen.aux)

        losses = jnp.sum(_held(shares, piece_losses), axis=0)
        return Pass(losses, whole_weights, pull)

    return pass_at


def over_devices(pass_at: PassAt, axis_name: AxisName) -> PassAt:
    """Each device passes over its part of the batch; losses and gradients are summed."""

    def pass_at_all(params: Tree) -> Pass:
        # A gradient by parameters that vary over the axis is this device's own; by others
        # `shard_map` would sum it already, and `pmap` would not.
        here = pass_at(trees.vary(params, axis_name))
        whole_weights = jax.lax.psum(here.weights, axis_name)
        share = trees.safe_divide(here.weights, whole_weights)

        def pull(cotangent: chex.Array) -> tuple[Tree, Seen]:
            grad, seen = here.pull(share * cotangent)
            losses = jax.lax.psum(_held(share, seen.losses), axis_name)
            return jax.lax.psum(grad, axis_name), Seen(losses, seen.aux)

        losses = jax.lax.psum(_held(share, here.losses), axis_name)
        return Pass(losses, whole_weights, pull)

    return pass_at_all


def scaled(pass_at: PassAt, scale: chex.Array) -> PassAt:
    """On the way back all is `scale` times as large, so that float16 can hold it."""

    def pass_at_scaled(params: Tree) -> Pass:
        here = pass_at(params)

        def pull(cotangent: chex.Array) -> tuple[Tree, Seen]:
            grad, seen = here.pull(scale * cotangent)
            return jax.tree.map(lambda g: g / scale, grad), seen

        return here._replace(pull=pull)

    return pass_at_scaled


def check_micro_batches(micro_batches: Tree) -> int:
    """Returns their number K; a ValueError unless every array has it as its first axis."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(micro_batches)]
    if not shapes or len({shape[:1] for shape in shapes}) != 1 or () in shapes:
        raise ValueError(
            "micro_batches must be a tree of arrays [K, ...] with one K, as "
            f"disam_jax.micro_batches makes it; got shapes {shapes}."
        )
    return shapes[0][0]


def _held(shares: chex.Array, losses: chex.Array) -> chex.Array:
    """Shares * losses, where a part that holds nothing of a domain may have any loss."""
    return jnp.where(shares > 0, shares * losses, 0.0)
