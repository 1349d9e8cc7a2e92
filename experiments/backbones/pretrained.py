"""Weights of a file, by PyTorch's names -> variables of a backbone, by Flax's."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from experiments.backbones.vit import resize_positions

Path = tuple[str, ...]
PathOf = Callable[[str], Path | None]

NORM_NAMES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def from_torch(state: dict[str, np.ndarray], path_of: PathOf, variables: Any) -> Any:
    """The variables with every value taken from `state`.

    Args:
      state: PyTorch's tensors by name.
      path_of: a layer's name, without its last part -> its path here; None for a layer
        that is left out, the classifier.
      variables: the backbone's own, for the shapes.

    Returns:
      Variables of the same tree and dtypes.

    Raises:
      ValueError: a tensor is missing, not known, or of another shape; the message lists
        them.
    """
    wanted = traverse_util.flatten_dict(jax.tree.map(np.asarray, dict(variables)))
    found, wrong = {}, []
    for name, array in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        target = _target(name, path_of, wanted)
        if target is None:
            continue
        if target not in wanted:
            wrong.append(f"{name}: not in this model")
            continue
        shape = wanted[target].shape
        value = _value(target, array, shape)
        if value.shape != shape:
            wrong.append(f"{name}: shape {array.shape}, expected to make {shape}")
        found[target] = value.astype(wanted[target].dtype)
    wrong += [f"{'/'.join(path)}: missing" for path in wanted if path not in found]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise ValueError(
            f"the weights do not fit the model: {'; '.join(wrong[:10])}{more}."
        )
    return traverse_util.unflatten_dict(found)


def _target(name: str, path_of: PathOf, wanted: dict[Path, Any]) -> Path | None:
    """The path of a tensor among `wanted`, or one that is not there if it is unknown."""
    for layer, _, last in (name.rpartition("."), name.rpartition("_"), (name, "", "")):
        if last in ("in_proj_weight", "in_proj_bias"):  # torch's attention writes it so
            layer, last = f"{layer}.in_proj", last.removeprefix("in_proj_")
        try:
            path = path_of(layer or name)
        except (KeyError, IndexError):
            continue
        if path is None:
            return None
        for target in (
            ("params", *path, "kernel" if last == "weight" else last),
            ("params", *path),
            *((top, *path, leaf) for top, leaf in (NORM_NAMES.get(last, ("", "")),)),
        ):
            if target in wanted:
                return target
    return ("unknown", name)


def _value(target: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in Flax's order of axes."""
    if target[-1] == "pos_embed" and array.shape[1] != shape[1]:
        return resize_positions(array, shape[1])
    if target[-1] != "kernel":
        return array
    if array.ndim == 4:  # [out, in, height, width]
        array = array.transpose(2, 3, 1, 0)
        return array[0, 0] if len(shape) == 2 else array  # a 1x1 convolution as a product
    return array.T
