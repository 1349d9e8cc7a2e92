"""Masks: which parameters are perturbed."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from disam_jax.trees import Tree

Mask = Tree | Callable[[Tree], Tree] | None


def only_where(
    mask: Mask, perturbation: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The perturbation of the parameters whose mask is True; the others do not move."""

    def label(flag: Any) -> str:
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"mask must hold bools; got {flag!r} ({type(flag).__name__}).")
        return "perturbed" if flag else "fixed"

    def labels(params: Tree) -> Tree:
        return jax.tree.map(label, mask(params) if callable(mask) else mask)

    return optax.partition(
        {"perturbed": perturbation, "fixed": optax.set_to_zero()}, labels
    )


def normalization_layers(params: Tree) -> Tree:
    """A mask that is True for the parameters of normalization layers, by their names.

    Example:
      >>> normalization_layers({"BatchNorm_0": {"scale": 1.0}, "Dense_0": {"bias": 0.0}})
      {'BatchNorm_0': {'scale': True}, 'Dense_0': {'bias': False}}

    Args:
      params: a tree with names, as Flax makes.

    Returns:
      A tree of bools: whether "norm" or "bn" is in a leaf's path, in any case of letters.

    Raises:
      ValueError: no parameter has such a name.

    References:
      Mueller et al., Normalization Layers Are All That Sharpness-Aware Minimization Needs,
      NeurIPS 2023; the rule of the authors' code.
    """

    def is_normalization(path: Any, leaf: Any) -> bool:
        del leaf
        name = jax.tree_util.keystr(path).lower()
        return "norm" in name or "bn" in name

    mask = jax.tree_util.tree_map_with_path(is_normalization, params)
    if not any(jax.tree.leaves(mask)):
        raise ValueError(
            "no parameter's name holds 'norm' or 'bn'; give the mask of the normalization "
            "layers yourself."
        )
    return mask
