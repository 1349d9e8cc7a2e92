"""Weights of a file, by PyTorch's names -> variables of a backbone, by Flax's."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from flax import traverse_util

from experiments.models.vit import resize_positions

Path = tuple[str, ...]
PathOf = Callable[[str], Path | None]

# PyTorch's last names; kernels, norms' scales and tables of embeddings are `weight` there.
LEAVES = {
    "weight": (("params", "kernel"), ("params", "scale"), ("params", "embedding")),
    "bias": (("params", "bias"),),
    "running_mean": (("batch_stats", "mean"),),
    "running_var": (("batch_stats", "var"),),
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
    wanted: dict[Path, Any] = traverse_util.flatten_dict(dict(variables))  # pyright: ignore[reportAssignmentType]
    found, wrong = {}, []
    for name, array in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        try:
            path = target(name, path_of, wanted)
        except (KeyError, IndexError):
            wrong.append(f"{name}: not of this model")
            continue
        if path is None:
            continue
        shape = wanted[path].shape
        value = _value(path, array, shape)
        if value.shape != shape:
            wrong.append(f"{name}: shape {array.shape} does not make {shape}")
        found[path] = value.astype(wanted[path].dtype)
    wrong += [f"{'/'.join(path)}: missing" for path in wanted if path not in found]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise ValueError(f"weights that do not fit: {'; '.join(wrong[:10])}{more}.")
    return traverse_util.unflatten_dict(found)


def target(name: str, path_of: PathOf, wanted: Collection[Path]) -> Path | None:
    """Where a tensor of PyTorch's stands among `wanted`; None if it is to be left out.

    Raises:
      KeyError: the tensor is not of this model.
    """
    layer, _, leaf = name.rpartition(".")
    if leaf.startswith("in_proj_"):  # torch's attention has no layer of its own there
        layer, leaf = f"{layer}.in_proj", leaf.removeprefix("in_proj_")
    if leaf not in LEAVES:  # a parameter by itself, such as the class token
        layer = name
    path = path_of(layer)
    if path is None:
        return None
    candidates = [(top, *path, last) for top, last in LEAVES.get(leaf, ())]
    for candidate in (*candidates, ("params", *path)):
        if candidate in wanted:
            return candidate
    raise KeyError(name)


def _value(path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in Flax's order of axes."""
    if path[-1] == "pos_embed" and array.ndim == 3 and array.shape != shape:
        return resize_positions(array, shape[1])
    if path[-1] != "kernel":
        return array
    if array.ndim == 4:  # [out, in, height, width]
        array = array.transpose(2, 3, 1, 0)
        return array[0, 0] if len(shape) == 2 else array  # a 1x1 convolution as a product
    return array.T
