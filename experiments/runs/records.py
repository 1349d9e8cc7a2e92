"""What became of runs: one line of JSON for each, in files that one process writes each.

A line is whole when it ends; what a killed process, or a full disk, cut short is no record.
"""

import datetime
import json
import os
import re
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from experiments.files import naming, write_whole
from experiments.runs.claims import Claims

FINISHED, DIVERGED, GIVEN_UP = "finished", "diverged", "given up"
STATES = (FINISHED, DIVERGED, GIVEN_UP)
# How every line begins, so that what is asked of many is read without the rest.
HEAD = re.compile(
    rb'\{"id": "(?P<id>[^"]+)", "state": "(?P<state>[^"]+)", "ended": "(?P<ended>[^"]+)"'
)

Record = dict[str, Any]


class Records:
    """The records in a folder, read as they grow.

    Args:
      folder: of the files.

    Attributes:
      heads: of every run that ended, id -> (state, when, in UTC).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heads: dict[str, tuple[str, str]] = {}
        self._read: dict[str, int] = {}  # file -> bytes that were read, whole lines
        self._own: Path | None = None

    def refresh(self) -> None:
        """Reads what was written since; of several records of a run the first counts."""
        for line in self._new_lines():
            head = HEAD.match(line)
            if head and line.endswith(b"}"):
                name, state, ended = (part.decode() for part in head.groups())
                self.heads.setdefault(name, (state, ended))

    def _new_lines(self) -> Iterable[bytes]:
        for file in record_files(self.folder):
            done = self._read.get(file.name, 0)
            if file.stat().st_size > done:
                with file.open("rb") as opened:
                    opened.seek(done)
                    *lines, rest = opened.read().split(b"\n")
                    self._read[file.name] = opened.tell() - len(rest)
                yield from lines

    def append(self, name: str, state: str, **content: Any) -> None:
        """Appends a record; it is on the disk when this returns.

        Args:
          name: the run's id.
          state: one of `STATES`.
          **content: the rest.

        Raises:
          OSError: it cannot be written, as on a full disk; nothing of it is left.
        """
        ended = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({"id": name, "state": state, "ended": ended, **content}) + "\n"
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own = self.folder / f"{node_name()}-{secrets.token_hex(4)}.jsonl"
        with naming(self._own), self._own.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(line.encode()) < len(line.encode()):
                    raise OSError(28, os.strerror(28), str(self._own))
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise


def record_files(folder: Path) -> list[Path]:
    """The files of records; there are as many as processes that wrote."""
    return sorted(folder.glob("*.jsonl"))


def read_records(folder: Path) -> dict[str, Record]:
    """All records, id -> record; of several of one run the first.

    Raises:
      ValueError: a whole line is no record; the message names the file and the line.
    """
    return {name: record for name, (_, record) in records_in_files(folder).items()}


def records_in_files(folder: Path) -> dict[str, tuple[Path, Record]]:
    """All records, id -> (its file, record); see `read_records`."""
    found: dict[str, tuple[Path, Record]] = {}
    for file in record_files(folder):
        *lines, _ = file.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                found.setdefault(record["id"], (file, record))
            except (ValueError, TypeError, KeyError):
                if HEAD.match(line) and line.endswith(b"}"):
                    raise ValueError(f"{file}, line {number}, is no record.") from None
    return found


def forget_given_up(folder: Path, runs: Collection[str], claims: Claims) -> None:
    """Removes the records of runs that were given up, which are then tried anew.

    Args:
      folder: of the records.
      runs: ids of those to try again.
      claims: on all runs whose records are in the folder.

    Raises:
      ValueError: some were given up, and others are being trained: what their processes
        append meanwhile to a file that is written anew would be lost.
    """
    changed = {}
    for file in record_files(folder):
        lines = file.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not _is_given_up(line, runs)]
        if len(kept) < len(lines):
            changed[file] = b"".join(kept)
    held = claims.held() if changed else []
    if held:
        raise ValueError(
            f"to try again what was given up changes files of {folder}, and {len(held)} "
            "runs are being trained; stop their nodes first, or wait until they end."
        )
    for file, content in changed.items():
        write_whole(file, content)


def _is_given_up(line: bytes, runs: Collection[str]) -> bool:
    head = HEAD.match(line)
    if head is None or head["state"].decode() != GIVEN_UP:
        return False
    return head["id"].decode() in runs


def node_name() -> str:
    """Of this machine and process, for files that no other writes."""
    host = re.sub(r"[^A-Za-z0-9._]+", "-", os.uname().nodename)
    return f"{host}-{os.getpid()}"
