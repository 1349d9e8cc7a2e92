"""Reads PyTorch's files and TorchScript archives, with NumPy alone and nothing run.

Both are pickles, and unpickling may run anything. The unpickler here knows tensors and
containers and refuses the rest by name. TorchScript has classes of its own, with code
beside them: their objects are read as attributes, the code is not read.
"""

import collections
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
MODULES_LIMIT = 10_000  # in a TorchScript archive
DEPTH_LIMIT = 50  # of modules in modules
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_torch(path: Path) -> Any:
    """What a file holds; a TorchScript archive is its tensors by dotted names.

    Raises:
      pickle.UnpicklingError: it holds something that is no tensor; the message names it.
      Exception: a damaged pickle may raise anything.
    """
    with path.open("rb") as file:
        zipped = zipfile.is_zipfile(file)
        file.seek(0)
        found = _read_zip(file) if zipped else _read_legacy(file)
    return _dotted(found) if isinstance(found, _Module) else found


class _Module:
    """An object of a TorchScript archive: its attributes, and nothing that can be called.

    A pickle sets attributes by `__setstate__` alone, where there is one; with slots, no
    state can put another in its place.
    """

    __slots__ = ("attributes",)
    attributes: dict[str, Any]

    def __new__(cls) -> "_Module":
        module = super().__new__(cls)
        module.attributes = {}
        return module

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise pickle.UnpicklingError("a module's state is not attributes by name")
        self.attributes = state


def _dotted(module: _Module) -> dict[str, np.ndarray]:
    """The tensors of a module and of those in it, by dotted names."""
    found: dict[str, np.ndarray] = {}
    waiting = [("", module, 0)]
    for prefix, part, depth in waiting:
        if len(waiting) > MODULES_LIMIT or depth > DEPTH_LIMIT:
            raise pickle.UnpicklingError("its modules hold each other without end")
        for name, value in part.attributes.items():
            if isinstance(value, np.ndarray):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value, depth + 1))
    return found


class _Storage(NamedTuple):
    """The flat numbers that tensors view, filled in when they are read."""

    dtype: np.dtype
    key: str


class _Unpickler(pickle.Unpickler):
    """Tensors and plain containers; anything else is refused.

    Args:
      file: of the pickle.
      rebuild: (storage, offset, size, stride) -> what stands for a tensor.
    """

    def __init__(self, file: Any, rebuild: Callable[..., Any]) -> None:
        super().__init__(file)
        self.storages: dict[str, np.dtype] = {}

        def first(data: Any, *_: Any) -> Any:
            return data

        lists = ("bool", "double", "int", "tensor")  # that TorchScript marks by a function
        marks = {("torch.jit._pickle", f"build_{kind}list"): first for kind in lists}
        self._known = marks | {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor"): rebuild,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild,
            ("torch._utils", "_rebuild_parameter"): first,
        }

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for."""
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module.split(".")[0] == "__torch__":  # a class of TorchScript's
            return _Module
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not a tensor"
            )
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """The storage of a tensor."""
        kind, dtype, key, _, _, *view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or any(view):
            raise pickle.UnpicklingError(f"it refers to {kind!r}, not to a whole storage")
        self.storages[key] = dtype
        return _Storage(dtype, key)


def _view(numbers: np.ndarray, offset: int, size: Any, stride: Any) -> np.ndarray:
    """A copy of what a tensor shows of its storage."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.empty(size, numbers.dtype)
    if offset < 0 or min(stride, default=0) < 0 or last >= len(numbers):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    steps = [step * numbers.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(numbers[offset:], size, steps).copy()


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if not pickles:
            raise pickle.UnpicklingError("the archive holds no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")
        read: dict[str, np.ndarray] = {}

        def rebuild(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> Any:
            if storage.key not in read:
                data = archive.read(f"{folder}data/{storage.key}")
                read[storage.key] = np.frombuffer(data, storage.dtype)
            return _view(read[storage.key], offset, size, stride)

        with archive.open(pickles[0]) as stream:
            return _Unpickler(stream, rebuild).load()


class _Later(NamedTuple):
    """A tensor whose numbers come after the pickle."""

    storage: _Storage
    offset: int
    size: Any
    stride: Any


def _read_legacy(file: BinaryIO) -> Any:
    def rebuild(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> _Later:
        return _Later(storage, offset, size, stride)

    def load() -> Any:
        return _Unpickler(file, rebuild).load()

    if load() != LEGACY_MAGIC:
        raise pickle.UnpicklingError(
            "it is neither a zip archive nor PyTorch's older format"
        )
    load()  # the version of the format
    if not load()["little_endian"]:
        raise pickle.UnpicklingError("its numbers are big-endian")
    unpickler = _Unpickler(file, rebuild)
    tree, numbers = unpickler.load(), {}
    for key in load():
        (count,) = struct.unpack("<q", file.read(8))
        dtype = unpickler.storages[key]
        data = file.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise EOFError("numbers are missing at its end")
        numbers[key] = np.frombuffer(data, dtype)
    return _filled(tree, numbers)


def _filled(tree: Any, numbers: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, _Later):
        return _view(numbers[tree.storage.key], tree.offset, tree.size, tree.stride)
    if isinstance(tree, Mapping):
        return {name: _filled(value, numbers) for name, value in tree.items()}
    return tree  # a list, of an optimizer's state, say, is not looked at
