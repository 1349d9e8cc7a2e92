"""The same measures of fewer parameters than all."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from disam_jax.domains import LossFn
from disam_jax.trees import Tree


def block(
    loss_fn: LossFn, params: Tree, mask: Tree | Callable[[Tree], Tree]
) -> tuple[LossFn, Tree]:
    """The loss as a function of a part of the parameters, the others held, and that part.

    Every measure of the pair is the block's: of the Hessian's the block on the diagonal, of
    sharpness that of a layer alone.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def loss_fn(w):
      ...     return w["body"] ** 2 + w["body"] * w["head"] + 3 * w["head"] ** 2
      >>> params = {"body": jnp.array(1.0), "head": jnp.array(2.0)}
      >>> loss_of_head, head = dj.diagnostics.block(
      ...     loss_fn, params, {"body": False, "head": True})
      >>> print(dj.diagnostics.hessian_top_eigenvalues(
      ...     loss_of_head, head, 1, jax.random.key(0)))
      [6.]

    Args:
      loss_fn: (params) -> losses [M] or a scalar.
      params: all parameters.
      mask: bools, a tree like params or a prefix of one, or a function of params that
        returns it: True for those that are measured.

    Returns:
      (loss_fn, params) of the block, a tree with None for what is held.

    Raises:
      TypeError: the mask holds something else than bools.
    """
    given = mask(params) if callable(mask) else mask
    measured, held = (_where(given, flag, params) for flag in (True, False))

    def of_block(held: Tree, measured: Tree) -> jax.Array:
        def either(a: Any, b: Any) -> Any:
            return b if a is None else a

        return loss_fn(jax.tree.map(either, measured, held, is_leaf=lambda x: x is None))

    return jax.tree_util.Partial(of_block, held), measured


def _where(mask: Tree, flag: bool, params: Tree) -> Tree:
    """The parameters whose mask is that flag, and None for the others."""

    def under(given: Any, tree: Tree) -> Tree:
        if not isinstance(given, bool | np.bool_):
            raise TypeError(
                f"mask must hold bools; got {given!r} ({type(given).__name__})."
            )
        return tree if given == flag else jax.tree.map(lambda _: None, tree)

    return jax.tree.map(under, mask, params)
