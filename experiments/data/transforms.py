"""What the host does to an image: decode, crop, resize; 8-bit RGB, by PIL.

Flips, colors and normalization are left to the device, see `augment`: the host has half the
work, and a quarter of the bytes are moved.
"""

import io
import math

import numpy as np
from PIL import Image

from experiments.data.pixels import to_rgb

RATIO = (3 / 4, 4 / 3)  # of width to height of a crop


def decode(data: bytes) -> Image.Image:
    """A file's bytes -> the image in RGB."""
    return to_rgb(Image.open(io.BytesIO(data)))


def crop_box(
    rng: np.random.Generator, width: int, height: int, min_crop: float = 0.7
) -> tuple[int, int, int, int]:
    """Where torchvision's RandomResizedCrop(scale=(min_crop, 1)) would cut.

    The area is uniform in [min_crop, 1] of the image's, the logarithm of width / height
    uniform between those of 3/4 and 4/3; after ten boxes that do not fit, the largest
    central one of an allowed ratio.

    Args:
      rng: of this example.
      width: of the image.
      height: of the image.
      min_crop: smallest share of the area.

    Returns:
      left, top, width and height, in pixels.
    """
    for _ in range(10):
        area = width * height * rng.uniform(min_crop, 1.0)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(0, width - w + 1))
            top = int(rng.integers(0, height - h + 1))
            return left, top, w, h
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return (width - w) // 2, (height - h) // 2, w, h


def crop_and_resize(
    image: Image.Image, box: tuple[int, int, int, int], size: int
) -> np.ndarray:
    """The box of the image, uint8 [size, size, 3], bilinear with antialias."""
    left, top, width, height = box
    cut = image.crop((left, top, left + width, top + height))
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR))


def random_resized_crop(
    image: Image.Image, rng: np.random.Generator, size: int, min_crop: float = 0.7
) -> np.ndarray:
    """The papers' crop for training, uint8 [size, size, 3]."""
    return crop_and_resize(image, crop_box(rng, *image.size, min_crop), size)


def resize(image: Image.Image, size: int) -> np.ndarray:
    """DomainBed's view for testing: the whole image, its aspect not kept."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """CLIP's view for testing: its shorter side resized to `size`, the middle cut out.

    As torchvision's Resize and CenterCrop, bilinear: the longer side is rounded down, and
    half of an odd rest is rounded to even.
    """
    width, height = image.size
    short = min(width, height)
    width, height = size * width // short, size * height // short
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


VIEWS = {"whole": resize, "center_crop": center_crop}
