"""Which images cannot be decoded, with a journal on the disk: none is decoded twice."""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

BLOCK = 1024  # files handed to the threads at a time

FileState = tuple[str, int, int]  # path below the root, size in bytes, mtime in ns


def file_state(root: Path, file: str) -> FileState:
    """What tells whether a file is still the same."""
    found = (root / file).stat()
    return file, found.st_size, found.st_mtime_ns


def undecodable(
    root: Path, files: Sequence[str], journal: Path, progress: Callable[[int, int], None]
) -> dict[str, str]:
    """Decodes every image that the journal does not know.

    A truncated image counts as one that cannot be decoded; DomainBed reads it and leaves
    the rest gray.

    Args:
      root: of the tree.
      files: paths below it.
      journal: a line `[path, size, mtime, error]` is appended for each image; a file that
        changed since is decoded again.
      progress: called with the images known and of how many.

    Returns:
      Path -> error, of those that cannot be decoded.
    """
    states = {file: file_state(root, file) for file in files}
    known = _read(journal)
    unknown = [file for file in files if states[file] not in known]
    done = len(files) - len(unknown)
    progress(done, len(files))
    # Threads are enough: PIL lets go of the interpreter while it decodes.
    with journal.open("a") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in _blocks(unknown):
            errors = pool.map(_error, (root / file for file in block))
            for file, error in zip(block, errors, strict=True):
                known[states[file]] = error
                out.write(json.dumps([*states[file], error]) + "\n")
                out.flush()
                done += 1
                progress(done, len(files))
    return {file: known[states[file]] for file in files if known[states[file]]}


def _read(journal: Path) -> dict[FileState, str]:
    """The journal; a last line that a kill cut short is removed."""
    if not journal.exists():
        return {}
    text = journal.read_bytes()
    end = text.rfind(b"\n") + 1
    if end < len(text):
        with journal.open("r+b") as file:
            file.truncate(end)
    lines = map(json.loads, text[:end].splitlines())
    return {(file, size, mtime): error for file, size, mtime, error in lines}


def _error(path: Path) -> str:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # decoders raise anything on bytes that are not theirs
        return f"{type(error).__name__}: {error}".replace(str(path), path.name)
    return ""


def _blocks(files: Iterable[str]) -> Iterator[list[str]]:
    files = iter(files)
    while block := list(itertools.islice(files, BLOCK)):
        yield block
