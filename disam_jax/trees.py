"""Arithmetic on trees of arrays in at least float32, safe at zero.

In bfloat16 a norm keeps two digits, and in float16 it overflows at 65504: the length
of a perturbation must not depend on that. The rest of the tree arithmetic is
`optax.tree`'s.
"""

from typing import Any, TypeAlias

import chex
import jax
import jax.numpy as jnp
import optax

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
    """Returns sum(a * b) over all leaves, a scalar in at least float32."""
    return jnp.asarray(optax.tree.vdot(at_least_float32(a), at_least_float32(b)))


def norm(tree: Tree) -> chex.Array:
    """Returns the l2 norm over all leaves; its derivative at zero is zero, not NaN."""
    square = dot(tree, tree)
    zero = square == 0  # and not > 0, which would make the norm of a NaN 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def safe_divide(numerator: float | chex.Array, denominator: chex.Array) -> chex.Array:
    """Returns numerator / denominator, and 0 where the denominator is 0."""
    nonzero = denominator != 0
    return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1.0), 0.0)


def with_norm(tree: Tree, length: Any) -> Tree:
    """Returns `tree` scaled to that l2 norm over all leaves; zeros stay zeros."""
    return optax.tree.scale(safe_divide(length, norm(tree)), tree)


def orthogonal(tree: Tree, to: Tree) -> Tree:
    """Returns the part of `tree` orthogonal to `to`, all leaves together; all, to zeros."""
    along = safe_divide(dot(tree, to), dot(to, to))
    return jax.tree.map(lambda a, b: a - along * b, tree, to)


def cast_like(tree: Tree, other: Tree) -> Tree:
    """Returns `tree` in the dtypes of `other`'s leaves."""
    return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), tree, other)


def zeros_like(tree: Tree) -> Tree:
    """Returns zeros that vary over the same device axes as `tree`: a scan's first carry."""

    def zeros(leaf: chex.Array) -> chex.Array:
        made = jnp.zeros_like(leaf)
        for axis_name in getattr(jax.typeof(leaf), "vma", ()):
            made = vary(made, axis_name)
        return made

    return jax.tree.map(zeros, tree)


def vary(tree: Tree, axis_name: str) -> Tree:
    """Returns `tree` as arrays that may differ from device to device along the axis.

    Only `shard_map` tells the two apart; elsewhere `tree` comes back as it is.
    """
    if axis_name not in jax.sharding.get_abstract_mesh().manual_axes:
        return tree

    def cast(leaf: chex.Array) -> chex.Array:
        if axis_name in getattr(jax.typeof(leaf), "vma", ()):
            return leaf
        if hasattr(jax.lax, "pcast"):  # since jax 0.9
            return jax.lax.pcast(leaf, axis_name, to="varying")
        return jax.lax.pvary(leaf, (axis_name,))  # pyright: ignore[reportAttributeAccessIssue]

    return jax.tree.map(cast, tree)
