"""The npm packages that the data set is built from: pinned, downloaded and verified."""

import base64
import hashlib
import json
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

_REGISTRY = "https://registry.npmjs.org"


class Package(NamedTuple):
    """One release of an npm package.

    Attributes:
      name: name in the registry, with its scope.
      version: the exact release.
      integrity: its tarball's hash as `npm view NAME@VERSION dist.integrity` prints it.
    """

    name: str
    version: str
    integrity: str

    @property
    def filename(self) -> str:
        """The name of its tarball, unique over scopes."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def url(self) -> str:
        """Where the registry keeps its tarball."""
        return f"{_REGISTRY}/{self.name}/-/{self.name.split('/')[-1]}-{self.version}.tgz"


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
    """The package's tarball in the cache, downloaded if it is not there yet.

    Raises:
      ValueError: if the tarball, old or new, does not have the pinned hash.
    """
    path = cache / package.filename
    if path.exists():
        _verify(path.read_bytes(), package, str(path))
        return path
    with urllib.request.urlopen(package.url, timeout=60) as response:
        tarball = response.read()
    _verify(tarball, package, package.url)
    # Renamed only when whole, so that an interrupted run leaves no half tarball.
    partial = path.with_suffix(".part")
    partial.write_bytes(tarball)
    return partial.rename(path)


def read_json(tarball: Path, member: str) -> Any:
    """A JSON file of the package, by its path inside the package."""
    with tarfile.open(tarball) as archive:
        file = archive.extractfile(f"package/{member}")
        assert file is not None, f"{member} in {tarball} is not a file"
        return json.load(file)


def _verify(tarball: bytes, package: Package, where: str) -> None:
    digest = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        raise ValueError(
            f"{where} has integrity sha512-{digest}, but {package.name}@{package.version} "
            f"is pinned to {package.integrity}; delete the file if it is in the cache"
        )
