"""Which images lie below a folder: every real folder once, and nothing that is hidden."""

import dataclasses
import os
import re
import unicodedata
from collections import Counter, deque
from pathlib import Path

# Those of torchvision's ImageFolder.
EXTENSIONS = (
    ".bmp",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)


@dataclasses.dataclass
class Walked:
    """What lies below a folder.

    Attributes:
      images: files with the extension of one, as paths below the folder.
      left_out: what was left out -> how many.
      twice: folders below it that are also read elsewhere, and were left out here.
      unreadable: path below it, printable -> why it cannot be read.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    twice: list[str] = dataclasses.field(default_factory=list)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


def walk(root: Path) -> Walked:
    """Looks at all that lies below `root`.

    Links are followed, once all that is no link was read: what a link points to is left
    out where it is read at its own place, or holds `root`.
    """
    walked = Walked()
    seen = {_identity(folder) for folder in root.resolve().parents}
    folders, links = deque([""]), deque()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            identity = _identity(root / folder)
            if identity in seen:
                walked.twice.append(folder)
                continue
            seen.add(identity)
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            walked.unreadable[folder] = f"{error.strerror or error}"
            continue
        for entry in found:
            path = f"{folder}/{entry.name}".lstrip("/")
            into = _sort(entry, path, walked)
            if into:
                (links if entry.is_symlink() else folders).append(path)
    return walked


def _sort(entry: os.DirEntry, path: str, walked: Walked) -> bool:
    """Puts an entry where it belongs; returns whether it is a folder to go into."""
    if entry.name.startswith("."):
        walked.left_out["hidden"] += 1
        return False
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError as error:
        walked.unreadable[printable(path)] = f"{error.strerror or error}"
        return False
    if (is_folder or is_image(entry.name)) and not is_named(entry.name):
        why = "its name is not UTF-8, or holds a line break or the like: rename it"
        walked.unreadable[printable(path)] = why
    elif is_folder:
        return True
    elif is_image(entry.name):
        walked.images.append(path)
    elif not is_file and entry.is_symlink():
        walked.unreadable[printable(path)] = "a link to nothing"
    else:
        extension = os.path.splitext(entry.name)[1].lower()
        walked.left_out[printable(extension) or "without an extension"] += 1
    return False


def is_image(name: str) -> bool:
    """Whether a file of this name is read."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def is_named(name: str) -> bool:
    """Whether the name is text that stands on one line."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)


def printable(name: str) -> str:
    """The name with what is no text written as escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if is_named(c) else repr(c)[1:-1] for c in text)


def spelled(name: str) -> str:
    """What is left of a name without case, Unicode's forms, and kinds of blanks."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "_".join(filter(None, re.split(r"[\s_]+", plain)))


def _identity(folder: Path) -> tuple[int, int]:
    """The same for all paths that lead to one folder."""
    found = folder.stat()
    return found.st_dev, found.st_ino
