"""Compiled programs, kept for all processes on machines that are alike."""

import re
import warnings
from pathlib import Path
from typing import Any

import jax

from experiments.devices import one_device
from experiments.fields import digest

DAMAGED = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")


def keep_compiled(folder: Path) -> Path:
    """Keeps what this process compiles, and takes what others like it have compiled.

    An entry that a killed process left in part is deleted when it is met, for JAX would
    never write it anew.

    Args:
      folder: of all kinds of machines.

    Returns:
      The folder of this kind; the user's own, where JAX was told of one.
    """
    own = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    kept = Path(own) if own else folder.resolve() / machine_kind()
    if not own:
        jax.config.update("jax_compilation_cache_dir", str(kept))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        # XLA's own caches make the folder's path a part of what an entry is found by.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    _delete_damaged(kept)
    return kept


def machine_kind() -> str:
    """The device, and of a CPU what its machine code depends on: model and features."""
    device = one_device().devices[0]
    kind = f"{device.platform}-{device.device_kind}"
    cpuinfo = Path("/proc/cpuinfo")
    if device.platform == "cpu" and cpuinfo.exists():
        text = cpuinfo.read_text()
        lines = re.findall(r"^(?:model name|flags|Features)\s*:.*$", text, re.MULTILINE)
        kind += f"-{digest(sorted(set(lines)), 8)}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", kind)


def _delete_damaged(kept: Path) -> None:
    """Deletes an entry of which JAX warns; the next process compiles it and keeps it."""
    show = warnings.showwarning

    def shown(message: Any, *rest: Any, **others: Any) -> None:
        damaged = DAMAGED.search(str(message))
        if damaged:  # the warning names the program, of which there may be several entries
            for entry in kept.glob(f"{damaged[1]}-*-cache"):
                entry.unlink(missing_ok=True)
        show(message, *rest, **others)

    warnings.filterwarnings("always", message=DAMAGED.pattern)
    warnings.showwarning = shown
