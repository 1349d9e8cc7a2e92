"""The Hessian of a loss: its products with vectors, and its top.

Of any loss; what else is called a curvature, Gauss-Newton's matrix or Fisher's, is the
Hessian of a loss that curvature.py makes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from disam_jax import trees
from disam_jax.diagnostics.checks import real_params, scalar_loss
from disam_jax.diagnostics.compiled import compiled
from disam_jax.diagnostics.lanczos import Tridiagonal, eigenpairs, eigenvalues, lanczos
from disam_jax.domains import LossFn
from disam_jax.hyperparameters import check_integer
from disam_jax.trees import Tree


def hessian_product(loss_fn: LossFn, params: Tree, vector: Tree) -> Tree:
    """The product of the Hessian and a vector, H v = d/dt grad L(w + t v) at t = 0.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> def loss_fn(w):
      ...     return w[0] ** 2 + w[0] * w[1]
      >>> print(dj.diagnostics.hessian_product(loss_fn, jnp.ones(2), jnp.array([1.0, 0.0])))
      [2. 1.]

    Args:
      loss_fn: (params) -> scalar, differentiable forwards over backwards.
      params: where it is measured; half precision is seen in float32.
      vector: a tree in the shapes of params.

    Returns:
      A tree in the shapes of params, in at least float32; three gradients' work at most.

    Raises:
      ValueError: the loss is not a scalar.

    References:
      Pearlmutter, Fast Exact Multiplication by the Hessian, 1994.
    """
    params = real_params(params)
    vector = jax.tree.map(lambda v, w: v.astype(w.dtype), trees.to_real(vector), params)
    return trees.from_real(product_with(loss_fn, params)(vector))


def product_with(loss_fn: LossFn, params: Tree) -> Callable[[Tree], Tree]:
    """Returns (vector) -> H vector, of real trees, compiled once per loss function."""
    return functools.partial(compiled(hessian_times, loss_fn), params)


def hessian_times(loss_fn: LossFn, params: Tree, vector: Tree) -> Tree:
    """Returns H vector, to be compiled."""
    return jax.jvp(jax.grad(scalar_loss(loss_fn)), (params,), (vector,))[1]


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
    return eigenvalues(_top(loss_fn, params, num, key, iterations)[0])[:num]


class Eigenpairs(NamedTuple):
    """Eigenvalues, largest first, and the eigenvectors that belong to them.

    Attributes:
      values: [num].
      vectors: a tree like the parameters, each leaf [num, ...]: orthonormal, all leaves
        together. The sign of each is arbitrary.
    """

    values: jax.Array
    vectors: Tree


def hessian_top_eigenvectors(
    loss_fn: LossFn,
    params: Tree,
    num: int,
    key: jax.Array,
    *,
    iterations: int | None = None,
) -> Eigenpairs:
    """The largest eigenvalues of the Hessian and their eigenvectors, by Lanczos' iteration.

    H v_k = values_k v_k with v_k = Q^T s_k, of T's eigenvectors s_k; Q and T as in
    `hessian_top_eigenvalues`.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def loss_fn(w):
      ...     return jnp.sum(jnp.array([1.0, -3.0, 2.0]) * w**2)
      >>> found = dj.diagnostics.hessian_top_eigenvectors(
      ...     loss_fn, jnp.ones(3), 1, jax.random.key(0))
      >>> print(found.values, abs(found.vectors).round(3))
      [4.] [[0. 0. 1.]]

    Args:
      loss_fn: (params) -> scalar, differentiable forwards over backwards.
      params: where it is measured, n numbers; half precision is seen in float32.
      num: in 1 ... n, how many pairs.
      key: of the random vectors.
      iterations: in num ... n, as in `hessian_top_eigenvalues`; a vector needs about twice
        as many as its value, whose error is the square of the vector's.

    Returns:
      The `Eigenpairs`, in at least float32. Of equal eigenvalues the vectors are some
      orthonormal basis of their space.

    Raises:
      ValueError: num or iterations is out of its range, or the loss is not a scalar.

    References:
      Parlett, The Symmetric Eigenvalue Problem, 1998, chapter 13.
    """
    entries, basis = _top(loss_fn, params, num, key, iterations)
    values, vectors = eigenpairs(entries)
    return Eigenpairs(values[:num], trees.from_real(_combined(vectors[:, :num], basis)))


def _top(
    loss_fn: LossFn, params: Tree, num: int, key: jax.Array, iterations: int | None
) -> tuple[Tridiagonal, Tree]:
    params = real_params(params)
    n = sum(leaf.size for leaf in jax.tree.leaves(params))
    check_integer("num", num, at_most=n, why="the number of parameters")
    if iterations is None:
        iterations = min(n, max(64, 4 * num))
    check_integer("iterations", iterations, num, n, "from num to the number of parameters")
    return lanczos(product_with(loss_fn, params), params, key, iterations)


@jax.jit
def _combined(factors: jax.Array, basis: Tree) -> Tree:
    def combined(rows: jax.Array) -> jax.Array:
        return jnp.einsum("ik,i...->k...", factors.astype(rows.dtype), rows)

    return jax.tree.map(combined, basis)
