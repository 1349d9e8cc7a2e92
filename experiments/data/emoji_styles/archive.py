"""An .npz that is the same bytes at every build, beside a checksum of its contents."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold


def content_sha256(arrays: dict[str, np.ndarray]) -> str:
    """A checksum of names, types, shapes and values.

    Unlike a checksum of the file it does not depend on the compressor's version.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.dtype.kind != "U" else array.tobytes())
    return digest.hexdigest()


def checksum_file(path: Path) -> Path:
    """Where the checksum of an archive lies: beside it, as .sha256."""
    return path.with_suffix(".sha256")


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the archive, reproducible to the byte for one version of zlib, and its sum.

    `numpy.savez_compressed` will not do: it stores the time of writing.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3  # Unix, whatever system builds the archive
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0))
            archive.writestr(member, buffer.getvalue(), compresslevel=9)
    checksum_file(path).write_text(content_sha256(arrays) + "\n")


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive whose contents match its checksum.

    Raises:
      FileNotFoundError: if the archive or its checksum is not there.
      ValueError: if the archive cannot be read or its contents have another checksum.
    """
    expected = checksum_file(path).read_text().strip()
    stored = io.BytesIO(path.read_bytes())
    try:
        with np.load(stored, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # damage shows in many ways: zip, zlib, OS, value errors
        raise ValueError(f"{path} is damaged ({error}); restore or rebuild it") from error
    found = content_sha256(arrays)
    if found != expected:
        raise ValueError(
            f"the contents of {path} have sha256 {found}, but {checksum_file(path).name} "
            f"says {expected}; restore or rebuild the archive"
        )
    return arrays
