"""What is in each image file, and whether it can be decoded: each is read once.

A journal on the disk keeps what was found, under what tells a changed file from the one
that was read.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from experiments.data.pixels import to_rgb

BLOCK = 1024  # files handed to the threads at a time

# Path below the root, size in bytes, mtime and ctime in ns. The ctime tells what a copy
# that keeps times hides: it cannot be set back.
FileState = tuple[str, int, int, int]


class Checked(NamedTuple):
    """What was found in a file.

    Attributes:
      content: a hash of its bytes; empty where they cannot be read.
      error: why it is no image that can be trained on; empty where it is one.
    """

    content: str
    error: str


def check_images(
    root: Path, files: Sequence[str], journal: Path, progress: Callable[[int, int], None]
) -> dict[str, Checked]:
    """Reads and decodes every image that the journal does not know.

    A truncated image counts as one that cannot be decoded; DomainBed reads it and leaves
    the rest gray.

    Args:
      root: of the tree.
      files: paths below it.
      journal: a line `[path, size, mtime, ctime, content, error]` is appended for each
        file that could be read; one that changed since is read again.
      progress: called with the images known and of how many.

    Returns:
      Path -> what was found, in the order of the files.
    """
    states = {file: _state(root, file) for file in files}
    known = _read(journal)
    found = {file: known[state] for file, state in states.items() if state in known}
    unknown = [file for file in files if file not in found]
    progress(len(found), len(files))
    # Threads are enough: PIL lets go of the interpreter while it decodes.
    with journal.open("a") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in _blocks(unknown):
            checked = pool.map(_check, (root / file for file in block))
            for file, what in zip(block, checked, strict=True):
                found[file] = what
                if what.content:  # else it is tried again
                    out.write(json.dumps([*(states[file] or ()), *what]) + "\n")
                    out.flush()
                progress(len(found), len(files))
    return {file: found[file] for file in files}


def content_of(raw: bytes) -> str:
    """A hash of the bytes of a file."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def _state(root: Path, file: str) -> FileState | None:
    """What tells whether a file is still the same; None where there is none."""
    try:
        found = (root / file).stat()
    except OSError:
        return None
    return file, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(journal: Path) -> dict[FileState | None, Checked]:
    """The journal; a last line that a kill cut short is removed."""
    if not journal.exists():
        return {}
    text = journal.read_bytes()
    end = text.rfind(b"\n") + 1
    if end < len(text):
        with journal.open("r+b") as file:
            file.truncate(end)
    known = {}
    for line in text[:end].splitlines():
        with contextlib.suppress(ValueError):  # of an earlier version, or damaged
            file, size, mtime, ctime, content, error = json.loads(line)
            known[file, size, mtime, ctime] = Checked(content, error)
    return known


def _check(path: Path) -> Checked:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to read a pipe would wait for ever
            return Checked("", "not a file with contents")
        raw = path.read_bytes()
    except OSError as error:
        why = error.strerror or error
        to = f", a link to {os.readlink(path)}" if os.path.islink(path) else ""
        return Checked("", f"{why}{to}")
    return Checked(content_of(raw), _error(raw))


def _error(raw: bytes) -> str:
    try:
        with Image.open(io.BytesIO(raw)) as image:
            to_rgb(image)
    except UnidentifiedImageError:
        return "UnidentifiedImageError: of no format that Pillow reads"
    except Exception as error:  # decoders raise anything on bytes that are not theirs
        return f"{type(error).__name__}: {error}"
    return ""


def _blocks(files: Iterable[str]) -> Iterator[list[str]]:
    files = iter(files)
    while block := list(itertools.islice(files, BLOCK)):
        yield block
