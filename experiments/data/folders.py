"""Trees of images, ROOT/DOMAIN/CLASS/image: what is in them, and what is missing."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.data.walk import (
    EXTENSIONS,
    Walked,
    is_image,
    is_named,
    spelled,
    walk,
)

SHOWN = 20  # problems in one message
SHOWN_IN_A_LINE = 10


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a tree holds.

    Attributes:
      root: of the tree.
      folders: domain -> its folder, sorted; a blank in the folder's name is an underscore
        in the domain's.
      classes: names of the classes, sorted, the union over the domains.
      files: domain -> paths below its folder, `CLASS/...`, in the order of torchvision's
        ImageFolder: by class, then by path. What is hidden is left out; ImageFolder would
        read it.
      warnings: what was left out, and classes that may be one, a line each.
      unreadable: path below the root, printable -> why it cannot be read.
    """

    root: Path
    folders: dict[str, Path]
    classes: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    warnings: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
      ValueError: the folder is missing, or is no such tree, or a domain has a name that
        cannot be, or two classes look like one; the message says what was expected and
        what was found.
    """
    found, walked = domain_folders(root), walk(root)
    folders = {d: folder for d, folder in found.items() if folder.name not in walked.twice}
    if len(folders) < 2:
        raise ValueError(
            f"{root} must hold at least two domains, ROOT/DOMAIN/CLASS/image; folders "
            f"found: {', '.join(folders) or 'none'}{_images_in(root)}.{_not_read(walked)}"
        )
    _check_names(folders)
    files = _files(folders, walked)
    classes = {domain: {*map(class_of, found)} for domain, found in files.items()}
    warnings = [*_left_out(walked), *_alike(classes)]
    return Listing(
        root,
        folders,
        tuple(sorted(set.union(*classes.values()))),
        files,
        tuple(warnings),
        walked.unreadable,
    )


def list_domain(folder: Path) -> tuple[str, ...]:
    """The images under FOLDER/CLASS, relative to FOLDER, in ImageFolder's order."""
    return _in_order(image for image in walk(folder).images if "/" in image)


def partial_classes(listing: Listing) -> list[str]:
    """A line about the classes that are not in every domain, if there are any."""
    counts = {domain: listing.counts(domain) for domain in listing.folders}
    missing = {
        name: [domain for domain, found in counts.items() if not found[name]]
        for name in listing.classes
    }
    parts = [f"{name} (not in {', '.join(d)})" for name, d in missing.items() if d]
    return [f"classes that are not in every domain: {_few(parts)}"] if parts else []


def in_lines(problems: Sequence[str]) -> str:
    """The first problems, a line each, and how many more there are."""
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more")
    return "\n".join(lines)


def domain_folders(root: Path) -> dict[str, Path]:
    """The folders under `root` by the names of their domains."""
    if not root.is_dir():
        raise ValueError(
            f"data_dir {root} is not a folder; expected ROOT/DOMAIN/CLASS/image"
        )
    found: dict[str, Path] = {}
    for folder in _subfolders(root):
        name = folder.name.replace(" ", "_")
        for other in found:
            if spelled(other) == spelled(name):
                raise ValueError(
                    f"{root} holds both '{found[other].name}' and '{folder.name}', one "
                    f"domain by name; remove one."
                )
        found[name] = folder
    return found


def _check_names(folders: Mapping[str, Path]) -> None:
    for name, folder in folders.items():
        if "," in name or ".json" in name:
            raise ValueError(
                f"a domain cannot be called '{name}': commas part the domains on the "
                "command line, and .json is in the names of what is prepared; rename "
                f"{folder}."
            )


def _files(folders: Mapping[str, Path], walked: Walked) -> dict[str, tuple[str, ...]]:
    """Domain -> its images; those in no folder of a class are counted as left out."""
    domains = {folder.name: domain for domain, folder in folders.items()}
    images: dict[str, list[str]] = {domain: [] for domain in folders}
    for path in walked.images:
        name, _, file = path.partition("/")
        if "/" in file and name in domains:
            images[domains[name]].append(file)
        else:
            walked.left_out["images in no folder of a class"] += 1
    for domain, found in images.items():
        if not found:
            raise ValueError(
                f"domain {domain} holds no image in a folder of its class: expected "
                f"{folders[domain]}/CLASS/image, with one of {' '.join(EXTENSIONS)}"
                f"{_images_in(folders[domain])}.{_not_read(walked)}"
            )
    return {domain: _in_order(found) for domain, found in images.items()}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if is_named(p.name) and p.name[0] != "." and p.is_dir()
    )


def _images_in(folder: Path) -> str:
    count = sum(p.is_file() and is_image(p.name) for p in folder.iterdir())
    return f", and {count} images directly in {folder}" if count else ""


def _left_out(walked: Walked) -> list[str]:
    """A line about what was left out, if anything was."""
    counted = [f"{count} {what}" for what, count in walked.left_out.most_common()]
    parts = [", ".join(counted)] if counted else []
    if walked.twice:
        parts.append(f"folders that are read at another place: {_few(walked.twice)}")
    return [f"left out: {'; '.join(parts)}"] if parts else []


def _not_read(walked: Walked) -> str:
    """What was left out or cannot be read, after a message."""
    problems = [f"{path}: {why}" for path, why in walked.unreadable.items()]
    lines = [*_left_out(walked), *problems]
    return f"\n{in_lines(lines)}" if lines else ""


def _alike(classes: Mapping[str, set[str]]) -> list[str]:
    """A line about the classes whose names are spelled alike, if there are any.

    Raises:
      ValueError: no domain has both of them, so that they surely are one class.
    """
    groups = defaultdict(list)
    for name in sorted(set.union(*classes.values())):
        groups[spelled(name)].append(name)
    parts = []
    for names in groups.values():
        if len(names) == 1:
            continue
        where = {n: [d for d, found in classes.items() if n in found] for n in names}
        both = " and ".join(f"'{n}' (in {_few(d)})" for n, d in where.items())
        if not any(len(found.intersection(names)) > 1 for found in classes.values()):
            raise ValueError(
                f"{both} look like one class: rename the folders to one name or, if they "
                "are several, to names that differ by more than case and blanks."
            )
        parts.append(both)
    return [f"classes whose names are spelled alike: {_few(parts)}"] if parts else []


def _few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN_IN_A_LINE
    return ", ".join(names[:SHOWN_IN_A_LINE]) + (f" and {more} more" if more > 0 else "")


def _in_order(files: Iterable[str]) -> tuple[str, ...]:
    """ImageFolder's order: by class, in it by folder, in it by name."""
    return tuple(sorted(files, key=lambda f: (class_of(f), *f.rpartition("/")[::2])))
