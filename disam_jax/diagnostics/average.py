"""The average case: how far the losses rise by random perturbations."""

import functools

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.diagnostics.checks import real_params
from disam_jax.diagnostics.climbs import losses_at
from disam_jax.diagnostics.compiled import compiled, scan, zeros_like
from disam_jax.diagnostics.estimates import Estimate, estimate
from disam_jax.hyperparameters import Number, check_integer, check_number
from disam_jax.passes.forward import LossFn
from disam_jax.trees import Tree


def average_sharpness(
    loss_fn: LossFn,
    params: Tree,
    rho: Number,
    key: jax.Array,
    *,
    adaptive: bool = False,
    samples: int = 100,
) -> Estimate:
    """How much each domain's loss rises on average by Gaussian perturbations.

    mean_i = mean_s L_i(w + rho * c * z_s) - L_i(w) with every entry of z_s a standard
    normal, and c = abs(w) if adaptive, else 1. For a small rho it tends to rho**2 / 2 times
    the trace of the Hessian, adaptively of the Hessian by w / c.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def loss_fn(w):  # rises by 0.1**2 * 1000 / 2 on average
      ...     return jnp.sum(w**2) / 2
      >>> found = dj.diagnostics.average_sharpness(
      ...     loss_fn, jnp.zeros(1000), 0.1, jax.random.key(0), samples=10)
      >>> print(found.mean)
      [5.]

    Args:
      loss_fn: (params) -> losses [M]; a scalar counts as one domain. All domains see the
        same perturbations, so that of a weighted mean is the weighted mean.
      params: where it is measured; half precision is perturbed in float32.
      rho: >= 0, the standard deviation of each entry of the perturbation, whose length is
        about rho times the root of the number of parameters.
      key: of the samples.
      adaptive: the perturbation of a parameter is in units of abs(w): scales of layers that
        cancel one another change nothing.
      samples: >= 2, each a forward pass.

    Returns:
      The `Estimate` of [M], in at least float32.

    Raises:
      ValueError: rho is negative or not finite, or samples < 2.

    References:
      Andriushchenko et al., ICML 2023, the average case of section 2. In their code a
      sample for the l-inf norm is uniform; here, as in the paper, it is Gaussian.
    """
    check_number("rho", rho)
    check_integer("samples", samples, 2, why="for a standard error")
    params = real_params(params)
    at = compiled(losses_at, loss_fn)
    losses = at(params, zeros_like(params))

    def sample(_: None, key: jax.Array) -> tuple[None, jax.Array]:
        return None, at(params, _drawn(params, rho, key, adaptive)) - losses

    return estimate(scan(sample, None, jax.random.split(key, samples))[1])


@functools.partial(jax.jit, static_argnums=3)
def _drawn(params: Tree, rho: Number, key: jax.Array, adaptive: bool) -> Tree:
    eps = optax.tree.scale(rho, trees.drawn_like(jax.random.normal, key, params))
    if adaptive:
        eps = optax.tree.mul(jax.tree.map(jnp.abs, params), eps)
    return optax.tree.cast_like(eps, params)
