"""How far the domains' Hessians lie from one another."""

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.diagnostics.checks import domain_losses, real_params
from disam_jax.diagnostics.compiled import compiled, scan
from disam_jax.diagnostics.estimates import Estimate, estimate
from disam_jax.domains import LossFn
from disam_jax.hyperparameters import check_integer
from disam_jax.trees import Tree


def hessian_distance(
    loss_fn: LossFn, params: Tree, key: jax.Array, *, samples: int = 32
) -> Estimate:
    """The squared Frobenius distances between the Hessians of the domains' losses.

    mean_ij = mean_s norm((H_i - H_j) z_s)**2 with every entry of z_s -1 or 1 at random, the
    same for all domains, whose expectation is norm(H_i - H_j)_F**2.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def loss_fn(w):  # with Hessians 0, diag(2, 0) and diag(2, 1)
      ...     return jnp.stack([w[0], w[0] ** 2, w[0] ** 2 + w[1] ** 2 / 2])
      >>> found = dj.diagnostics.hessian_distance(
      ...     loss_fn, jnp.ones(2), jax.random.key(0), samples=2)
      >>> print(found.mean)
      [[0. 4. 5.]
       [4. 0. 1.]
       [5. 1. 0.]]

    Args:
      loss_fn: (params) -> losses [M], differentiable forwards over backwards. With
        `gradient_covariance` it is the distance between covariances of gradients.
      params: where it is measured; half precision is seen in float32.
      key: of the samples.
      samples: >= 2, each a product with every domain's Hessian; all M are held at once.

    Returns:
      The `Estimate` of [M, M], in at least float32, without bias; the root of it has one.
      Exact for diagonal Hessians, and 0 for equal ones.

    Raises:
      ValueError: samples < 2.

    References:
      Hutchinson, 1990, with (H_i - H_j)**2 for H. As a measure of domain shift: Rame et
      al., Fishr, ICML 2022, section 3, through covariances of gradients.
    """
    check_integer("samples", samples, 2, why="for a standard error")
    params = real_params(params)
    losses = jax.eval_shape(domain_losses(loss_fn), params)[0]
    times, rows = (
        compiled(_hessian_times, loss_fn),
        jnp.eye(losses.size, dtype=losses.dtype),
    )

    def sample(_: None, key: jax.Array) -> tuple[None, jax.Array]:
        return None, _squared_distances([times(params, row, key) for row in rows])

    return estimate(scan(sample, None, jax.random.split(key, samples))[1])


def _hessian_times(
    loss_fn: LossFn, params: Tree, weights: jax.Array, key: jax.Array
) -> Tree:
    def loss(params: Tree) -> jax.Array:
        return weights @ domain_losses(loss_fn)(params)[0]

    signs = trees.drawn_like(jax.random.rademacher, key, params)
    return jax.jvp(jax.grad(loss), (params,), (signs,))[1]


@jax.jit
def _squared_distances(images: list[Tree]) -> jax.Array:
    def squared(a: Tree, b: Tree) -> jax.Array:
        away = optax.tree.sub(a, b)
        return trees.dot(away, away)

    return jnp.array([[squared(a, b) for b in images] for a in images])
