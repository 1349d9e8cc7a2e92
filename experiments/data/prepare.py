"""Prepares a folder of images once, so that training reads them in any order, fast."""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from experiments.data.benchmarks import BENCHMARKS
from experiments.data.builder import BUILDERS, RELEASE, DomainConfig
from experiments.data.check_benchmark import check_benchmark, find_benchmark
from experiments.data.check_images import Checked, check_images
from experiments.data.folders import Listing, in_lines, list_folder, partial_classes
from experiments.data.prepared import (
    DATA,
    Prepared,
    digest,
    index_file,
    open_prepared,
    place,
    prepared_base,
    quiet,
    read_if_whole,
)
from experiments.files import locked, write_json

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
    domain whose images changed since is prepared anew. Of several calls at once one works
    and the others wait for it. Nothing is downloaded.

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
        the message names them. Or the disk refuses something.
    """
    try:
        return _prepare(
            name,
            Path(data_dir),
            prepared_dir,
            split_dir,
            skip_corrupt,
            allow_missing,
            progress,
        )
    except OSError as error:  # its message has the file, where it is about one
        raise ValueError(
            f"{data_dir} cannot be prepared in {prepared_base(prepared_dir)}: {error}"
        ) from error


def _prepare(
    name: str,
    data_dir: Path,
    prepared_dir: Path | None,
    split_dir: Path | None,
    skip_corrupt: bool,
    allow_missing: bool,
    progress: Progress,
) -> Prepared:
    listing, classes, warnings = _list(name, data_dir, allow_missing)
    folder = place(name, prepared_dir, listing.root)
    _check_apart(folder, listing.root)
    with locked(folder, wait=True, what="preparing images"):
        checked = _check_images(listing, folder, progress)
        corrupt = _problems(listing, checked)
        if corrupt and not skip_corrupt:
            raise ValueError(
                f"{len(corrupt)} of the images under {listing.root} cannot be decoded:\n"
                f"{in_lines(corrupt)}\n"
                "Mend or remove them, or pass --skip-corrupt to leave them out."
            )
        if name not in BENCHMARKS:  # whose classes are known, and counted
            warnings += partial_classes(_decoded(listing, checked))
        warnings += [f"left out: {problem}" for problem in corrupt]
        for domain, found in checked.items():
            report = functools.partial(progress, f"writing {domain}")
            _prepare_domain(name, folder, listing, domain, classes, found, report)
        domains = tuple(listing.folders)
        record = {"domains": [*domains], "classes": [*classes], "warnings": warnings}
        # Read by other processes meanwhile, it is only written where it is another.
        if read_if_whole(folder / DATA) != record:
            write_json(folder / DATA, record)
    return Prepared(name, folder, domains, classes, tuple(warnings), split_dir)


def _list(
    name: str, data_dir: Path, allow_missing: bool
) -> tuple[Listing, tuple[str, ...], list[str]]:
    """The listing, the classes that number the labels, and warnings."""
    if name in BENCHMARKS:
        listing = find_benchmark(name, data_dir)
        counts = check_benchmark(BENCHMARKS[name], listing, allow_missing=allow_missing)
        return listing, BENCHMARKS[name].classes, [*listing.warnings, *counts]
    if name != "folder":
        known = ", ".join((*BENCHMARKS, "folder"))
        raise ValueError(f"{name} is not prepared from a folder; those that are: {known}")
    listing = list_folder(data_dir)
    return listing, listing.classes, [*listing.warnings]


def _check_apart(folder: Path, root: Path) -> None:
    """Refuses to prepare a tree in itself: what is prepared would be its next domain."""
    folder, root = folder.resolve(), root.resolve()
    if folder.is_relative_to(root) and folder.relative_to(root).parts[0][0] != ".":
        raise ValueError(
            f"prepared_dir must not lie in the tree of images, {root}; got {folder}. Give "
            "another place, --prepared-dir DIR."
        )


def _check_images(
    listing: Listing, folder: Path, progress: Progress
) -> dict[str, dict[str, Checked]]:
    """Domain -> file -> what was found in it, in the order of the listing."""
    files = {
        domain: {file: f"{where.name}/{file}" for file in listing.files[domain]}
        for domain, where in listing.folders.items()
    }
    found = check_images(
        listing.root,
        [path for of_domain in files.values() for path in of_domain.values()],
        folder / "checked.jsonl",
        functools.partial(progress, "checking"),
    )
    return {
        domain: {file: found[path] for file, path in of_domain.items()}
        for domain, of_domain in files.items()
    }


def _problems(listing: Listing, checked: Mapping[str, Mapping[str, Checked]]) -> list[str]:
    """What cannot be read or decoded, a line each.

    Raises:
      ValueError: a domain holds nothing else.
    """
    problems = [f"{path}: {why}" for path, why in listing.unreadable.items()]
    for domain, found in checked.items():
        where = listing.folders[domain].name
        own = [f"{where}/{file}: {c.error}" for file, c in found.items() if c.error]
        if len(own) == len(found):
            raise ValueError(
                f"none of the {len(found)} images of domain {domain} can be decoded:\n"
                f"{in_lines(own)}"
            )
        problems += own
    return problems


def _decoded(listing: Listing, checked: Mapping[str, Mapping[str, Checked]]) -> Listing:
    """The listing of what can be decoded."""
    files = {
        domain: tuple(file for file, c in found.items() if not c.error)
        for domain, found in checked.items()
    }
    return dataclasses.replace(listing, files=files)


def _prepare_domain(
    name: str,
    folder: Path,
    listing: Listing,
    domain: str,
    classes: tuple[str, ...],
    checked: Mapping[str, Checked],
    progress: Callable[[int, int], None],
) -> None:
    files = [file for file, found in checked.items() if not found.error]
    contents = [(file, checked[file].content) for file in files]
    record = {
        "state": digest([classes, contents]),
        "content": digest(contents),
        "files": files,
        "skipped": sorted(file for file, found in checked.items() if found.error),
    }
    index, written = index_file(folder, domain), folder / domain / RELEASE
    found = read_if_whole(index)
    same = found.get("state") == record["state"]
    if not (same and found.get("records") == _sizes(written)):
        found = {}
        # In this order, so that what a kill leaves is never taken for finished.
        (folder / DATA).unlink(missing_ok=True)
        index.unlink(missing_ok=True)
        shutil.rmtree(folder / domain, ignore_errors=True)
        own = DomainConfig(name=domain, version=RELEASE, classes=classes)
        source = tfds.download.DownloadConfig(manual_dir=listing.folders[domain])
        with quiet():
            builder = BUILDERS[name](
                config=domain if name in BENCHMARKS else own,
                data_dir=folder.parent,
                files=files,
                on_image=lambda done: progress(done, len(files)),
            )
            try:
                builder.download_and_prepare(download_config=source)
            except RuntimeError as error:  # of the writer of records, as on a full disk
                raise ValueError(f"domain {domain} cannot be written: {error}") from error
    else:
        progress(len(files), len(files))
    record["records"] = _sizes(written)
    if found != record:
        write_json(index, record)


def _sizes(folder: Path) -> dict[str, int]:
    """Of the files in it, by which a copy that was cut short is seen."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*"))}
