"""The npm packages that the data set is built from: pinned, fetched, and verified."""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple


class Package(NamedTuple):
    """One release of an npm package.

    Attributes:
      name: as npm knows it, with its scope.
      version: the exact release.
      integrity: its tarball's hash as `npm view NAME@VERSION dist.integrity` prints it.
    """

    name: str
    version: str
    integrity: str

    @property
    def filename(self) -> str:
        """The name that `npm pack` gives its tarball, unique over scopes."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


ICON_SETS = {
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rc"
        "KF0mqHYeZVAuaw==",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLl"
        "j41WU6/mvgALsw==",
    ),
    "fluent": Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg"
        "+9OBv4hz4Hc/QA==",
    ),
    "mono": Package(
        "@iconify-json/fluent-emoji-high-contrast",
        "1.2.6",
        "sha512-esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8x"
        "hIKu3+Nq1byX5w==",
    ),
}

UNICODE_SUBGROUPS = Package(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmI"
    "tljHsTygjA==",
)


def fetch(package: Package, cache: Path) -> Path:
    """The package's tarball in the cache, fetched by `npm pack` if it is not there yet.

    Raises:
      ValueError: npm is missing or fails, or the tarball, old or new, does not have the
        pinned hash.
    """
    path = cache / package.filename
    if not path.exists():
        # Renamed only when whole, so that an interrupted run leaves no half tarball.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            fetched = _npm_pack(package, Path(folder))
            _verify(fetched, package)
            fetched.replace(path)
    _verify(path, package)
    return path


def _npm_pack(package: Package, folder: Path) -> Path:
    """The tarball that npm puts into the folder."""
    wanted = f"{package.name}@{package.version}"
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"npm, which fetches {wanted}, is not installed: install Node.js")
    command = [npm, "pack", wanted, "--pack-destination", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"npm pack {wanted} failed:\n{done.stderr.strip()}")
    return folder / package.filename


def read_json(tarball: Path, member: str) -> Any:
    """A JSON file of the package, by its path inside the package."""
    with tarfile.open(tarball) as archive:
        file = archive.extractfile(f"package/{member}")
        assert file is not None, f"{member} in {tarball} is not a file"
        return json.load(file)


def _verify(tarball: Path, package: Package) -> None:
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        raise ValueError(
            f"{tarball} has integrity sha512-{digest}, but "
            f"{package.name}@{package.version} is pinned to {package.integrity}; delete "
            "the file if it is in the cache"
        )
