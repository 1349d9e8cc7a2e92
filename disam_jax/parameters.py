"""Parameters of every kind that users have, seen as a tree of real arrays.

The arithmetic of a step is real: a complex leaf is taken for its two real coordinates, a
Python float for an array, and None for no parameter at all. What has no gradient is
refused by its name.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from disam_jax.trees import Tree


class Coordinates(NamedTuple):
    """The two real coordinates of a complex leaf.

    Attributes:
      real: the real part.
      imaginary: the imaginary part.
    """

    real: jax.Array
    imaginary: jax.Array


def to_real(tree: Tree) -> Tree:
    """Returns `tree` with arrays for leaves and `Coordinates` for complex ones."""

    def coordinates(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return Coordinates(leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else leaf

    return jax.tree.map(coordinates, tree)


def is_complex(tree: Tree) -> bool:
    """Whether a leaf is complex."""
    return any(map(jnp.iscomplexobj, jax.tree.leaves(tree)))


def from_real(tree: Tree) -> Tree:
    """The reverse of `to_real`."""
    return jax.tree.map(
        lambda node: jax.lax.complex(*node) if isinstance(node, Coordinates) else node,
        tree,
        is_leaf=lambda node: isinstance(node, Coordinates),
    )


def check_params(params: Tree) -> None:
    """Refuses parameters that cannot be perturbed.

    Raises:
      TypeError: a leaf is no floating-point or complex array or number.
      ValueError: an Optax mask stands around the method.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_masked)
    for path, leaf in leaves:
        if is_masked(leaf):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} is hidden by optax.masked, "
                "optax.partition or optax.multi_transform around the method, and the loss "
                "needs all parameters. Put the mask after the method: optax.chain(method, "
                "optax.masked(optimizer, mask)); which parameters are perturbed is the "
                "method's own argument mask=."
            )
        kind = _kind(leaf)
        if kind is not None:
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} is {kind}: only floating-point and "
                "complex numbers can be perturbed. Take it out of params and give it to "
                "the loss function beside them; with Equinox, "
                "eqx.partition(model, eqx.is_inexact_array)."
            )


def is_masked(node: Any) -> bool:
    """Whether a node is Optax's mark of what a mask hides."""
    return isinstance(node, optax.MaskedNode)


def _kind(leaf: Any) -> str | None:
    """What a leaf is that cannot be a parameter; None of one that can."""
    if isinstance(leaf, bool | int | np.bool_ | str) or not (
        hasattr(leaf, "dtype") or isinstance(leaf, float | complex)
    ):
        return f"{leaf!r} ({type(leaf).__name__})"
    dtype = jnp.result_type(leaf) if isinstance(leaf, float | complex) else leaf.dtype
    if jnp.issubdtype(dtype, jnp.inexact):
        return None
    return f"of dtype {dtype}"
