"""The density of a Hessian's eigenvalues, by stochastic Lanczos quadrature."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from disam_jax.diagnostics.checks import real_params
from disam_jax.diagnostics.compiled import scan
from disam_jax.diagnostics.hessian import product_with
from disam_jax.diagnostics.lanczos import eigenpairs, lanczos
from disam_jax.domains import LossFn
from disam_jax.hyperparameters import Number, check_integer, check_number
from disam_jax.trees import Tree


class SpectralDensity(NamedTuple):
    """How the eigenvalues of a Hessian are spread, as points of mass and as a curve.

    Attributes:
      nodes: [samples, iterations], eigenvalues that each random vector sees, largest first.
      weights: [samples, iterations], >= 0, each row of sum 1: the shares of all eigenvalues
        that they stand for. sum(weights * f(nodes)), averaged over the samples, estimates
        the mean of f over the eigenvalues, exactly for polynomials f of a degree below
        2 * iterations, but for the random vectors.
      grid: [points], eigenvalues.
      density: [points], >= 0, with an integral of 1.
    """

    nodes: jax.Array
    weights: jax.Array
    grid: jax.Array
    density: jax.Array


def spectral_density(
    loss_fn: LossFn,
    params: Tree,
    key: jax.Array,
    *,
    samples: int = 4,
    iterations: int | None = None,
    width: Number = 0.01,
    points: int = 512,
) -> SpectralDensity:
    """The density of the eigenvalues of the Hessian, of all of them and not the top alone.

    density(t) = mean_s sum_k weights_sk * N(t; nodes_sk, sigma**2), of each point of the
    grid the mean over its cell, with the eigenvalues nodes_sk of T_s = Q_s H Q_s^T as in
    `hessian_top_eigenvalues`, weights_sk the squared first entries of T_s' eigenvectors,
    and sigma = width * max(abs(nodes)).

    Of a part of the parameters, such as a layer: `loss_fn, params = block(...)`.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def loss_fn(w):  # one eigenvalue 6 and nine 2
      ...     return 3 * w[0] ** 2 + jnp.sum(w[1:] ** 2)
      >>> found = dj.diagnostics.spectral_density(
      ...     loss_fn, jnp.ones(10), jax.random.key(0), samples=100, iterations=2)
      >>> print(found.nodes[0], found.weights.mean(axis=0).round(1))
      [6. 2.] [0.1 0.9]

    Args:
      loss_fn: (params) -> scalar, differentiable forwards over backwards.
      params: where it is measured, n numbers; half precision is seen in float32.
      key: of the random vectors.
      samples: >= 1, random vectors.
      iterations: in 1 ... n, of each vector, each a product with H and a row to hold; None
        is min(n, 64).
      width: >= 1e-6, of the curve's Gaussians, in units of max(abs(nodes)).
      points: >= 2, of the curve.

    Returns:
      The `SpectralDensity`, in at least float32.

    Raises:
      ValueError: an argument is out of its range, or the loss is not a scalar.

    References:
      Golub and Welsch, 1969; Ghorbani et al., An Investigation into Neural Net Optimization
      via Hessian Eigenvalue Density, ICML 2019, Algorithm 1, whose code takes for sigma**2
      1e-5 times the range of the nodes.
    """
    params = real_params(params)
    n = sum(leaf.size for leaf in jax.tree.leaves(params))
    check_integer("samples", samples)
    iterations = min(n, 64) if iterations is None else iterations
    check_integer("iterations", iterations, 1, n, "at most the number of parameters")
    check_integer("points", points, 2)
    check_number("width", width, at_least=1e-6)
    product = product_with(loss_fn, params)

    def sample(_: None, key: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array]]:
        values, vectors = eigenpairs(lanczos(product, params, key, iterations)[0])
        return None, (values, vectors[0] ** 2)

    _, (nodes, weights) = scan(sample, None, jax.random.split(key, samples))
    return SpectralDensity(nodes, weights, *_curve(nodes, weights, width, points))


def _curve(
    nodes: jax.Array, weights: jax.Array, width: Number, points: int
) -> tuple[jax.Array, jax.Array]:
    low, high = jnp.min(nodes), jnp.max(nodes)
    largest = jnp.maximum(jnp.abs(low), jnp.abs(high))
    sigma = width * jnp.where(largest > 0, largest, 1.0)
    grid = jnp.linspace(low - 5 * sigma, high + 5 * sigma, points)

    spacing = grid[1] - grid[0]

    # The integral over each cell: of a peak between two points nothing is lost.
    def mass(low: jax.Array, high: jax.Array) -> jax.Array:
        above, below = (jax.scipy.stats.norm.cdf(x, nodes, sigma) for x in (high, low))
        return jnp.sum(weights * (above - below)) / len(nodes)

    edges = jnp.append(grid, grid[-1] + spacing) - spacing / 2
    return grid, jax.vmap(mass)(edges[:-1], edges[1:]) / spacing
