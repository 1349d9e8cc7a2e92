"""Domains: from one loss, or one per example, to the losses [M] and the weights [M]."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from disam_jax import trees
from disam_jax.trees import Tree

LossFn = Callable[..., Any]


def vmap_domains(loss_fn: LossFn) -> LossFn:
    """Turns the loss of one domain's batch into the losses [M] of a stacked batch.

    losses[i] = loss_fn(params, batch[i]). The model sees one domain at a time, so
    BatchNorm under it normalizes each domain by itself, and an aux comes back stacked.

    Example:
      >>> import jax.numpy as jnp
      >>> def loss_fn(params, batch):
      ...     return jnp.mean((batch @ params) ** 2)
      >>> batch = jnp.ones((3, 8, 2))  # 3 domains of 8 examples
      >>> vmap_domains(loss_fn)(jnp.ones(2), batch).shape
      (3,)

    Args:
      loss_fn: (params, *batch of one domain) -> scalar, or (scalar, aux).

    Returns:
      (params, *batch) -> losses [M], or (losses [M], aux with a leading axis M), where
      every array after params has a leading axis of length M.
    """

    def losses_fn(params: Tree, *batch: Any) -> Any:
        return jax.vmap(loss_fn, in_axes=(None, *(0 for _ in batch)))(params, *batch)

    return losses_fn


def domain_means(
    example_losses: jax.Array, domain_ids: ArrayLike, num_domains: int
) -> tuple[jax.Array, jax.Array]:
    """The mean loss of each domain in a flat, mixed batch, and each domain's share of it.

    losses[i] is the mean of `example_losses` over the examples with `domain_ids == i`,
    and weights[i] their number / the number of all, so that sum(weights * losses) is the
    batch mean. An absent domain has loss 0 and weight 0.

    Example:
      >>> import jax.numpy as jnp
      >>> losses, weights = domain_means(
      ...     jnp.array([1.0, 2.0, 6.0]), jnp.array([0, 0, 2]), num_domains=3
      ... )
      >>> print(losses, weights)
      [1.5 0.  6. ] [0.67 0.   0.33]

    Args:
      example_losses: [B].
      domain_ids: [B], integers in [0, num_domains). Under `jit`, where ids cannot be
        looked at, an example with any other id (-1 for padding, say) takes no part.
      num_domains: M, static.

    Returns:
      losses [M] and weights [M], in at least float32.

    Raises:
      ValueError: the shapes differ, num_domains < 1, or an id is out of range where that
        can be seen.
      TypeError: the ids are not integers.

    References:
      Zhang et al., ICLR 2024, Eq. 3, with the batch's counts for the data sets' sizes, as
      in the released code.
    """
    example_losses = trees.at_least_float32(jnp.asarray(example_losses))
    _check_examples(example_losses, domain_ids)
    member = _membership(domain_ids, num_domains)
    # A masked sum and not a product: the NaN of one example stays in its own domain. Not
    # a scatter either, whose order of additions is not fixed on a GPU.
    sums = jnp.sum(jnp.where(member, example_losses, 0.0), axis=1)
    counts = jnp.sum(member, axis=1, dtype=example_losses.dtype)
    return trees.safe_divide(sums, counts), trees.safe_divide(counts, jnp.sum(counts))


def domain_shares(domain_ids: ArrayLike, num_domains: int) -> jax.Array:
    """Each domain's share of a batch: its number of examples / the number of all.

    To be passed as `domain_weights` next to a loss function that calls `domain_means`.

    Example:
      >>> import jax.numpy as jnp
      >>> print(domain_shares(jnp.array([0, 0, 0, 2]), num_domains=3))
      [0.75 0.   0.25]

    Args:
      domain_ids: [B], integers in [0, num_domains); see `domain_means`.
      num_domains: M, static.

    Returns:
      weights [M], float32 (float64 under x64), sum 1; zeros for a batch of padding alone.

    Raises:
      ValueError: num_domains < 1, the ids are not a vector, or one is out of range where
        that can be seen.
      TypeError: the ids are not integers.
    """
    counts = jnp.sum(_membership(domain_ids, num_domains), axis=1, dtype=float)
    return trees.safe_divide(counts, jnp.sum(counts))


def _check_examples(example_losses: jax.Array, domain_ids: ArrayLike) -> None:
    if np.ndim(example_losses) != 1 or np.shape(example_losses) != np.shape(domain_ids):
        raise ValueError(
            "example_losses and domain_ids must both have shape [B]; got "
            f"{np.shape(example_losses)} and {np.shape(domain_ids)}."
        )


def _membership(domain_ids: ArrayLike, num_domains: int) -> jax.Array:
    """Returns bool [M, B]: does example j belong to domain i?"""
    if num_domains < 1:
        raise ValueError(f"num_domains must be at least 1; got {num_domains}.")
    if np.ndim(domain_ids) != 1:
        raise ValueError(f"domain_ids must have shape [B]; got {np.shape(domain_ids)}.")
    if not jnp.issubdtype(jnp.asarray(domain_ids).dtype, jnp.integer):
        raise TypeError(
            f"domain_ids must be integers; got {jnp.asarray(domain_ids).dtype}."
        )
    if not isinstance(domain_ids, Tracer):
        seen = np.asarray(domain_ids)
        wrong = np.unique(seen[(seen < 0) | (seen >= num_domains)])
        if wrong.size:
            raise ValueError(
                f"domain_ids must lie in [0, {num_domains}) for num_domains="
                f"{num_domains}; got {wrong.tolist()}."
            )
    return jnp.arange(num_domains)[:, None] == jnp.asarray(domain_ids)[None, :]


def hardest(
    example_losses: jax.Array, domain_ids: ArrayLike, num_domains: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """The examples of the highest loss, `count` of every domain, in static shapes.

    K-SAM's choice, domain by domain, so that no domain is left out: a forward pass over the
    whole batch ranks the examples, and both gradients are taken on those chosen.

    Example:
      >>> import jax.numpy as jnp
      >>> losses, ids = jnp.array([0.1, 0.9, 0.5, 0.2]), jnp.array([0, 0, 0, 1])
      >>> chosen, their_ids = hardest(losses, ids, num_domains=2, count=2)
      >>> print(chosen, their_ids)
      [1 2 3 0] [ 0  0  1 -1]

    Args:
      example_losses: [N], at the current parameters; no gradient goes through them.
      domain_ids: [N], integers in [0, num_domains); see `domain_means`.
      num_domains: M.
      count: >= 1, how many of each domain, at most N.

    Returns:
      Indices [M * count] into the batch, domain after domain, and their domain ids. Where a
      domain has fewer than `count` examples, the surplus has the id -1, which
      `domain_means` and `domain_shares` leave out.

    Raises:
      ValueError: count is out of its range, the shapes differ, num_domains < 1, or an id is
        out of range where that can be seen.
      TypeError: the ids are not integers.

    References:
      Ni et al., K-SAM: Sharpness-Aware Minimization at the Speed of SGD, 2022 (arXiv
      2210.12864), where the ranking is over the whole batch.
    """
    _check_examples(example_losses, domain_ids)
    size = np.shape(example_losses)[0]
    if not 1 <= count <= size:
        raise ValueError(f"count must be in 1 ... {size}, the batch; got {count}.")
    losses = trees.everywhere(jax.lax.stop_gradient(example_losses))
    member = _membership(trees.everywhere(domain_ids), num_domains)

    def of_domain(domain: jax.Array, own: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, chosen = jax.lax.top_k(jnp.where(own, losses, -jnp.inf), count)
        return chosen, jnp.where(own[chosen], domain, -1)

    chosen, ids = jax.vmap(of_domain)(jnp.arange(num_domains), member)
    return chosen.reshape(-1), ids.reshape(-1)
