"""Where a run's arrays lie: on one device or on many, of one process or of several.

All of it is JAX's own: a mesh of devices with one axis, "data", over which the examples of
a batch are spread, and shardings that `jit` is told. Losses, perturbation and updates are
those of the whole batch, whatever the number of devices.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

PARAMETERS = ("replicated", "sharded")
SMALLEST_SHARDED = 2**12  # numbers in an array; what is smaller is on every device whole


@dataclasses.dataclass(frozen=True)
class Layout:
    """The devices of a run, and what each of them holds.

    Attributes:
      devices: of all processes, in the order of the batch's parts.
      parameters: `replicated`, all of them on every device, or `sharded`, each device a
        part of every large array, of the optimizer's state too (FSDP).
    """

    devices: tuple[Any, ...]
    parameters: str = "replicated"

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices along one axis, "data"."""
        return jax.make_mesh(
            (len(self.devices),),
            ("data",),
            axis_types=(AxisType.Auto,),
            devices=self.devices,
        )

    @property
    def process_count(self) -> int:
        """Number of processes that hold the devices."""
        return len({device.process_index for device in self.devices})

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes a run's files."""
        return self.process_count == 1 or jax.process_index() == 0

    @property
    def replicated(self) -> NamedSharding:
        """The whole array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def spread(self) -> NamedSharding:
        """A part of the first axis on each device."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    def of_state(self, state: Any) -> Any:
        """The shardings of a tree of parameters and what goes with them."""
        return jax.tree.map(lambda leaf: self._of_array(leaf.shape), state)

    def _of_array(self, shape: tuple[int, ...]) -> NamedSharding:
        """Sharded along the longest axis that the devices divide; else replicated."""
        count = len(self.devices)
        axes = [axis for axis, size in enumerate(shape) if size % count == 0]
        large = np.prod(shape, dtype=int) >= SMALLEST_SHARDED
        if self.parameters == "replicated" or not (large and axes):
            return self.replicated
        longest = max(axes, key=lambda axis: shape[axis])
        return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, "data"))

    def gather(self, tree: Any) -> Any:
        """The weights that lie in parts, whole where they are used.

        Gradients by them lie in parts again. Left to itself the compiler would move the
        activations too, which are larger.
        """
        if self.parameters == "replicated":
            return tree
        parts = jax.lax.with_sharding_constraint(tree, self.of_state(tree))
        return jax.lax.with_sharding_constraint(parts, self.replicated)

    def put(self, tree: Any, shardings: Any) -> Any:
        """Places arrays that every process has whole."""

        def place(array: Any, sharding: NamedSharding) -> jax.Array:
            whole = np.asarray(array)
            return jax.make_array_from_callback(
                whole.shape, sharding, lambda part: whole[part]
            )

        if isinstance(shardings, NamedSharding):
            return jax.tree.map(lambda array: place(array, shardings), tree)
        return jax.tree.map(place, tree, shardings)

    def join(self, part: np.ndarray) -> jax.Array:
        """The array whose part along the first axis each process has."""
        return jax.make_array_from_process_local_data(self.spread, part)

    def whole(self, tree: Any) -> Any:
        """The arrays as NumPy's, on every process."""
        if self.process_count == 1:
            return jax.device_get(tree)
        return jax.device_get(jax.jit(lambda x: x, out_shardings=self.replicated)(tree))

    def dividing(self, size: int) -> "Layout":
        """The layout on as many of its devices as divide a batch of that size."""
        count = len(self.devices)
        while size % count:
            count -= 1
        return dataclasses.replace(self, devices=self.devices[:count])

    def check_batch(self, size: int) -> None:
        """Raises a ValueError unless a batch of that size can be spread."""
        if size % len(self.devices):
            raise ValueError(
                f"a batch of {size} examples cannot be spread over {len(self.devices)} "
                "devices; choose a batch_size that they divide, or fewer --devices."
            )

    def wait(self, what: str) -> None:
        """Returns when every process has come here."""
        if self.process_count > 1:
            multihost_utils.sync_global_devices(what)


def one_device() -> Layout:
    """The first device of this process."""
    return Layout((_list_devices(jax.local_devices)[0],))


def all_devices(count: int | None = None, parameters: str = "replicated") -> Layout:
    """The first `count` devices of all processes; None is all of them."""
    devices = _list_devices(jax.devices)
    if count is not None and not 1 <= count <= len(devices):
        raise ValueError(
            f"devices must be in 1..{len(devices)}, those there are; got {count}."
        )
    return Layout(tuple(devices[:count]), parameters)


def _list_devices(devices: Callable[[], list[Any]]) -> list[Any]:
    try:
        return devices()
    except (RuntimeError, AssertionError) as error:  # no driver, or no such platform
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(
            f"JAX finds no device, with JAX_PLATFORMS={asked}. {error} Set it to a "
            "platform that this machine has, e.g. JAX_PLATFORMS=cpu."
        ) from error
