"""Smaller images by exact box averages, so that every machine gets the same pixels."""

from collections.abc import Sequence

import numpy as np


def check_image_size(name: str, image_size: int, allowed: Sequence[int]) -> None:
    """Refuses a size that the data set does not come in.

    Raises:
      ValueError: naming the argument, the value found and the sizes there are.
    """
    if image_size not in allowed:
        sizes = ", ".join(map(str, allowed))
        raise ValueError(f"image_size of {name} must be one of {sizes}, not {image_size!r}")


def box_average(images: np.ndarray, image_size: int) -> np.ndarray:
    """Means over square blocks of pixels, halves rounded up.

    Args:
      images: uint8 [N, H, H, 3].
      image_size: side of the result; it must divide H.

    Returns:
      uint8 [N, image_size, image_size, 3].
    """
    block = images.shape[1] // image_size
    if block == 1:
        return images
    # A sum of strided views: exact in integers, and faster than reshape and mean.
    total = np.full((len(images), image_size, image_size, 3), block**2 // 2, np.uint16)
    for row in range(block):
        for column in range(block):
            total += images[:, row::block, column::block]
    return (total // block**2).astype(np.uint8)
