"""Drawings of an Iconify icon set as pixels."""

import io
from typing import Any

import numpy as np


def svg_of(icon_set: dict[str, Any], name: str, size: int) -> str:
    """A whole SVG document for an icon, of which Iconify stores the body only."""
    icon = icon_set["icons"][name]

    def number(key: str, default: int) -> int:
        return icon.get(key, icon_set.get(key, default))

    corner = f"{number('left', 0)} {number('top', 0)}"
    extent = f"{number('width', 16)} {number('height', 16)}"
    # The one-colored style paints with the surrounding text's color: black.
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
        f'width="{size}" height="{size}" viewBox="{corner} {extent}">'
        f"{icon['body']}</svg>"
    )


def rasterize(svg: str, size: int) -> np.ndarray:
    """The drawing on white, uint8 [size, size, 3].

    Raises:
      ValueError: if the drawing comes out in another size.
    """
    # Imported here: only a rebuild needs them.
    import resvg_py
    from PIL import Image

    # Without system fonts a drawing cannot depend on the machine that renders it.
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=size,
        height=size,
        background="#ffffff",
        skip_system_fonts=True,
    )
    pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
    if pixels.shape != (size, size, 3):
        raise ValueError(f"a drawing of {size} pixels was rendered as {pixels.shape}")
    return pixels
