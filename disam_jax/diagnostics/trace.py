"""The trace of the Hessian."""

import jax

from disam_jax import trees
from disam_jax.diagnostics.checks import real_params
from disam_jax.diagnostics.compiled import compiled, scan
from disam_jax.diagnostics.estimates import Estimate, estimate
from disam_jax.diagnostics.hessian import hessian_times
from disam_jax.domains import LossFn
from disam_jax.hyperparameters import check_integer
from disam_jax.trees import Tree


def hessian_trace(
    loss_fn: LossFn, params: Tree, key: jax.Array, *, samples: int = 32
) -> Estimate:
    """The trace of the Hessian, the sum of all its eigenvalues, by Hutchinson's estimator.

    mean = mean_s z_s^T H z_s with every entry of z_s -1 or 1 at random, whose expectation
    is trace(H), and standard_error = std_s(z_s^T H z_s) / sqrt(samples)

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def loss_fn(w):
      ...     return jnp.sum(jnp.array([1.0, -3.0, 4.0]) * w**2)
      >>> print(dj.diagnostics.hessian_trace(loss_fn, jnp.ones(3), jax.random.key(0)))
      Estimate(mean=Array(4., dtype=float32), standard_error=Array(0., dtype=float32))

    Args:
      loss_fn: (params) -> scalar, differentiable forwards over backwards.
      params: where it is measured; half precision is seen in float32.
      key: of the samples.
      samples: >= 2, each one product with H.

    Returns:
      The `Estimate`, in at least float32; exact for a diagonal Hessian.

    Raises:
      ValueError: samples < 2, or the loss is not a scalar.

    References:
      Hutchinson, A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian
      Smoothing Splines, 1990.
    """
    check_integer("samples", samples, 2, why="for a standard error")
    params = real_params(params)
    sample = compiled(_sample, loss_fn)
    keys = jax.random.split(key, samples)
    return estimate(scan(lambda _, key: (None, sample(params, key)), None, keys)[1])


def _sample(loss_fn: LossFn, params: Tree, key: jax.Array) -> jax.Array:
    direction = trees.drawn_like(jax.random.rademacher, key, params)
    return trees.dot(direction, hessian_times(loss_fn, params, direction))
