"""The same 687 emoji concepts, drawn in four styles by independent artists.

The images are two data sets: of 7 coarse classes, and with every concept its own class.
"""

from pathlib import Path

import numpy as np

from experiments.data.domain_data import DomainData
from experiments.data.emoji_styles import archive
from experiments.data.image_size import box_average, check_image_size

DOMAINS = ("noto", "twemoji", "fluent", "mono")
ARCHIVE = Path(__file__).with_name("emoji_styles_64.npz")
NAMES = Path(__file__).with_name("concept_names.txt")
_SIZES = (64, 32, 16, 8)


def emoji_styles(image_size: int = 32, *, path: Path = ARCHIVE) -> DomainData:
    """Emoji of 7 classes in 4 styles; the domain is the style.

    Every domain shows the same 687 concepts in the same order, and `groups` numbers the
    concepts, so a split by groups holds out the same concepts in every style.

    Args:
      image_size: 64, as stored, or 32, 16 or 8, averaged over blocks of pixels.
      path: the archive that `build.py` writes, its checksum file beside it.

    Raises:
      ValueError: if the size is another, or the archive does not match its checksum.
    """
    check_image_size("emoji_styles", image_size, _SIZES)
    arrays = archive.read(path)
    labels = arrays["label"].astype(np.int32)
    concepts = np.arange(len(labels), dtype=np.int32)
    return DomainData(
        name="emoji_styles",
        domains=DOMAINS,
        classes=tuple(arrays["classes"].tolist()),
        images=tuple(box_average(arrays[f"image_{d}"], image_size) for d in DOMAINS),
        labels=(labels,) * len(DOMAINS),
        groups=(concepts,) * len(DOMAINS),
        flip=True,
        description="the same emoji concepts drawn in four styles, one a black-and-white "
        "line art",
    )


def emoji_concepts(image_size: int = 64, *, path: Path = ARCHIVE) -> DomainData:
    """The images of `emoji_styles`, each concept a class under its English name.

    Classes are sorted by name, as those of a tree of folders. A domain has one image of
    each, a group of its own, so a split by groups holds out images of every style at
    random: what is held out in one style is mostly trained on in others.

    Args:
      image_size: 64, as stored, or 32, 16 or 8, averaged over blocks of pixels.
      path: the archive that `build.py` writes, its checksum file beside it.

    Raises:
      ValueError: if the size is another, or the archive does not match its checksum.
    """
    check_image_size("emoji_concepts", image_size, _SIZES)
    arrays = archive.read(path)
    names = NAMES.read_text(encoding="utf-8").splitlines()
    order = np.argsort(names)  # of the archive, where concepts stand by code points
    count = len(order)
    return DomainData(
        name="emoji_concepts",
        domains=DOMAINS,
        classes=tuple(names[i] for i in order),
        images=tuple(box_average(arrays[f"image_{d}"][order], image_size) for d in DOMAINS),
        labels=(np.arange(count, dtype=np.int32),) * len(DOMAINS),
        groups=tuple(
            np.arange(d * count, (d + 1) * count, dtype=np.int32)
            for d in range(len(DOMAINS))
        ),
        flip=False,  # a hand that points to the left is a class, to the right another
        description="687 emoji concepts by name, one image each in four styles",
    )
