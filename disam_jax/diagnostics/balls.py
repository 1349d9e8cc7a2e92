"""Balls that a climb stays in, of l2 and of l-inf, around 0 and of any radius."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import Number
from disam_jax.trees import Tree


class Ball(NamedTuple):
    """What projected ascent asks of a norm.

    Attributes:
      direction: gradient -> the point of the unit ball that lies furthest along it.
      project: (point, radius) -> the ball's nearest.
      draw: (key, like) -> a random point of the unit ball, to start from.
    """

    direction: Callable[[Tree], Tree]
    project: Callable[[Tree, Number], Tree]
    draw: Callable[[jax.Array, Tree], Tree]


def _unit(tree: Tree) -> Tree:
    return trees.with_norm(tree, 1.0)


def _shorten(point: Tree, radius: Number) -> Tree:
    length = trees.norm(point)
    factor = jnp.where(length > radius, trees.safe_divide(radius, length), 1.0)
    return optax.tree.scale(factor, point)


def _on_sphere(key: jax.Array, like: Tree) -> Tree:
    return _unit(trees.drawn_like(jax.random.normal, key, like))


def _signs(tree: Tree) -> Tree:
    return jax.tree.map(jnp.sign, tree)


def _clip(point: Tree, radius: Number) -> Tree:
    return jax.tree.map(lambda x: jnp.clip(x, -radius, radius), point)


def _in_cube(key: jax.Array, like: Tree) -> Tree:
    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -1, 1)

    return trees.drawn_like(uniform, key, like)


BALLS = {"l2": Ball(_unit, _shorten, _on_sphere), "linf": Ball(_signs, _clip, _in_cube)}
