"""Prepares a folder of images once, so that training reads them in any order, fast."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds

from experiments.data.benchmarks import BENCHMARKS
from experiments.data.builder import BUILDERS, RELEASE, DomainConfig
from experiments.data.check_images import file_state, undecodable
from experiments.data.folders import (
    Listing,
    check_benchmark,
    find_benchmark,
    in_lines,
    list_folder,
)
from experiments.data.prepared import (
    Prepared,
    digest,
    index_file,
    open_prepared,
    place,
    quiet,
)
from experiments.files import write_json

__all__ = ["Prepared", "open_prepared", "prepare"]

Progress = Callable[[str, int, int], None]  # stage, how many are done, of how many


def silent(stage: str, done: int, total: int) -> None:
    """Shows no progress."""


def prepare(
    name: str,
    data_dir: Path,
    prepared_dir: Path | None = None,
    *,
    split_dir: Path | None = None,
    skip_corrupt: bool = False,
    allow_missing: bool = False,
    progress: Progress = silent,
) -> Prepared:
    """Checks the images under `data_dir` and prepares what is not prepared yet.

    Counts are compared and every image is decoded before the first is written. A call that
    was killed goes on: no image is checked twice, no finished domain written again. A
    domain whose files changed since is prepared anew. Nothing is downloaded.

    Args:
      name: a key of `BENCHMARKS`, or `folder` for any tree DATA_DIR/DOMAIN/CLASS/image.
      data_dir: the folder; for a benchmark, also the folder that holds it.
      prepared_dir: where it is prepared; None is TFDS's own, `$TFDS_DATA_DIR` or
        `~/tensorflow_datasets`.
      split_dir: folder of the published split files, for protocols that want them.
      skip_corrupt: leave out images that cannot be decoded, and list them as warnings.
      allow_missing: go on though images of a benchmark are missing.
      progress: called with a stage, how many images of it are done, and of how many.

    Returns:
      The data set.

    Raises:
      ValueError: the tree is not what was expected, or holds images that cannot be
        decoded (a truncated image is one, though DomainBed reads it with the rest gray);
        the message names them.
    """
    listing, classes, warnings = _list(name, Path(data_dir), allow_missing)
    folder = place(name, prepared_dir, listing.root)
    folder.mkdir(parents=True, exist_ok=True)
    corrupt = _check_images(listing, folder, progress)
    warnings += [f"left out: {problem}" for problem in corrupt.values()]
    if corrupt and not skip_corrupt:
        raise ValueError(
            f"{len(corrupt)} of the images under {listing.root} cannot be decoded:\n"
            f"{in_lines([*corrupt.values()])}\n"
            "Mend or remove them, or pass --skip-corrupt to leave them out."
        )
    for domain in listing.folders:
        skipped = frozenset(f for d, f in corrupt if d == domain)
        report = functools.partial(progress, f"writing {domain}")
        _prepare_domain(name, folder, listing, domain, classes, skipped, report)
    domains = tuple(listing.folders)
    record = {"domains": list(domains), "classes": list(classes), "warnings": warnings}
    file = folder / "data.json"
    # Read by several processes at once, it is not to be written by them at once.
    if not (file.exists() and json.loads(file.read_text()) == record):
        write_json(file, record)
    return Prepared(name, folder, domains, classes, tuple(warnings), split_dir)


def _list(
    name: str, data_dir: Path, allow_missing: bool
) -> tuple[Listing, tuple[str, ...], list[str]]:
    """The listing, the classes that number the labels, and warnings."""
    if name in BENCHMARKS:
        listing = find_benchmark(name, data_dir)
        warnings = check_benchmark(BENCHMARKS[name], listing, allow_missing=allow_missing)
        return listing, BENCHMARKS[name].classes, warnings
    if name != "folder":
        known = ", ".join((*BENCHMARKS, "folder"))
        raise ValueError(f"{name} is not prepared from a folder; those that are: {known}")
    listing = list_folder(data_dir)
    return listing, listing.classes, []


def _check_images(
    listing: Listing, folder: Path, progress: Progress
) -> dict[tuple[str, str], str]:
    """(domain, file) -> what is wrong with it, of those that cannot be decoded."""
    files = {
        f"{where.name}/{file}": (domain, file)
        for domain, where in listing.folders.items()
        for file in listing.files[domain]
    }
    errors = undecodable(
        listing.root,
        [*files],
        folder / "checked.jsonl",
        functools.partial(progress, "checking"),
    )
    return {files[path]: f"{path}: {error}" for path, error in errors.items()}


def _prepare_domain(
    name: str,
    folder: Path,
    listing: Listing,
    domain: str,
    classes: tuple[str, ...],
    skipped: frozenset[str],
    progress: Callable[[int, int], None],
) -> None:
    source = listing.folders[domain]
    files = [file for file in listing.files[domain] if file not in skipped]
    states = [file_state(source, file) for file in files]
    record = {
        "state": digest([classes, states]),
        "content": digest([(file, size) for file, size, _ in states]),
        "files": files,
        "skipped": sorted(skipped),
    }
    index = index_file(folder, domain)
    found = json.loads(index.read_text()) if index.exists() else {}
    if found.get("state") != record["state"]:
        # In this order, so that what a kill leaves is never taken for finished.
        (folder / "data.json").unlink(missing_ok=True)
        index.unlink(missing_ok=True)
        shutil.rmtree(folder / domain, ignore_errors=True)
        own = DomainConfig(name=domain, version=RELEASE, classes=classes)
        with quiet():
            BUILDERS[name](
                config=domain if name in BENCHMARKS else own,
                data_dir=folder.parent,
                files=files,
                on_image=lambda done: progress(done, len(files)),
            ).download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=source)
            )
    if found != record:
        write_json(index, record)
    progress(len(files), len(files))
