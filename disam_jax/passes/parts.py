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

from disam_jax import trees
from disam_jax.passes.forward import DomainLossFn, Pass, at_once, check_weights
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

    def forward(_: None, micro_batch: Tree) -> tuple[None, jax.Array]:
        return None, loss_fn(params, micro_batch)[0]

    # l_k of every micro-batch, [K, M], and its share of each domain's weight.
    _, their_losses = jax.lax.scan(forward, None, micro_batches, unroll=unroll)
    their_weights = check_weights(weights, their_losses)
    whole_weights = jnp.sum(their_weights, axis=0)
    shares = trees.safe_divide(their_weights, whole_weights[None])

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

    # l, of the whole batch, from which the one cotangent is computed.
    losses = jnp.sum(_weighted(shares, their_losses), axis=0)
    return Pass(losses, whole_weights, pullback)


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

    # l, of the whole batch, alike on all devices.
    losses = jax.lax.psum(_weighted(share, here.losses), axis_name)
    return Pass(losses, whole_weights, pullback)


def scaled(here: Pass, scale: jax.Array) -> Pass:
    """On the way back all is `scale` times as large, so that float16 can hold it."""

    def pullback(cotangent: jax.Array) -> tuple[Tree, jax.Array, Any]:
        grad, losses, aux = here.pullback(scale * cotangent)
        return jax.tree.map(lambda g: g / scale, grad), losses, aux

    return here._replace(pullback=pullback)


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
