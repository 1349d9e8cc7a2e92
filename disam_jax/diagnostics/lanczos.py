"""Lanczos' iteration: a symmetric matrix, seen through products, as a tridiagonal one."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from disam_jax import trees
from disam_jax.diagnostics.compiled import scan
from disam_jax.trees import Tree


class Tridiagonal(NamedTuple):
    """T = Q A Q^T.

    Attributes:
      diagonal: [K].
      beside: [K], the entries beside it; the last has no place in T.
    """

    diagonal: jax.Array
    beside: jax.Array


def lanczos(
    product: Callable[[Tree], Tree], like: Tree, key: jax.Array, iterations: int
) -> tuple[Tridiagonal, Tree]:
    """Returns T and the orthonormal rows Q, a tree of [K, ...], of a random first row.

    Each new row is made orthogonal to all others, twice; where nothing is left of it, a
    random one goes on, so that eigenvalues come as often as they are there.
    """

    def step(carry: _Rows, x: tuple[jax.Array, jax.Array]) -> tuple[_Rows, Tridiagonal]:
        i, key = x
        basis = _with_row(carry.basis, i, carry.row)
        row, size, entries = _next_row(
            basis, carry.row, product(carry.row), carry.size, key
        )
        return _Rows(basis, row, size), entries

    start, keys = _start(like, key, iterations)
    last, entries = scan(step, start, (np.arange(iterations), keys))
    return entries, last.basis


@jax.jit
def eigenvalues(entries: Tridiagonal) -> jax.Array:
    """All of T's, largest first."""
    return jnp.linalg.eigvalsh(_dense(entries))[::-1]


@jax.jit
def eigenpairs(entries: Tridiagonal) -> tuple[jax.Array, jax.Array]:
    """All of T's eigenvalues [K], largest first, and its eigenvectors, the columns."""
    values, vectors = jnp.linalg.eigh(_dense(entries))
    return values[::-1], vectors[:, ::-1]


def _dense(entries: Tridiagonal) -> jax.Array:
    beside = jnp.diag(entries.beside[:-1], 1)
    return jnp.diag(entries.diagonal) + beside + beside.T


class _Rows(NamedTuple):
    basis: Tree  # of [iterations, ...]: orthonormal rows, each a tree like the parameters
    row: Tree  # the next one
    size: jax.Array  # the longest image met, at most the matrix' norm


@functools.partial(jax.jit, static_argnums=2)
def _start(like: Tree, key: jax.Array, iterations: int) -> tuple[_Rows, jax.Array]:
    keys = jax.random.split(key, iterations + 1)
    row = trees.with_norm(trees.drawn_like(jax.random.normal, keys[0], like), 1.0)
    basis = jax.tree.map(
        lambda w: jnp.broadcast_to(jnp.zeros_like(w), (iterations, *w.shape)), like
    )
    return _Rows(basis, row, jnp.zeros_like(trees.norm(row))), keys[1:]


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
) -> tuple[Tree, jax.Array, Tridiagonal]:
    """The row after this one, from its image, and their entries in T."""
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
    return following, size, Tridiagonal(diagonal, jnp.where(inside, 0.0, length))


def _orthogonal(vector: Tree, basis: Tree) -> Tree:
    """What is left of the vector beside the rows; sums, which stay where the arrays are."""
    along = jax.vmap(lambda row: trees.dot(row, vector))(basis)

    def without(v: jax.Array, rows: jax.Array) -> jax.Array:
        factors = along.astype(v.dtype).reshape(-1, *(1 for _ in v.shape))
        return v - jnp.sum(factors * rows, axis=0)

    return jax.tree.map(without, vector, basis)
