"""What the wheel and the sdist of a folder hold.

The library and what says what it is: no tests, pages, results, data or experiments. Called
as `python .ci/contents.py FOLDER`.
"""

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ABOUT = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"}
BUILDS = {"pyproject.toml", "hatch_build.py", ".gitignore", "PKG-INFO"}
LIMIT = 1_000_000  # bytes; a clone has 30 MB


def library() -> set[str]:
    """The files of disam_jax that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "disam_jax"], capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def check(file: Path, found: set[str], expected: set[str]) -> None:
    """Prints the file's size; exits where it does not hold what it should."""
    wrong = sorted(found ^ expected)
    if wrong:
        sys.exit(f"{file.name}: too much, or missing: {wrong}")
    size = file.stat().st_size
    if size > LIMIT:
        sys.exit(f"{file.name} has {size} bytes, more than {LIMIT}")
    print(f"{file.name}: {len(found)} files, {size / 1000:.0f} kB")


def check_metadata(text: str) -> None:
    """Exits where the page of a package index would lack something."""
    metadata = email.message_from_string(text)
    for name in ("Author", "Keywords", "Classifier", "Project-URL", "License-File"):
        if name not in metadata:
            sys.exit(f"the metadata have no {name}")
    inside = re.findall(r"\]\((?!https?:|#)[^)]*\)", metadata.get_payload())
    if inside:
        sys.exit(f"links of the README that lead nowhere from an index: {inside}")


def main(folder: Path) -> None:
    """Checks the one wheel and the one sdist of a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
        own = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL")}
        own.add(f"{info}/licenses/LICENSE")
        check(wheel, set(archive.namelist()), library() | own)
        check_metadata(archive.read(f"{info}/METADATA").decode())
    with tarfile.open(sdist) as archive:
        files = {file.name.partition("/")[2] for file in archive if file.isfile()}
        check(sdist, files, library() | ABOUT | BUILDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
