"""Makes `merges.txt.gz` again, from a wheel of open_clip.

    pip download --no-deps open_clip_torch==3.3.0
    python -m experiments.models.clip.make_merges open_clip_torch-3.3.0-py3-none-any.whl

The file there holds all merges that OpenAI learned; CLIP uses the first 48,894.
"""

import gzip
import sys
import zipfile
from pathlib import Path

from experiments.models.clip.tokens import MERGES, NOT_MERGES, VOCABULARY


def used_merges(wheel: Path) -> str:
    """CLIP's merges, one a line, the most frequent first."""
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("open_clip/bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed).decode().split("\n")[1:]  # the first names a version
    return "\n".join(lines[: VOCABULARY - NOT_MERGES])


if __name__ == "__main__":
    text = used_merges(Path(sys.argv[1]))
    MERGES.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
