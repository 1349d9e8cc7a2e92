"""What changes a run's numbers beside its config: JAX's flags, and the machine."""

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    "disam_jax",
    "jax",
    "jaxlib",
    "optax",
    "chex",
    "flax",
    "orbax-checkpoint",
    "numpy",
)
# Other numbers altogether: with the same seed, other weights and other batches.
FLAGS = {
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_random_seed_offset": 0,
    "jax_threefry_partitionable": True,
}


def changed_flags() -> dict[str, Any]:
    """JAX's flags that change numbers and are not at their defaults."""
    values = {name: getattr(jax.config, name, usual) for name, usual in FLAGS.items()}
    plain = {name: getattr(value, "value", value) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value != FLAGS[name]}


def refuse_other_flags(trained: Path, then: Mapping[str, Any]) -> None:
    """Raises a ValueError that names the flags that are not as they were.

    Args:
      trained: the folder or the file that holds what was trained.
      then: the changed flags it was trained under; a flag that is missing, as from runs
        that kept none, had its default.
    """
    now = changed_flags()
    differing = {
        name: (then.get(name, FLAGS.get(name)), now.get(name, FLAGS.get(name)))
        for name in sorted(then.keys() | now.keys())
        if then.get(name, FLAGS.get(name)) != now.get(name, FLAGS.get(name))
    }
    if differing:
        listed = "; ".join(
            f"{name} was {was!r} and is {is_!r}" for name, (was, is_) in differing.items()
        )
        mend = ", ".join(
            f"no {name.upper()}" if was is None else f"{name.upper()}={was}"
            for name, (was, _) in differing.items()
        )
        raise ValueError(
            f"{trained} was trained under other flags of JAX, which change its numbers "
            f"({listed}). Set them as they were ({mend}), or choose another folder."
        )


def tell_other_machine(
    trained: Path, then: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Says on stderr where a run goes on with other last digits than it began with.

    Args:
      trained: its folder.
      then: the environment it was trained in last.
      now: this one.
    """
    was, is_ = _last_digits(then), _last_digits(now)
    differing = [
        f"{name} was {was[name]} and is {is_[name]}"
        for name in is_
        if was[name] is not None and was[name] != is_[name]
    ]
    if differing:
        print(
            f"{trained} goes on with other last digits than it began with: "
            f"{'; '.join(differing)}.",
            file=sys.stderr,
        )


def _last_digits(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What the last digits of every sum depend on; None is not known."""
    packages, device = environment.get("packages", {}), environment.get("device", {})
    return {
        "jax": packages.get("jax"),
        "jaxlib": packages.get("jaxlib"),
        "the device": device.get("kind"),
        "the processor": environment.get("processor"),
        "XLA_FLAGS": environment.get("xla_flags"),
    }


def xla_flags() -> str:
    """The options of the compiler that the environment gives."""
    return os.environ.get("XLA_FLAGS", "")


def environment() -> dict[str, Any]:
    """Versions, flags, commit, machine: what one must know to make the numbers again."""
    return {**_code_and_machine(), "flags": changed_flags(), "xla_flags": xla_flags()}


@functools.cache  # of the code that runs, whatever is committed meanwhile
def _code_and_machine() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "device": {"platform": device.platform, "kind": device.device_kind},
        "device_count": jax.device_count(),
    }


def _commit() -> str:
    """The commit, with a mark where tracked files differ from it; 'unknown' without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        described = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
