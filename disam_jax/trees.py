"""Arithmetic on trees of arrays in at least float32, safe at zero.

In bfloat16 a norm keeps two digits, and in float16 it overflows at 65504: the length
of a perturbation must not depend on that. Every product and norm of the package is a sum
of elementwise products, which stays where the arrays are: of sharded arrays nothing but
the scalar is exchanged. The rest of the tree arithmetic is `optax.tree`'s.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import chex
import jax
import jax.numpy as jnp

# A tree of arrays. chex and Optax each spell it as a union, the two differ, and neither
# admits the trees of Flax NNX.
Tree: TypeAlias = Any


def at_least_float32(tree: Tree) -> Tree:
    """Returns `tree` with half-precision leaves as float32, others as they are."""

    def widen(leaf: chex.Array) -> chex.Array:
        half = jnp.finfo(jnp.result_type(leaf)).bits < 32
        return jnp.asarray(leaf, jnp.float32 if half else None)

    return jax.tree.map(widen, tree)


def dot(a: Tree, b: Tree) -> chex.Array:
    """Returns sum(a * b) over all leaves, a scalar in at least float32.

    Of complex leaves real and imaginary parts are multiplied each with its own.
    """
    pairs = zip(*map(jax.tree.leaves, map(at_least_float32, (a, b))), strict=True)
    # For real numbers, both of the functions beside the product do nothing.
    products = [jnp.sum(jnp.real(jnp.conj(x) * y)) for x, y in pairs]
    return sum(products, start=jnp.zeros([], jnp.result_type(jnp.float32, *products)))


def norm(tree: Tree) -> chex.Array:
    """Returns the l2 norm over all leaves; its derivative at zero is zero, not NaN.

    In float32 a norm below about 1e-19 is 0 and one above 1.8e19 infinite, as its square.
    Whether something is zero is asked of its norm, never of the sum below the root: XLA
    repeats what is cheap, here the sum over all leaves, in each kernel that reads it, and
    only from the root on computes it once.
    """
    return sqrt(dot(tree, tree))


@jax.custom_jvp
def sqrt(x: chex.Array) -> chex.Array:
    """Returns the square root of x >= 0; its derivative at zero is zero, not infinite."""
    return jnp.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: Any, tangents: Any) -> Any:
    root = sqrt(*primals)
    return root, safe_divide(0.5, root) * tangents[0]


def safe_divide(numerator: float | chex.Array, denominator: chex.Array) -> chex.Array:
    """Returns numerator / denominator, and 0 where the denominator is 0."""
    return numerator / jnp.where(denominator == 0, jnp.inf, denominator)


def scale(factor: Any, tree: Tree) -> Tree:
    """Returns factor * tree in the dtypes of `tree`, whatever the scalar's is."""
    return jax.tree.map(lambda leaf: jnp.asarray(factor, leaf.dtype) * leaf, tree)


def with_norm(tree: Tree, length: Any) -> Tree:
    """Returns `tree` scaled to that l2 norm over all leaves; zeros stay zeros."""
    return scale(safe_divide(length, norm(tree)), tree)


def orthogonal(tree: Tree, to: Tree) -> Tree:
    """Returns the part of `tree` orthogonal to `to`, all leaves together; all, to zeros."""
    along = safe_divide(dot(tree, to), norm(to) ** 2)
    return jax.tree.map(lambda a, b: a - jnp.asarray(along, b.dtype) * b, tree, to)


def cast_like(tree: Tree, other: Tree) -> Tree:
    """Returns `tree` in the dtypes of `other`'s leaves."""
    return jax.tree.map(lambda leaf, like: leaf.astype(jnp.result_type(like)), tree, other)


def drawn_like(draw: Callable[..., chex.Array], key: chex.PRNGKey, tree: Tree) -> Tree:
    """Returns random leaves draw(key, shape, dtype), that lie where `tree`'s leaves lie."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        # What is added is 0, and brings its sharding along.
        draw(key, leaf.shape, leaf.dtype) + jnp.zeros_like(leaf)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def zeros_like(tree: Tree) -> Tree:
    """Returns zeros that vary over the same device axes as `tree`: a scan's first carry."""

    def zeros(leaf: chex.Array) -> chex.Array:
        return vary(jnp.zeros_like(leaf), tuple(_varies_over(leaf)))

    return jax.tree.map(zeros, tree)


def vary(tree: Tree, axis_name: str | tuple[str, ...]) -> Tree:
    """Returns `tree` as arrays that may differ from device to device along the axes.

    Only `shard_map` tells the two apart; elsewhere `tree` comes back as it is.
    """
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    manual = jax.sharding.get_abstract_mesh().manual_axes

    def cast(leaf: chex.Array) -> chex.Array:
        new = tuple(n for n in names if n in manual and n not in _varies_over(leaf))
        if not new:
            return leaf
        if hasattr(jax.lax, "pcast"):  # since jax 0.9
            return jax.lax.pcast(leaf, new, to="varying")
        return jax.lax.pvary(leaf, new)  # pyright: ignore[reportAttributeAccessIssue]

    return jax.tree.map(cast, tree)


def _varies_over(leaf: chex.Array) -> frozenset[str]:
    return getattr(jax.typeof(leaf), "vma", frozenset())
