"""A batch in parts: micro-batches, devices, and a way back that float16 can hold.

in micro-batches    l = sum_k share_k * loss_fn(w, micro_batch_k), one after another
over devices        l = psum(share * loss_fn(w)), each with its part of the batch

where a part's share [M] is how much of each domain's weight it holds. The gradient of an
objective of l is the sum over the parts of their pullback(share * cotangent), with the one
cotangent in R^M that is known when all of l is.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from disam_jax import trees
from disam_jax.passes.forward import (
    DomainGradients,
    DomainLossFn,
    Pass,
    at_once,
    check_entries,
    check_weights,
)
from disam_jax.passes.options import AxisName
from disam_jax.trees import Tree


def in_micro_batches(
    loss_fn: DomainLossFn,
    params: Tree,
    weights: jax.Array | None,
    micro_batches: Tree,
    unroll: int | bool,
) -> Pass:
    """Forward passes over all, then for each micro-batch a forward pass and its way back.

    Never are the residuals of more than one micro-batch held.
    """

    def forward() -> jax.Array:
        def visit(_: None, micro_batch: Tree) -> tuple[None, jax.Array]:
            return None, loss_fn(params, micro_batch)[0]

        return jax.lax.scan(visit, None, micro_batches, unroll=unroll)[1]

    # l_k of every micro-batch, [K, M], and its share of each domain's weight.
    their_weights = check_weights(weights, jax.eval_shape(forward))
    whole_weights = jnp.sum(their_weights, axis=0)
    shares = trees.safe_divide(their_weights, whole_weights[None])

    # l, of the whole batch, from which the one cotangent is computed.
    def losses() -> jax.Array:
        return jnp.sum(_weighted(shares, forward()), axis=0)

    def pullback(cotangent: jax.Array) -> tuple[Tree, jax.Array, Any]:
        # At w again; or a compiler that unrolls would keep the first passes' residuals.
        again, cotangent = jax.lax.optimization_barrier((params, cotangent))

        def add_gradient(total: Tree, part: tuple[Tree, Any]) -> tuple[Tree, Any]:
            micro_batch, share = part
            # The part that this micro-batch has in each domain's gradient.
            here = at_once(lambda params: loss_fn(params, micro_batch), again, None)
            grad, *seen = here.pullback(share * cotangent)
            return jax.tree.map(jnp.add, total, grad), seen

        zeros = trees.zeros_like(trees.at_least_float32(params))
        parts = (micro_batches, shares)
        grad, (losses, aux) = jax.lax.scan(add_gradient, zeros, parts, unroll=unroll)
        return grad, jnp.sum(_weighted(shares, losses), axis=0), aux

    # Each micro-batch by itself: one gradient of the batch in all.
    def own(scale: Any) -> DomainGradients:
        def visit(_: None, part: tuple[Tree, Any]) -> tuple[None, tuple[Tree, Any, Any]]:
            micro_batch, mine = part
            here = at_once(lambda params: loss_fn(params, micro_batch), params, None)
            mine = trees.safe_divide(mine, jnp.sum(mine))
            gradient, losses, aux = here.pullback(scale * mine)
            return None, (gradient, jnp.sum(_weighted(mine, losses)), aux)

        parts = (micro_batches, their_weights)
        _, (gradients, losses, aux) = jax.lax.scan(visit, None, parts, unroll=unroll)
        return DomainGradients(gradients, losses, jnp.sum(their_weights, axis=1), aux)

    return Pass(losses, whole_weights, pullback, own)


def over_devices(here: Pass, axis_name: AxisName) -> Pass:
    """This device's pass as that of all: losses and gradients are summed.

    Args:
      here: over this device's part of the batch, at parameters that vary over the axis: a
        gradient by others `shard_map` would sum already, and `pmap` would not.
      axis_name: of the axis.
    """
    # How much of each domain's weight this device holds.
    whole_weights = jax.lax.psum(here.weights, axis_name)
    share = trees.safe_divide(here.weights, whole_weights)

    def pullback(cotangent: jax.Array) -> tuple[Tree, jax.Array, Any]:
        # Its part of the gradient, and the sum of all parts.
        grad, losses, aux = here.pullback(share * cotangent)
        losses = jax.lax.psum(_weighted(share, losses), axis_name)
        return jax.lax.psum(grad, axis_name), losses, aux

    def own(scale: Any) -> DomainGradients:
        assert here.own is not None
        mine = here.own(scale)
        whole = jax.lax.psum(mine.weights, axis_name)
        part = trees.safe_divide(mine.weights, whole)
        gradients = jax.tree.map(lambda g: _along(part, g) * g, mine.gradients)
        losses = _weighted(part, mine.losses)
        gradients, losses = jax.lax.psum((gradients, losses), axis_name)
        return DomainGradients(gradients, losses, whole, mine.aux)

    # l, of the whole batch, alike on all devices.
    def losses() -> jax.Array:
        return jax.lax.psum(_weighted(share, here.losses()), axis_name)

    return Pass(losses, whole_weights, pullback, own if here.own else None)


def scaled(here: Pass, scale: jax.Array) -> Pass:
    """On the way back all is `scale` times as large, so that float16 can hold it."""

    def unscaled(grad: Tree) -> Tree:
        return jax.tree.map(lambda g: g / jnp.asarray(scale, g.dtype), grad)

    def pullback(cotangent: jax.Array) -> tuple[Tree, jax.Array, Any]:
        grad, losses, aux = here.pullback(trees.scale(scale, cotangent))
        return unscaled(grad), losses, aux

    def own(also: Any) -> DomainGradients:
        assert here.own is not None
        mine = here.own(trees.scale(scale, also))
        return mine._replace(gradients=unscaled(mine.gradients))

    return here._replace(pullback=pullback, own=own if here.own else None)


def _along(shares: jax.Array, gradients: jax.Array) -> jax.Array:
    """Shares [M], to be multiplied with gradients [M, ...]."""
    return jnp.reshape(shares, (-1, *(1 for _ in gradients.shape[1:])))


def _weighted(shares: jax.Array, losses: jax.Array) -> jax.Array:
    """Shares * losses, where a part that holds nothing of a domain may have any loss."""
    return jnp.where(shares > 0, shares * losses, 0.0)


def check_micro_batches(micro_batches: Tree) -> int:
    """Returns their number K; a ValueError unless every array has it as its first axis."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(micro_batches)]
    if not shapes or len({shape[:1] for shape in shapes}) != 1 or () in shapes:
        raise ValueError(
            "micro_batches must be a tree of arrays [K, ...] with one K, as "
            f"disam_jax.micro_batches makes it; got shapes {shapes}."
        )
    return shapes[0][0]


def micro_batch_weights(
    micro_batches: Tree, weights: jax.Array | None, axis_name: AxisName | None
) -> jax.Array:
    """How much of the batch each micro-batch is, [K], >= 0, of any sum.

    Args:
      micro_batches: a tree of arrays [K, ...].
      weights: [K, M] of the domains; None is uniform.
      axis_name: over whose devices they are summed; None is none.

    Raises:
      ValueError: the micro-batches have no common first axis, or the weights are not
        [K, M], finite and >= 0, where that can be seen.
    """
    num = check_micro_batches(micro_batches)
    if weights is None:
        return jnp.ones(num)
    shape = np.shape(weights)
    if len(shape) != 2 or shape[0] != num:
        raise ValueError(
            f"domain_weights must have a row for each of the {num} micro_batches, shape "
            f"({num}, M); got {shape}. Where each is one domain: domain_weights[:, None]."
        )
    check_entries(weights)
    own = jnp.sum(jnp.asarray(weights, float), axis=1)
    return own if axis_name is None else jax.lax.psum(own, axis_name)


def mean_from(old: jax.Array, each: jax.Array, weights: jax.Array) -> jax.Array:
    """The mean of what the micro-batches made of `old`, [K, ...], by their weights [K].

    It is the mean of how far they moved it: where all weights are 0 it stays.
    """
    moved = each - old[None]
    shares = trees.safe_divide(weights, jnp.sum(weights)).astype(moved.dtype)
    return old + jnp.sum(_weighted(_along(shares, moved), moved), axis=0)
