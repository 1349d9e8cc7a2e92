"""Selection: which examples of a batch are worth a gradient."""

import chex
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec


def hardest(
    example_losses: chex.Array, domain_ids: chex.Array, num_domains: int, count: int
) -> tuple[chex.Array, chex.Array]:
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
      domain_ids: [N], integers in 0 ... num_domains - 1.
      num_domains: M.
      count: >= 1, how many of each domain, at most N.

    Returns:
      Indices [M * count] into the batch, domain after domain, and their domain ids. Where a
      domain has fewer than `count` examples, the surplus has the id -1, which
      `domain_means` and `domain_shares` leave out.

    Raises:
      ValueError: count is out of its range.

    References:
      Ni et al., K-SAM: Sharpness-Aware Minimization at the Speed of SGD, 2022 (arXiv
      2210.12864), where the ranking is over the whole batch.
    """
    size = jnp.shape(example_losses)[0]
    if not 1 <= count <= size:
        raise ValueError(f"count must be in 1 ... {size}, the batch; got {count}.")
    losses = _everywhere(jax.lax.stop_gradient(example_losses))
    domain_ids = _everywhere(domain_ids)

    def of_domain(domain: chex.Array) -> tuple[chex.Array, chex.Array]:
        own = domain_ids == domain
        _, chosen = jax.lax.top_k(jnp.where(own, losses, -jnp.inf), count)
        return chosen, jnp.where(own[chosen], domain, -1)

    chosen, ids = jax.vmap(of_domain)(jnp.arange(num_domains))
    return chosen.reshape(-1), ids.reshape(-1)


def _everywhere(array: chex.Array) -> chex.Array:
    """The array whole on every device: of an explicitly sharded one no order is known."""
    array = jnp.asarray(array)
    mesh = jax.typeof(array).sharding.mesh  # its own, entered by `set_mesh` or not
    if not mesh.explicit_axes:
        return array
    return jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec()))
