"""Writes a data set held in memory as a tree of PNG files, OUT/DOMAIN/CLASS/image.png."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.data.domain_data import DomainData
from experiments.files import UNFINISHED, writing


def export(
    data: DomainData,
    out: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes every image that is not there yet, losslessly, each whole or not at all.

    A file is named by its group, so the same concept has the same name in every domain.

    Args:
      data: to write.
      out: root of the tree, made if it is missing.
      progress: called with images done, and of how many.

    Returns:
      How many images were written now.

    Raises:
      ValueError: `out` holds something that is not of this tree; nothing is written then.
    """
    images = _files(data)
    missing = images.keys() - _existing(data.name, out, images)
    done = len(images) - len(missing)
    for file in sorted(missing):
        with writing(out / file) as png:
            Image.fromarray(images[file]).save(png, format="PNG", optimize=True)
        done += 1
        progress(done, len(images))
    return len(missing)


def _files(data: DomainData) -> dict[str, np.ndarray]:
    """DOMAIN/CLASS/GROUP.png -> image; a group's second image of a class is GROUP-1.png."""
    files = {}
    for d, domain in enumerate(data.domains):
        count: Counter[str] = Counter()
        for image, label, group in zip(
            data.images[d], data.labels[d], data.groups[d], strict=True
        ):
            stem = f"{domain}/{data.classes[label]}/{group:05d}"
            again = f"-{count[stem]}" if count[stem] else ""
            files[f"{stem}{again}.png"] = image
            count[stem] += 1
    return files


def _existing(name: str, out: Path, images: dict[str, np.ndarray]) -> set[str]:
    """The files of the tree that are there."""
    if not out.exists():
        return set()
    found = set()
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        file = path.relative_to(out).as_posix()
        if file.endswith(UNFINISHED):
            continue
        if file not in images or not _same(path, images[file]):
            raise ValueError(
                f"out must be empty or hold an earlier export of {name}, but {path} is "
                "not of it; choose another folder."
            )
        found.add(file)
    return found


def _same(path: Path, image: np.ndarray) -> bool:
    try:
        with Image.open(path) as found:
            return np.array_equal(np.asarray(found), image)
    except Exception:  # decoders raise anything on bytes that are not theirs
        return False
