"""Trees of images, ROOT/DOMAIN/CLASS/image: what is in them, and what is missing."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from experiments.data.benchmarks import BENCHMARKS, Benchmark

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
SHOWN = 20  # problems in one message


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a tree holds.

    Attributes:
      root: of the tree.
      folders: domain -> its folder, sorted; a blank in the folder's name is an underscore
        in the domain's.
      classes: names of the classes, sorted, the union over the domains.
      files: domain -> paths below its folder, `CLASS/...`, in the order of torchvision's
        ImageFolder: by class, then by path. Hidden files are left out; ImageFolder would
        read them.
    """

    root: Path
    folders: dict[str, Path]
    classes: tuple[str, ...]
    files: dict[str, tuple[str, ...]]

    def counts(self, domain: str) -> dict[str, int]:
        """Images of each class of a domain."""
        found = dict.fromkeys(self.classes, 0)
        for file in self.files[domain]:
            found[class_of(file)] += 1
        return found


def class_of(file: str) -> str:
    """The class of a path below a domain's folder."""
    return file.split("/", 1)[0]


def list_folder(root: Path) -> Listing:
    """Lists the tree under `root`.

    Args:
      root: holds a folder per domain, each with a folder per class.

    Returns:
      The listing.

    Raises:
      ValueError: the folder is missing, or is no such tree; the message says what was
        expected and what was found.
    """
    folders = _domain_folders(root)
    if len(folders) < 2:
        raise ValueError(
            f"{root} must hold at least two domains, ROOT/DOMAIN/CLASS/image; folders "
            f"found: {', '.join(folders) or 'none'}{_images_in(root)}."
        )
    files = {domain: list_domain(folder) for domain, folder in folders.items()}
    for domain, found in files.items():
        if not found:
            raise ValueError(
                f"domain {domain} holds no image in a folder of its class: expected "
                f"{folders[domain]}/CLASS/image, with one of {' '.join(EXTENSIONS)}"
                f"{_images_in(folders[domain])}."
            )
    classes = sorted({class_of(file) for found in files.values() for file in found})
    return Listing(root, folders, tuple(classes), files)


def list_domain(folder: Path) -> tuple[str, ...]:
    """The images under FOLDER/CLASS, relative to FOLDER, in ImageFolder's order."""
    files = []
    for of_class in _subfolders(folder):
        for where, _, names in sorted(os.walk(of_class, followlinks=True)):
            relative = Path(where).relative_to(folder).as_posix()
            files += [f"{relative}/{name}" for name in sorted(names) if _is_image(name)]
    return tuple(files)


def find_benchmark(name: str, data_dir: Path) -> Listing:
    """Lists a benchmark whose folder is `data_dir` itself or stands in it.

    Args:
      name: a key of `BENCHMARKS`.
      data_dir: DomainBed's data directory, or the benchmark's folder.

    Returns:
      The listing.

    Raises:
      ValueError: there is no such tree.
    """
    benchmark = BENCHMARKS[name]
    inside = data_dir / benchmark.folder
    root = inside if inside.is_dir() else data_dir
    if not set(_domain_folders(root)) & set(benchmark.domains):
        raise ValueError(
            f"{data_dir} does not hold {name}: expected {inside}, or in it the domains "
            f"{', '.join(benchmark.domains)}."
        )
    return list_folder(root)


def count_problems(benchmark: Benchmark, listing: Listing) -> list[str]:
    """The images that are missing or too many, a line for a domain or class."""
    found = []
    for domain in benchmark.domains:
        if domain not in listing.folders:
            found.append(
                f"{domain}: no such domain, {benchmark.counts[domain]} images expected"
            )
        elif domain in benchmark.class_counts:
            found += _by_class(benchmark, listing, domain)
        else:
            found += _by_domain(benchmark, listing, domain)
    return found


def check_benchmark(
    benchmark: Benchmark, listing: Listing, *, allow_missing: bool
) -> list[str]:
    """Refuses a tree that is not the benchmark.

    Args:
      benchmark: expected.
      listing: found.
      allow_missing: let other counts pass; a domain or a class that the benchmark does not
        have is still refused, for there is no label for it.

    Returns:
      What differs and was let pass.

    Raises:
      ValueError: the tree differs; the message names domains and classes, found and
        expected.
    """
    foreign = [
        f"{kind} {name}: {benchmark.name} has none of that name"
        for kind, names, known in (
            ("domain", listing.folders, benchmark.domains),
            ("class", listing.classes, benchmark.classes),
        )
        for name in names
        if name not in known
    ]
    counts = count_problems(benchmark, listing)
    if foreign:
        raise ValueError(
            f"{listing.root} is not {benchmark.name}:\n{in_lines(foreign + counts)}\n"
            "Move these folders elsewhere, or read the tree with --data folder."
        )
    if counts and benchmark.exact and not allow_missing:
        raise ValueError(
            f"{listing.root} is not the whole of {benchmark.name}:\n{in_lines(counts)}\n"
            "Mend the folder, or pass --allow-missing to go on with what is there."
        )
    return counts


def in_lines(problems: Sequence[str]) -> str:
    """The first problems, a line each, and how many more there are."""
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more")
    return "\n".join(lines)


def _by_class(benchmark: Benchmark, listing: Listing, domain: str) -> list[str]:
    counts = listing.counts(domain)
    expected = zip(benchmark.classes, benchmark.class_counts[domain], strict=True)
    return [
        f"{domain}/{name}: {counts.get(name, 0)} found, {count} expected"
        for name, count in expected
        if counts.get(name, 0) != count
    ]


def _by_domain(benchmark: Benchmark, listing: Listing, domain: str) -> list[str]:
    counts = listing.counts(domain)
    found = [
        f"{domain}/{name}: 0 found, some expected"
        for name in benchmark.classes
        if not counts.get(name)
    ]
    total, expected = sum(counts.values()), benchmark.counts[domain]
    return found + [f"{domain}: {total} found, {expected} expected"] * (total != expected)


def _domain_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise ValueError(
            f"data_dir {root} is not a folder; expected ROOT/DOMAIN/CLASS/image"
        )
    found: dict[str, Path] = {}
    for folder in _subfolders(root):
        name = folder.name.replace(" ", "_")
        if name in found:
            raise ValueError(
                f"{root} holds both '{found[name].name}' and '{folder.name}', one domain "
                f"by name; remove one."
            )
        found[name] = folder
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_in(folder: Path) -> str:
    count = sum(p.is_file() and _is_image(p.name) for p in folder.iterdir())
    return f", and {count} images directly in {folder}" if count else ""


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")
