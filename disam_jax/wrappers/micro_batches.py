"""Micro-batches: how a batch is cut, and a perturbation of its own for each of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.evaluation import Evaluation, pop_evaluation, put_evaluation
from disam_jax.passes.options import StepOptions, split_options
from disam_jax.passes.parts import check_micro_batches
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
      ValueError: `num` is not a positive divisor of the number of examples.
    """

    def cut(array: jax.Array) -> jax.Array:
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
      what the micro-batches make of it.

    Raises:
      ValueError: at `update`, `micro_batches` is missing or has no common first axis.

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
        count = check_micro_batches(own.micro_batches)
        shares = jnp.full([count], 1 / count)
        if own.domain_weights is not None:
            mass = jnp.sum(jnp.asarray(own.domain_weights), axis=1)
            shares = trees.safe_divide(mass, jnp.sum(mass))

        def add(carry: Any, part: Any) -> tuple[Any, Evaluation]:
            total, mean_state = carry
            micro_batch, weights, share = part
            alone = own.of_micro_batch(micro_batch, weights)
            alone = dataclasses.replace(alone, record=True)
            grads, after = tx.update(updates, state, params, **vars(alone), **others)
            evaluation, after = pop_evaluation(after)
            total = jax.tree.map(
                lambda total, g: total + share * g, total, trees.at_least_float32(grads)
            )
            mean_state = jax.tree.map(
                lambda mean, new: _add_to_mean(mean, new, share), mean_state, after
            )
            return (total, mean_state), evaluation

        zeros = trees.zeros_like(trees.at_least_float32(params))
        first = (zeros, jax.tree.map(_no_mean, state))
        parts = (own.micro_batches, own.domain_weights, shares)
        (grads, after), evaluation = jax.lax.scan(add, first, parts, unroll=own.unroll)
        if own.record:
            after = put_evaluation(after, evaluation)
        return optax.tree.cast_like(grads, params), after

    return optax.GradientTransformationExtraArgs(tx.init, update)  # pyright: ignore[reportArgumentType]


def _is_averaged(leaf: jax.Array) -> bool:
    """Whether a leaf of the state is a number to average; counts and keys are all alike."""
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def _no_mean(leaf: jax.Array) -> jax.Array:
    return jnp.zeros_like(leaf) if _is_averaged(leaf) else leaf


def _add_to_mean(mean: jax.Array, new: jax.Array, share: jax.Array) -> jax.Array:
    return (mean + share * new).astype(new.dtype) if _is_averaged(new) else new
