"""Images of every kind as 8-bit RGB."""

from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
UNSIGNED, UNSAID = 1, 4  # of SAMPLE_FORMAT
WHITE_IS_0, BLACK_IS_0 = 0, 1  # of PHOTOMETRIC
# Pillow's names of how a PNG's samples are packed -> its samples' share of the 8-bit ones.
FEWER_OR_MORE_BITS = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB, transparent pixels white.

    Of a file with several images, as an animation is, it is the first.

    Gray of 16 bits, or of 12 in a TIFF, is scaled from its whole range, black to white.
    Colors of 16 bits are read by Pillow itself as their upper 8. The pixels are as they
    are stored: EXIF's orientation is not applied, nor does ImageFolder apply it.

    Args:
      image: as opened; its pixels need not have been read yet.

    Returns:
      The image in mode RGB.

    Raises:
      ValueError: which values are black and white is not known, as for floats; the
        message says what to do.
    """
    _check_range(image)
    if image.mode.startswith("I"):
        return _deep_gray(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "P", "PA") or "transparency" in image.info:
        _scale_transparency(image)
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


def _check_range(image: Image.Image) -> None:
    """Refuses pixels of which it is not known how bright the largest is."""
    kind = None
    if image.mode == "F":
        kind = "floating-point"
    elif not {UNSIGNED, UNSAID}.issuperset(_of_tiff(image, SAMPLE_FORMAT, (UNSIGNED,))):
        kind = "signed"
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):  # theirs have 16 bits
        kind = "32-bit"
    if kind:
        raise ValueError(
            f"its pixels are {kind} numbers, and which of them is white is not known: "
            "save it with unsigned pixels of 8 or 16 bits, black 0 and white the largest"
        )


def _deep_gray(image: Image.Image) -> Image.Image:
    """Gray of more than 8 bits -> of 8, halves rounded up."""
    largest = 2 ** _of_tiff(image, BITS_PER_SAMPLE, (16,))[0] - 1
    values = np.asarray(image).astype(np.uint32)
    gray = (values * 255 + largest // 2) // largest
    # Pillow turns such an image over where it has 8 bits, but not where it has more.
    if _of_tiff(image, PHOTOMETRIC, BLACK_IS_0) == WHITE_IS_0:
        gray = 255 - gray
    if "transparency" in image.info:
        gray[values == image.info["transparency"]] = 255
    return Image.fromarray(gray.astype(np.uint8))


def _scale_transparency(image: Image.Image) -> None:
    """Brings a PNG's transparent color to the 8 bits that its pixels are read with."""
    if not isinstance(image, PngImageFile) or not image.tile:
        return
    color = image.info.get("transparency")
    share = FEWER_OR_MORE_BITS.get(str(image.tile[0].args), 1)
    if isinstance(color, int):
        image.info["transparency"] = int(color * share)
    elif isinstance(color, tuple):
        image.info["transparency"] = tuple(int(value * share) for value in color)


def _of_tiff(image: Image.Image, tag: int, default: Any) -> Any:
    """The value of a tag of a TIFF; of other images the default."""
    return image.tag_v2.get(tag, default) if isinstance(image, TiffImageFile) else default
