"""A folder that holds one run: what it is, where it stands, what it measured.

config.json        what the run is; a run of another config refuses the folder
environment.json   versions, flags, commit and machine, of the process that ran it last
metrics.jsonl      a line per logged window and per evaluation
tensorboard/       the same for TensorBoard
checkpoints/       Orbax, the last one
result.json        the record, once the run is finished
"""

import contextlib
import dataclasses
import difflib
import errno
import functools
import glob
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from experiments.config.preset import Preset
from experiments.config.run import RunConfig
from experiments.devices import Layout
from experiments.files import UNFINISHED, is_unused, locked, read_json, write_json
from experiments.methods.registry import find_method
from experiments.training.metrics import read_metrics
from experiments.training.numerics import (
    environment,
    refuse_other_flags,
    tell_other_machine,
)
from experiments.training.program import TrainState

# What the system may say of a file that cannot be written, for the user to mend.
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
Guard = Callable[[Path], contextlib.AbstractContextManager[Any]]


def lock(path: Path) -> contextlib.AbstractContextManager[None]:
    """The kernel's lock on the folder of a run; see `locked`."""
    return locked(path, wait=False, what="training")


def claimed(path: Path) -> contextlib.AbstractContextManager[None]:
    """Nothing, where a claim guards the folder: a lock may outlive its machine."""
    return contextlib.nullcontext()


class RunFolder:
    """Opens, or goes on with, the folder of a run; a finished one is only read.

    Args:
      path: the folder; made when it is missing. Several processes must share it.
      config: of the run.
      layout: of the run; one process writes, but for the checkpoints, which all do.
      guard: folder -> what the writing process holds until `close`, for no other is to
        train there meanwhile; `contextlib.nullcontext` where the caller sees to that.

    Raises:
      ValueError: the folder holds a run of another config, or one that was trained under
        other flags of JAX, and the message lists what differs; or another process trains
        there, and the message says which.
    """

    def __init__(
        self, path: Path, config: RunConfig, layout: Layout, guard: Guard = lock
    ) -> None:
        self.path = path
        self.config = config
        self.layout = layout
        self._guard = guard
        self._opened = contextlib.ExitStack()
        refuse_another_run(path, config)
        layout.wait(f"{path} was looked at")
        if layout.writes and self.result() is None:
            self._hold()
        layout.wait(f"{path} was opened")

    def _hold(self) -> None:
        with contextlib.ExitStack() as opened:
            opened.enter_context(self._guard(self.path))
            refuse_another_run(self.path, self.config)  # it may have begun just now
            for left in self.path.glob("*" + UNFINISHED):
                left.unlink()
            file = self.path / "environment.json"
            if file.exists():
                tell_other_machine(self.path, read_json(file), environment())
            write_json(self.path / "config.json", dataclasses.asdict(self.config))
            write_json(file, environment())
            self._opened = opened.pop_all()

    @functools.cached_property
    def _checkpoints(self) -> ocp.CheckpointManager:
        # Not asynchronous: the next step donates the buffers that would still be written.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        manager = ocp.CheckpointManager(self._checkpoint_path(), options=options)
        self._opened.callback(manager.close)
        return manager

    def _checkpoint_path(self) -> Path:
        """Orbax takes brackets for a pattern, and would write what it cannot read again."""
        path = (self.path / "checkpoints").resolve()
        if glob.escape(str(path)) == str(path):
            return path
        path.mkdir(exist_ok=True)
        link = Path(self._opened.enter_context(tempfile.TemporaryDirectory())) / path.name
        link.symlink_to(path, target_is_directory=True)
        return link

    def result(self) -> dict[str, Any] | None:
        """The record of the finished run, or None."""
        return read_result(self.path)

    def finish(self, record: dict[str, Any]) -> None:
        """Keeps the record: from here on the run is finished."""
        if self.layout.writes:
            write_json(self.path / "result.json", record)
        self.layout.wait(f"{self.path} was finished")

    def save(self, state: TrainState) -> None:
        """Keeps the state in place of the one before.

        Raises:
          OSError: the system cannot write it, as on a full disk.
        """
        args = ocp.args.StandardSave(state._asdict())
        try:
            self._checkpoints.save(int(state.step), args=args)
        except Exception as error:  # what the system says stands in errors of Orbax's own
            for number in NOT_WRITTEN:
                if os.strerror(number) in str(error):
                    path = str(self.path / "checkpoints")
                    raise OSError(number, os.strerror(number), path) from error
            raise

    def checkpoint_step(self) -> int | None:
        """The step of the last checkpoint, or None where there is none."""
        return self._checkpoints.latest_step()

    def restore(self, fresh: TrainState) -> TrainState:
        """The state of the last checkpoint, or `fresh` where there is none.

        Raises:
          ValueError: the checkpoint is of another version of the code.
        """
        step = self.checkpoint_step()
        if step is None:
            return fresh
        target = ocp.args.StandardRestore(fresh._asdict())
        try:
            return TrainState(**self._checkpoints.restore(step, args=target))
        except ValueError as error:
            if "structures do not match" not in str(error):
                raise
            raise ValueError(
                f"the checkpoint of step {step} in {self.path} was made by another version "
                "of this code, whose state has another form. Go on with that version, or "
                "choose another folder."
            ) from error

    def close(self) -> None:
        """Ends what the checkpoints keep open, and lets go of the folder."""
        self._opened.close()


def checkpoint_step(path: Path) -> int:
    """The step of the last checkpoint in a run's folder, 0 where there is none."""
    there = (path / "checkpoints").glob("*")
    return max((int(step.name) for step in there if step.name.isdigit()), default=0)


def read_result(path: Path) -> dict[str, Any] | None:
    """The record of the finished run in a folder, or None."""
    file = path / "result.json"
    return read_json(file) if file.exists() else None


def refuse_another_run(path: Path, config: RunConfig) -> None:
    """Raises a ValueError unless the folder is free, or the run's own; see `RunFolder`."""
    file = path / "config.json"
    if not file.exists():
        if not is_unused(path):
            raise ValueError(
                f"{path} is not empty and holds no run; choose another folder."
            )
        return
    _refuse_another_config(file, config)
    _refuse_earlier(path)
    if (path / "environment.json").exists():
        environment_then = read_json(path / "environment.json")
        refuse_other_flags(path, environment_then.get("flags", {}))


def _refuse_earlier(path: Path) -> None:
    """Before runs were scored on unseen concepts, a seed held out others."""
    found = read_result(path)
    lines = [found] if found else read_metrics(path)
    evaluated = [line for line in lines if line.get("kind", "evaluation") == "evaluation"]
    if any("unseen_concept_accuracy" not in line for line in evaluated):
        raise ValueError(
            f"{path} holds a run of an earlier version, which held out other images and "
            "did not score unseen concepts. Go on with that version, or choose another "
            "folder."
        )


def _refuse_another_config(file: Path, config: RunConfig) -> None:
    """A field that the file lacks, as an older version's does, had its default."""
    # Through JSON, so that tuples and lists compare alike.
    wanted = flatten(json.loads(json.dumps(dataclasses.asdict(config))))
    written = flatten(read_json(file))
    for name in written.keys() - wanted.keys():
        near = difflib.get_close_matches(name, wanted, n=1)
        raise ValueError(
            f"{file} has a field that this version does not know, {name}"
            f"{f'; is it {near[0]}?' if near else '.'} Mend it, or choose another folder."
        )
    config_then = flatten(field_defaults(config.method)) | written
    differing = [
        f"{name}: {config_then.get(name)!r} there, {value!r} asked"
        for name, value in sorted(wanted.items())
        if config_then.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"{file.parent} holds a run of another config ({'; '.join(differing)}). "
            "Choose another folder, or ask for the same config to go on with it."
        )


def field_defaults(method: str) -> dict[str, Any]:
    """The fields of a method's config that have a default."""
    return {
        **_defaults(RunConfig),
        "preset": _defaults(Preset),
        "hyperparameters": dataclasses.asdict(find_method(method).defaults),
    }


def _defaults(kind: type) -> dict[str, Any]:
    return {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
