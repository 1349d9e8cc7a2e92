"""A folder that holds one run: what it is, where it stands, what it measured.

config.json        what the run is; a run of another config refuses the folder
environment.json   versions, commit and machine, of the process that ran it last
metrics.jsonl      a line per logged window and per evaluation
tensorboard/       the same for TensorBoard
checkpoints/       Orbax, the last one
result.json        the record, once the run is finished
"""

import dataclasses
import functools
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from experiments.config import RunConfig
from experiments.files import is_unused, write_json
from experiments.layout import Layout
from experiments.training import TrainState

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


@functools.cache  # of the code that runs, whatever is committed meanwhile
def environment() -> dict[str, Any]:
    """Versions, commit and machine: what one must know to make the numbers again."""
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
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class RunFolder:
    """Opens, or goes on with, the folder of a run.

    Args:
      path: the folder; made when it is missing. Several processes must share it.
      config: of the run.
      layout: of the run; one process writes, but for the checkpoints, which all do.

    Raises:
      ValueError: the folder holds a run of another config; the message lists the fields
        that differ.
    """

    def __init__(self, path: Path, config: RunConfig, layout: Layout) -> None:
        self.path = path
        self.config = config
        self._layout = layout
        _refuse_another_config(path, config)
        layout.wait(f"{path} was looked at")
        if layout.writes:
            write_json(path / "config.json", dataclasses.asdict(config))
            if self.result() is None:
                write_json(path / "environment.json", environment())
        layout.wait(f"{path} was opened")
        # Not asynchronous: the next step donates the buffers that would still be written.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._checkpoints = ocp.CheckpointManager(
            (path / "checkpoints").resolve(), options=options
        )

    def result(self) -> dict[str, Any] | None:
        """The record of the finished run, or None."""
        return read_result(self.path)

    def finish(self, record: dict[str, Any]) -> None:
        """Keeps the record: from here on the run is finished."""
        if self._layout.writes:
            write_json(self.path / "result.json", record)
        self._layout.wait(f"{self.path} was finished")

    def save(self, state: TrainState) -> None:
        """Keeps the state in place of the one before."""
        self._checkpoints.save(int(state.step), args=ocp.args.StandardSave(state._asdict()))

    def checkpoint_step(self) -> int | None:
        """The step of the last checkpoint, or None where there is none."""
        return self._checkpoints.latest_step()

    def restore(self, fresh: TrainState) -> TrainState:
        """The state of the last checkpoint, or `fresh` where there is none."""
        step = self.checkpoint_step()
        if step is None:
            return fresh
        target = ocp.args.StandardRestore(fresh._asdict())
        return TrainState(**self._checkpoints.restore(step, args=target))

    def close(self) -> None:
        """Ends what the checkpoints keep open."""
        self._checkpoints.close()


def read_result(path: Path) -> dict[str, Any] | None:
    """The record of the run in this folder, or None when it is not finished."""
    file = path / "result.json"
    return json.loads(file.read_text()) if file.exists() else None


def _refuse_another_config(path: Path, config: RunConfig) -> None:
    file = path / "config.json"
    if not file.exists():
        if not is_unused(path):
            raise ValueError(
                f"{path} is not empty and holds no run; choose another folder."
            )
        return
    # Through JSON, so that tuples and lists compare alike.
    found = flatten(json.loads(file.read_text()))
    wanted = flatten(json.loads(json.dumps(dataclasses.asdict(config))))
    names = sorted(found.keys() | wanted.keys())
    differing = [
        f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} asked"
        for name in names
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path} holds a run of another config ({'; '.join(differing)}). "
            "Choose another folder, or ask for the same config to go on with it."
        )


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
