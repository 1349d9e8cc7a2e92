"""Files that are written whole or not at all, and folders that one process holds."""

import contextlib
import datetime
import hashlib
import json
import os
import platform
import secrets
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock

UNFINISHED = ".tmp"  # ends the name of what a killed process had not written whole
LOCK = ".lock"  # the kernel's lock on a folder
HOLDER = ".lock.json"  # who has it; not in the lock's own file, which others open too


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool, what: str) -> Iterator[None]:
    """Holds a folder for this process alone; made where it is missing.

    The lock is the kernel's, which takes it back when the process ends in whatever way:
    the file that a killed process leaves stands in nobody's way.

    Args:
      folder: to hold. A process that does not ask for its lock is not kept out.
      wait: whether to wait for the process that holds it, and to say so on stderr.
      what: is done in the folder, as in "process 7 is training there".

    Raises:
      ValueError: another process holds the folder, and `wait` is False.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        held = f"{folder} is taken: {_holder(folder)}"
        if not wait:
            raise ValueError(
                f"{held}. Wait until it ends, or choose another folder."
            ) from None
        print(f"{held}; waiting for it.", file=sys.stderr, flush=True)
        lock.acquire(poll_interval=0.2)
    try:
        write_json(
            folder / HOLDER,
            {
                "pid": os.getpid(),
                "host": platform.node(),
                "command": " ".join(shlex.join(sys.orig_argv).split()),
                "what": what,
                "since": datetime.datetime.now().isoformat(" ", "seconds"),
            },
        )
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _holder(folder: Path) -> str:
    """Who holds the folder, in words."""
    try:
        found = read_json(folder / HOLDER)
    except FileNotFoundError:  # it has just taken it, or is about to leave it
        return "another process works there"
    return "process {pid} on {host} ({command}) is {what} there since {since}".format(
        **found
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ValueError: it holds something else; the message names the file and the place.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(found).__name__}.")
    return found


def is_unused(folder: Path) -> bool:
    """Whether a folder is missing, or holds locks and unfinished files alone."""
    return not folder.exists() or all(
        path.name in (LOCK, HOLDER) or path.name.endswith(UNFINISHED)
        for path in folder.iterdir()
    )


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an error of the system that names no file this one, as on a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that becomes `path` at the end, whole, or never.

    Each writer has a name of its own until then: of several, the last one's file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with naming(path), unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # of the two errors, the first one tells
            unfinished.unlink()
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")
