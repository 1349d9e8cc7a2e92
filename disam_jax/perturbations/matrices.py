"""Perturbations in a ball of matrix norms: each matrix as a map, not as a list of numbers.

A leaf is a matrix [..., out]: its last axis against all others, so that a convolution's
kernel [h, w, in, out] is the matrix [h * w * in, out]. A vector or a scalar is a matrix of
one column, for which both balls are the l2 ball. Nothing is reshaped, so that a sharded
leaf stays where it lies: of it only vectors are exchanged (nuclear), or the smaller Gram
matrix, if it is the longer side that is cut (spectral; else a product gathers the leaf).
"""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from disam_jax import trees
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_integer,
)
from disam_jax.perturbations.ascend import perturbation
from disam_jax.perturbations.masks import Mask
from disam_jax.trees import Tree

# x -> a * x + b * x**3 + c * x**5 of every singular value. The first, Muon's, takes values
# from 1e-5 on to between 0.68 and 1.14 in ten steps, from 4e-4 on in six; the second, the
# Newton-Schulz iteration of third order, from there to 1 in four, up to 1e-16. What is
# rounding grows as much, so that float32 bears six.
LIFT, POLISH = (3.4445, -4.7750, 2.0315), (15 / 8, -10 / 8, 3 / 8)
LIFTS = {32: 6, 64: 10}  # by the bits of the dtype


def ascend_nuclear(
    rho: Hyperparameter = 0.05, *, iterations: int = 300, mask: Mask = None
) -> optax.GradientTransformation:
    """The perturbation of the nuclear ball, eps = rho * u1 @ v1.T of every matrix.

    u1 and v1 are the gradient's top singular vectors: of all eps with a sum of singular
    values of rho, this one meets the gradient best, and it has rank one. They come from
    the power iteration, which starts at the image of a fixed random vector and ends when
    v1 stands still to the last digits. The steps it takes grow with the reciprocal of the
    gap between the two largest singular values; where they are equal, any vector between
    theirs is as good. Vectors and scalars: rho * g / norm(g). A zero matrix does not move.

    Every matrix moves by rho, so that the length of all is rho times the root of their
    number.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([[3.0, 0.0], [0.0, -4.0]])
      >>> tx = ascend_nuclear(rho=0.5)
      >>> print(tx.update(grad, tx.init(params), params)[0].round(4) + 0.0)
      [[ 0.   0. ]
       [ 0.  -0.5]]

    Args:
      rho: >= 0, the radius of each matrix; a float, array or schedule.
      iterations: >= 1, of the power method at most; the paper takes one a step.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation. Of a complex leaf each coordinate is a matrix.

    Raises:
      ValueError: rho is negative or not finite, or iterations no positive integer.

    References:
      Pethick et al., nuSAM, TMLR 2025. No code of theirs was found: the formula is that of
      the paper, from one power iteration made many.
    """
    radius = check_hyperparameter("rho", rho)
    check_integer("iterations", iterations)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        del params
        unit = jax.tree.map(lambda g: trees.with_norm(g, 1.0), grad)  # none underflows
        right = _top_right_vectors(unit, iterations)
        rank_one = jax.tree.map(
            lambda g, v: trees.with_norm(_times(g, v), 1.0) * v, unit, right
        )
        return optax.tree.scale(at_step(radius, count), rank_one)

    return perturbation(rule, mask=mask, rho=radius)


def ascend_spectral(
    rho: Hyperparameter = 0.05, *, mask: Mask = None
) -> optax.GradientTransformation:
    """The perturbation of the spectral ball, eps = rho * U @ V.T of every matrix.

    U and V hold the gradient's singular vectors: of all eps whose singular values are at
    most rho, this one meets the gradient best. It is the geometry of Muon, whose update is
    the same factor of a momentum, from matrix products alone: ten steps of Newton-Schulz,
    fourteen in float64. A singular value below 4e-4 of the matrix's norm (float64: 1e-5)
    counts for less than 1, one of zero for nothing but rounding, which leaves a matrix of
    low rank right to about 0.003 rho. Vectors and scalars: rho * g / norm(g).

    The length of a matrix's eps is rho times the root of its rank: this rho is far smaller
    than SAM's. Where widths change, a rho that follows them is `optax.chain` with a scale
    of each leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([[3.0, 0.0], [0.0, -4.0]])
      >>> tx = ascend_spectral(rho=0.5)
      >>> print(tx.update(grad, tx.init(params), params)[0].round(4) + 0.0)
      [[ 0.5  0. ]
       [ 0.  -0.5]]

    Args:
      rho: >= 0, the radius of each matrix; a float, array or schedule.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation. Of a complex leaf each coordinate is a matrix.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Pethick et al., TMLR 2025, with the spectral norm; the iteration of Jordan et al.,
      Muon, 2024, and then one that converges, where Muon's ends between 0.7 and 1.2.
    """
    radius = check_hyperparameter("rho", rho)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        del params
        return optax.tree.scale(at_step(radius, count), jax.tree.map(_polar, grad))

    return perturbation(rule, mask=mask, rho=radius)


def _times(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Matrix @ right as a column [..., 1]: sums of products, which stay where they are."""
    return jnp.sum(matrix * right, axis=_columns(matrix), keepdims=True)


def _columns(matrix: jax.Array) -> tuple[int, ...]:
    """The axes that a matrix's columns are counted by: the last, but of a vector none."""
    return (matrix.ndim - 1,) if matrix.ndim > 1 else ()


def _rows(matrix: jax.Array) -> tuple[int, ...]:
    """The axes that a matrix's rows are counted by: all others."""
    return tuple(range(matrix.ndim - len(_columns(matrix))))


def _top_right_vectors(matrices: Tree, iterations: int) -> Tree:
    """Each matrix's first right singular vector, [1, ..., out]; of zeros, zeros."""

    def image(matrix: jax.Array, right: jax.Array) -> jax.Array:
        back = jnp.sum(matrix * _times(matrix, right), axis=_rows(matrix), keepdims=True)
        return trees.with_norm(back, 1.0)

    def turn(state: tuple[jax.Array, Tree, jax.Array]) -> tuple[jax.Array, Tree, jax.Array]:
        step, right, _ = state
        new = jax.tree.map(image, matrices, right)
        return step + 1, new, trees.norm(optax.tree.sub(new, right))

    def moves(state: tuple[jax.Array, Tree, jax.Array]) -> jax.Array:
        step, _, moved = state
        return (step < iterations) & (moved > 8 * jnp.finfo(moved.dtype).eps)

    rows = jax.tree.map(lambda m: jnp.sum(m, axis=_rows(m), keepdims=True), matrices)
    first = trees.drawn_like(jax.random.normal, jax.random.key(0), rows)
    return jax.lax.while_loop(moves, turn, turn((jnp.asarray(0), first, rows)))[1]


def _polar(matrix: jax.Array) -> jax.Array:
    """U @ V.T of a matrix with the singular vectors U and V."""
    if matrix.ndim == 2 and matrix.shape[0] < matrix.shape[1]:
        return _polar(matrix.T).T  # the Gram matrix of the shorter side
    unit = trees.with_norm(matrix, 1.0)
    if matrix.ndim < 2:
        return unit
    here = jax.typeof(matrix).sharding
    whole = NamedSharding(here.mesh, PartitionSpec())

    def step(x: jax.Array, coefficients: jax.Array) -> tuple[jax.Array, None]:
        a, b, c = coefficients
        gram = jnp.einsum("...i,...j->ij", x, x, out_sharding=whole)
        powers = b * gram + c * gram @ gram
        turned = jnp.einsum("...i,ij->...j", x, powers, out_sharding=here)
        return a * x + turned, None

    steps = LIFTS[jnp.finfo(unit.dtype).bits] * (LIFT,) + 4 * (POLISH,)
    return jax.lax.scan(step, unit, jnp.asarray(steps, unit.dtype))[0]
