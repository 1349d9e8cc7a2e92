"""Gradients beside one another: of mini-batches, of domains, of successive steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from disam_jax import trees
from disam_jax.diagnostics.checks import (
    check_batches,
    domain_losses,
    real_params,
    scalar_loss,
)
from disam_jax.diagnostics.compiled import compiled, scan, zeros_like
from disam_jax.domains import LossFn
from disam_jax.objectives import weighted_mean
from disam_jax.passes.forward import at_once
from disam_jax.trees import Tree


def gradient_variance(loss_fn: LossFn, params: Tree, batches: Tree) -> jax.Array:
    """The variance of the gradient over mini-batches: what DISAM's Fig. 6 calls sharpness.

    variance = mean_k norm(g_k - mean_k g_k)**2 with g_k = grad L(w; batch_k)

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> def loss_fn(w, center):
      ...     return jnp.sum((w - center) ** 2) / 2
      >>> print(dj.diagnostics.gradient_variance(loss_fn, 0.0 * jnp.ones(2), jnp.eye(2)))
      0.5

    Args:
      loss_fn: (params, batch) -> scalar.
      params: where it is measured; half precision is seen in float32.
      batches: a tree of arrays [K, ...], the mini-batches; batches of other sizes have
        another variance.

    Returns:
      A scalar in at least float32. Never are more than two gradients held.

    Raises:
      ValueError: the loss is not a scalar, or batches have no common first axis K >= 1.

    References:
      Zhang et al., ICLR 2024, Fig. 6 and appendix C.3; Jiang et al., Fantastic
      Generalization Measures and Where to Find Them, ICLR 2020. The sums are Welford's, in
      which no two large numbers are subtracted.
    """
    params, num = real_params(params), check_batches(batches)
    add = compiled(_add_gradient, loss_fn)

    def step(
        carry: tuple[Tree, jax.Array], part: tuple[jax.Array, Tree]
    ) -> tuple[tuple[Tree, jax.Array], None]:
        return add(params, *carry, *part), None

    nothing = jnp.zeros((), jnp.result_type(*jax.tree.leaves(params)))
    parts = (np.arange(num), batches)
    (_, squares), _ = scan(step, (zeros_like(params), nothing), parts)
    return squares / num


def _add_gradient(
    loss_fn: LossFn,
    params: Tree,
    mean: Tree,
    squares: jax.Array,
    k: jax.Array,
    batch: Tree,
) -> tuple[Tree, jax.Array]:
    """The mean of the gradients 0 ... k and the sum of their squared distances to it."""
    gradient = jax.grad(scalar_loss(loss_fn))(params, batch)
    away = optax.tree.sub(gradient, mean)
    mean = jax.tree.map(lambda m, d: m + d / (k + 1), mean, away)
    return mean, squares + trees.dot(away, optax.tree.sub(gradient, mean))


class Conflict(NamedTuple):
    """How the domains' gradients lie to one another.

    Attributes:
      cosines: [M, M], of the angles between them; 0 beside a gradient that is 0.
      norms: [M], their lengths.
    """

    cosines: jax.Array
    norms: jax.Array


def gradient_conflict(loss_fn: LossFn, params: Tree) -> Conflict:
    """The cosines between the domains' gradients, below 0 where they conflict.

    cosines_ij = <g_i, g_j> / (norms_i * norms_j) and norms_i = norm(g_i), of g_i = grad L_i

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> def loss_fn(w):
      ...     return jnp.stack([w[0], -2 * w[0], w[1]])
      >>> conflict = dj.diagnostics.gradient_conflict(loss_fn, jnp.zeros(2))
      >>> print(conflict.cosines[0], conflict.norms)
      [ 1. -1.  0.] [1. 2. 1.]

    Args:
      loss_fn: (params) -> losses [M]; a scalar counts as one domain.
      params: where it is measured; half precision is seen in float32.

    Returns:
      The `Conflict`, in at least float32. All M gradients are held at once.

    References:
      Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, Definition 1.
    """
    params = real_params(params)
    losses = jax.eval_shape(domain_losses(loss_fn), params)[0]
    gradient = compiled(_gradient, loss_fn)
    gradients = [gradient(params, row) for row in np.eye(losses.size, dtype=losses.dtype)]
    products = _products(gradients)
    norms = jnp.sqrt(jnp.diag(products))
    cosines = trees.safe_divide(products, norms[:, None] * norms[None, :])
    return Conflict(jnp.clip(cosines, -1.0, 1.0), norms)


def _gradient(loss_fn: LossFn, params: Tree, weights: jax.Array) -> Tree:
    here = at_once(domain_losses(loss_fn), params, weights)
    return here.value_and_grad(weighted_mean).gradient


@jax.jit
def _products(gradients: list[Tree]) -> jax.Array:
    return jnp.array([[trees.dot(a, b) for b in gradients] for a in gradients])


def angle(a: Tree, b: Tree) -> jax.Array:
    """The angle between two trees, such as one step's perturbation and the next one's.

    angle = 2 * atan2(norm(u - v), norm(u + v)) with u = a / norm(a), v = b / norm(b)

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> print(dj.diagnostics.angle(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])))
      1.571

    Args:
      a: a tree of arrays.
      b: a tree of the same shapes.

    Returns:
      A scalar in [0, pi], in radians and at least float32; 0 if either tree is 0. As exact
      near 0 and pi, where the arc cosine loses half of the digits.

    References:
      Zhang et al., ICLR 2024, Theorem 1, Eq. 17: phi_t <= eta_t * Gamma, of successive
      perturbations. The formula is Kahan's, How Futile are Mindless Assessments of Roundoff
      in Floating-Point Computation?, 2006, section 12.
    """
    return _angle(real_params(a), real_params(b))


@jax.jit
def _angle(a: Tree, b: Tree) -> jax.Array:
    u, v = (trees.with_norm(tree, 1.0) for tree in (a, b))
    apart, along = trees.norm(optax.tree.sub(u, v)), trees.norm(optax.tree.add(u, v))
    zero = (trees.norm(u) == 0) | (trees.norm(v) == 0)
    return jnp.where(zero, 0.0, 2 * jnp.arctan2(apart, along))
