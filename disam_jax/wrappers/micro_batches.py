"""Micro-batches: how a batch is cut, and a perturbation of its own for each of them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.evaluation import pop_evaluation, put_evaluation
from disam_jax.hyperparameters import check_integer
from disam_jax.passes.options import StepOptions, split_options
from disam_jax.passes.parts import micro_batch_weights
from disam_jax.trees import Tree


def micro_batches(batch: Tree, num: int, *, axis: int = 0) -> Tree:
    """Cuts a batch into `num` micro-batches, stacked along a new first axis.

    Example i goes to micro-batch i % num. Of a batch that holds one domain after another
    each then holds all of them, and one that is spread over devices stays where it is.

    Example:
      >>> import jax.numpy as jnp
      >>> print(micro_batches(jnp.arange(6), 2))
      [[0 2 4]
       [1 3 5]]

    Args:
      batch: a tree of arrays with the examples along `axis`.
      num: K, of the micro-batches; it must divide the number of examples.
      axis: 0 for a flat batch [B, ...]; 1 for stacked domains [M, B, ...].

    Returns:
      The tree with arrays [K, B / K, ...], or [K, M, B / K, ...] for axis 1.

    Raises:
      ValueError: `num` is not a positive divisor of the number of examples, or `axis` none
        of an array's axes, counted from 0.
    """

    def cut(array: jax.Array) -> jax.Array:
        check_integer("axis", axis, at_least=0, at_most=jnp.ndim(array) - 1)
        size = jnp.shape(array)[axis]
        if num < 1 or size % num:
            raise ValueError(
                f"num must divide the {size} examples along axis {axis}; got {num}."
            )
        shape = (*array.shape[:axis], size // num, num, *array.shape[axis + 1 :])
        return jnp.moveaxis(jnp.reshape(array, shape), axis + 1, 0)

    return jax.tree.map(cut, batch)


def per_micro_batch(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Each micro-batch is perturbed by itself: mean_k of combine(g_k, g'_k), at w + eps_k.

    What the perturbation is computed on is one choice with three values:

    - the whole batch: `sam(rho)`, with or without `micro_batches`;
    - each micro-batch: `per_micro_batch(sam(rho))` and K of them; SAM's m-sharpness, where
      m is the size of a micro-batch;
    - each domain: the same with a domain in each, a batch [M, B, ...] and a loss
      function of one domain. Every domain climbs on its own.

    They take turns, so that the memory is one micro-batch's, and a batch costs what they
    cost together: two gradients.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.per_micro_batch(dj.sam(rho=0.5)), jnp.array([3.0, 4.0])
      >>> grads, state = tx.update(
      ...     None, tx.init(params), params,
      ...     loss_fn=lambda w, x: jnp.sum((w - x) ** 2),
      ...     micro_batches=jnp.array([[0.0, 0.0], [3.0, 5.0]]),
      ... )
      >>> print(grads)
      [3.3 2.9]

    Args:
      tx: a method of this package.

    Returns:
      The transformation. Its update needs `micro_batches`, and `domain_weights`, where
      given, as [K, M]; a micro-batch counts by its part of them. The evaluation is stacked:
      all its arrays have a first axis K. A perturbation that remembers keeps the mean of
      what the micro-batches make of it, and of a batch of weight 0 what it had.

    Raises:
      ValueError: at `update`, `micro_batches` is missing or has no common first axis, or
        `domain_weights` are not [K, M], finite and >= 0.

    References:
      Foret et al., Sharpness-Aware Minimization, ICLR 2021, section 4.1. Their code takes
      each device's part of the batch for one, so that the result depends on how many
      there are; under `shard_map` leave out `axis_name`, let the parameters vary over the
      axis and average the updates to have that form.
    """

    def update(
        updates: Any, state: optax.OptState, params: Tree | None = None, **options: Any
    ) -> tuple[Tree, optax.OptState]:
        own, others = split_options(options)
        own = StepOptions(**own)
        if own.micro_batches is None or own.loss_fn is None or params is None:
            raise ValueError(
                "params, loss_fn or micro_batches is missing: call tx.update(None, state, "
                "params, loss_fn=loss_fn, micro_batches=batch), where loss_fn takes "
                "(params, micro_batch) and the arrays of the batch are [K, ...]."
            )
        each = micro_batch_weights(own.micro_batches, own.domain_weights, own.axis_name)
        shares = trees.safe_divide(each, jnp.sum(each))

        def add(carry: Any, part: Any) -> tuple[Any, Any]:
            total, mean_state = carry
            micro_batch, weights, share = part
            alone = own.of_micro_batch(micro_batch, weights)
            alone = dataclasses.replace(alone, record=True)
            grads, after = tx.update(updates, state, params, **vars(alone), **others)
            evaluation, after = pop_evaluation(after)
            total = jax.tree.map(lambda total, g: total + _part(share, g), total, grads)
            move = functools.partial(_moved, share)
            mean_state = jax.tree.map(move, mean_state, state, after)
            return (total, mean_state), evaluation if own.record else None

        first = (trees.zeros_like(trees.at_least_float32(params)), state)
        parts = (own.micro_batches, own.domain_weights, shares)
        (grads, after), evaluation = jax.lax.scan(add, first, parts, unroll=own.unroll)
        if own.record:
            after = put_evaluation(after, evaluation)
        return optax.tree.cast_like(grads, params), after

    return optax.GradientTransformationExtraArgs(tx.init, update)  # pyright: ignore[reportArgumentType]


def _part(share: jax.Array, x: jax.Array) -> jax.Array:
    """Share * x, in at least float32."""
    x = trees.at_least_float32(x)
    return share.astype(x.dtype) * x


def _moved(share: jax.Array, mean: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    """The mean of a number of the state, a share further from `old` towards `new`.

    Counts and keys move alike with every micro-batch.
    """
    if not jnp.issubdtype(jnp.asarray(new).dtype, jnp.floating):
        return new
    return mean + _part(share, new - old).astype(mean.dtype)
