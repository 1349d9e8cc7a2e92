"""The Hessian of a loss, seen through its products with vectors."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from disam_jax import trees
from disam_jax.diagnostics.checks import real_params, scalar_loss
from disam_jax.diagnostics.compiled import compiled, scan
from disam_jax.domains import LossFn
from disam_jax.hyperparameters import check_integer
from disam_jax.trees import Tree


def hessian_top_eigenvalues(
    loss_fn: LossFn,
    params: Tree,
    num: int,
    key: jax.Array,
    *,
    iterations: int | None = None,
) -> jax.Array:
    """The largest eigenvalues of the Hessian, largest first, by Lanczos' iteration.

    T = Q H Q^T, tridiagonal, with the rows of Q an orthonormal basis of the span of
    v, H v, H^2 v, ... for a random v; the largest eigenvalues of T tend to those of H.

    Each new row is made orthogonal to all others, twice; where nothing is left of it, a
    random one goes on, so that eigenvalues come as often as they are there. Not LOBPCG: it
    stores less, searches the last few products with H alone, and wants 5 * num < n.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def loss_fn(w):
      ...     return jnp.sum(jnp.array([1.0, -3.0, 2.0]) * w**2)
      >>> print(dj.diagnostics.hessian_top_eigenvalues(
      ...     loss_fn, jnp.ones(3), 2, jax.random.key(0)))
      [4. 2.]

    Args:
      loss_fn: (params) -> scalar, differentiable forwards over backwards.
      params: where it is measured, n numbers; half precision is seen in float32.
      num: in 1 ... n, how many eigenvalues.
      key: of the random vectors.
      iterations: in num ... n, the rows of Q, each held and one product with H; None is
        min(n, max(64, 4 * num)). With all n the result is exact. Eigenvalues close to one
        another need more than those far apart, and so do the copies of one among others.

    Returns:
      [num], in at least float32, at most the true ones.

    Raises:
      ValueError: num or iterations is out of its range, or the loss is not a scalar.

    References:
      Lanczos, 1950; Parlett, The Symmetric Eigenvalue Problem, 1998, section 6.9 (twice is
      enough) and chapter 13. Foret et al., ICLR 2021, Fig. 3, measure a minimum by
      lambda_1 and lambda_1 / lambda_5.
    """
    params = real_params(params)
    n = sum(leaf.size for leaf in jax.tree.leaves(params))
    check_integer("num", num, at_most=n, why="the number of parameters")
    if iterations is None:
        iterations = min(n, max(64, 4 * num))
    check_integer("iterations", iterations, num, n, "from num to the number of parameters")
    product = compiled(_hessian_times, loss_fn)

    def step(carry: _Lanczos, x: tuple[jax.Array, jax.Array]) -> tuple[_Lanczos, _Entries]:
        i, key = x
        basis = _with_row(carry.basis, i, carry.row)
        image = product(params, carry.row)
        row, size, entries = _next_row(basis, carry.row, image, carry.size, key)
        return _Lanczos(basis, row, size), entries

    start, keys = _start(params, key, iterations)
    _, entries = scan(step, start, (np.arange(iterations), keys))
    return _eigenvalues(entries)[:num]


class _Lanczos(NamedTuple):
    basis: Tree  # of [iterations, ...]: orthonormal rows, each a tree like the parameters
    row: Tree  # the next one
    size: jax.Array  # the longest image met, at most the Hessian's norm


class _Entries(NamedTuple):
    diagonal: jax.Array
    beside: jax.Array


@functools.partial(jax.jit, static_argnums=2)
def _start(params: Tree, key: jax.Array, iterations: int) -> tuple[_Lanczos, jax.Array]:
    keys = jax.random.split(key, iterations + 1)
    row = trees.with_norm(trees.drawn_like(jax.random.normal, keys[0], params), 1.0)
    basis = jax.tree.map(
        lambda w: jnp.broadcast_to(jnp.zeros_like(w), (iterations, *w.shape)), params
    )
    return _Lanczos(basis, row, jnp.zeros_like(trees.norm(row))), keys[1:]


# In place and by itself: together with what reads the basis, XLA would copy it.
@functools.partial(jax.jit, donate_argnums=0)
def _with_row(basis: Tree, i: jax.Array, row: Tree) -> Tree:
    def put(rows: jax.Array, new: jax.Array) -> jax.Array:
        here = jnp.arange(len(rows)).reshape(-1, *(1 for _ in new.shape)) == i
        return jnp.where(here, new[None], rows)

    return jax.tree.map(put, basis, row)


@jax.jit
def _next_row(
    basis: Tree, row: Tree, image: Tree, size: jax.Array, key: jax.Array
) -> tuple[Tree, jax.Array, _Entries]:
    """The row after this one, from its image under H, and their entries in T."""
    size = jnp.maximum(size, trees.norm(image))
    rest = _orthogonal(_orthogonal(image, basis), basis)
    length = trees.norm(rest)
    # What is left of an image inside the span is rounding.
    inside = length <= 10 * jnp.finfo(size.dtype).eps * size

    def fresh() -> Tree:
        random = trees.drawn_like(jax.random.normal, key, image)
        return _orthogonal(_orthogonal(random, basis), basis)

    # After n rows nothing is left, and nothing follows.
    following = trees.with_norm(jax.lax.cond(inside, fresh, lambda: rest), 1.0)
    diagonal = jnp.asarray(trees.dot(row, image))
    return following, size, _Entries(diagonal, jnp.where(inside, 0.0, length))


@jax.jit
def _eigenvalues(entries: _Entries) -> jax.Array:
    """All of T's, largest first."""
    beside = jnp.diag(entries.beside[:-1], 1)
    return jnp.linalg.eigvalsh(jnp.diag(entries.diagonal) + beside + beside.T)[::-1]


def _orthogonal(vector: Tree, basis: Tree) -> Tree:
    """What is left of the vector beside the rows; sums, which stay where the arrays are."""
    along = jax.vmap(lambda row: trees.dot(row, vector))(basis)

    def without(v: jax.Array, rows: jax.Array) -> jax.Array:
        factors = along.astype(v.dtype).reshape(-1, *(1 for _ in v.shape))
        return v - jnp.sum(factors * rows, axis=0)

    return jax.tree.map(without, vector, basis)


def _hessian_times(loss_fn: LossFn, params: Tree, direction: Tree) -> Tree:
    return jax.jvp(jax.grad(scalar_loss(loss_fn)), (params,), (direction,))[1]


class Estimate(NamedTuple):
    """The mean of random samples, and how far it may be from what they estimate.

    Attributes:
      mean: scalar.
      standard_error: scalar, the mean's standard deviation, estimated from the samples.
    """

    mean: jax.Array
    standard_error: jax.Array


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
    _, found = scan(lambda _, key: (None, sample(params, key)), None, keys)
    return Estimate(jnp.mean(found), jnp.std(found, ddof=1) / math.sqrt(samples))


def _sample(loss_fn: LossFn, params: Tree, key: jax.Array) -> jax.Array:
    direction = trees.drawn_like(jax.random.rademacher, key, params)
    return trees.dot(direction, _hessian_times(loss_fn, params, direction))
