"""Reads weights from `.safetensors` and PyTorch files, with NumPy alone and nothing run."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from experiments.models.torch_files import read_torch

CONTAINERS = ("state_dict", "model", "state_dict_ema", "model_state_dict")

State = dict[str, np.ndarray]


def read_weights(path: Path) -> State:
    """The tensors of a file by name.

    Args:
      path: a `.safetensors` file, a PyTorch file in the zip format or the older one, or a
        TorchScript archive.

    Returns:
      name -> array. A state dict inside another, and a `module.` before every name, are
      taken off.

    Raises:
      ValueError: there is no such file, it is cut short, or it holds something other than
        tensors and plain containers; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"the weights file {path} does not exist")
    try:
        tensors = _tensors(_read(path))
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as weights: {error}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{path} is cut short or no weights file: {error!r}") from error
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): x for name, x in tensors.items()}
    return tensors


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    return read_torch(path)


def _tensors(found: Any) -> State:
    if isinstance(found, Mapping):
        for name in CONTAINERS:
            if isinstance(found.get(name), Mapping):
                return _tensors(found[name])
        return {k: v for k, v in found.items() if _is_tensor(k, v)}
    return {}


def _is_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, np.ndarray)
