"""Every image is written by hand where Pillow cannot write it, and its pixels are known."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from experiments.data.pixels import to_rgb

DEEP = np.random.default_rng(0).integers(0, 2**16, (4, 6), np.uint16)
DEEP[0, :4] = 0, 2**16 - 1, 128, 129  # on both sides of a half of 1 / 255
COLORS = np.random.default_rng(1).integers(0, 2**16, (4, 6, 3), np.uint16)
ALPHA = np.random.default_rng(2).integers(0, 2**16, (4, 6, 1), np.uint16)


def decoded(raw):
    with Image.open(io.BytesIO(raw)) as image:
        rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    return np.asarray(rgb)


def gray(values):
    """uint8 [H, W, 3] of values in 0..255."""
    return np.dstack([np.asarray(values)] * 3)


def eight_bits(deep, largest=2**16 - 1):
    return np.floor(deep.astype(float) * 255 / largest + 0.5).astype(int)


def png(rows, width, depth, color, transparent=()):
    """A PNG of packed rows; `color` is 0 gray, 2 RGB, 4 gray and alpha, 6 RGB and alpha."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + crc(name + data)

    def crc(data):
        return struct.pack(">I", zlib.crc32(data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    clear = struct.pack(f">{len(transparent)}H", *transparent)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", clear) if transparent else b"")
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


def deep_png(values, color, transparent=()):
    rows = [row.astype(">u2").tobytes() for row in values]
    return png(rows, values.shape[1], 16, color, transparent)


def tiff(image, **options):
    out = io.BytesIO()
    image.save(out, format="TIFF", **options)
    return out.getvalue()


def packed_tiff(data, bits, width, height):
    """An uncompressed gray TIFF, black 0, of samples that Pillow does not write."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 277: 1, 278: height}
    tags |= {279: len(data)}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + b"".join(entries) + bytes(4) + data


# Gray of more than 8 bits


@pytest.mark.parametrize(
    ("raw", "expected"),
    {
        "png": (deep_png(DEEP, 0), eight_bits(DEEP)),
        "pgm": (b"P5 6 4 65535\n" + DEEP.astype(">u2").tobytes(), eight_bits(DEEP)),
        "tiff": (tiff(Image.fromarray(DEEP)), eight_bits(DEEP)),
        "compressed tiff": (
            tiff(Image.fromarray(DEEP), compression="tiff_lzw"),
            eight_bits(DEEP),
        ),
        "big-endian tiff": (
            tiff(Image.frombytes("I;16B", (6, 4), DEEP.astype(">u2").tobytes())),
            eight_bits(DEEP),
        ),
        "tiff, 0 is white": (
            tiff(Image.fromarray(DEEP), tiffinfo={262: 0}),
            255 - eight_bits(DEEP),
        ),
        "clear png": (
            deep_png(DEEP, 0, (int(DEEP[2, 2]),)),
            np.where(DEEP[2, 2] == DEEP, 255, eight_bits(DEEP)),
        ),
        # 0xFED, 0x001 in 12 bits each
        "12-bit tiff": (
            packed_tiff(b"\xfe\xd0\x01", 12, 2, 1),
            eight_bits(np.array([[0xFED, 1]]), 2**12 - 1),
        ),
    }.values(),
)
def test_deep_gray_is_scaled_from_its_whole_range(raw, expected):
    np.testing.assert_array_equal(decoded(raw), gray(expected))


@pytest.mark.parametrize(
    ("raw", "kind"),
    {
        "float tiff": (tiff(Image.fromarray(np.ones((2, 2), np.float32))), "floating"),
        "pfm": (b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5), "floating-point"),
        "signed 32": (tiff(Image.fromarray(np.ones((2, 2), np.int32))), "signed"),
        "unsigned 32": (packed_tiff(bytes(4), 32, 1, 1), "32-bit"),
        "signed 16": (tiff(Image.fromarray(DEEP), tiffinfo={339: 2}), "signed"),
        "signed 8": (tiff(Image.new("L", (2, 2)), tiffinfo={339: 2}), "signed"),
    }.values(),
)
def test_pixels_of_which_white_is_not_known_are_refused_with_the_mend(raw, kind):
    with pytest.raises(ValueError, match=rf"pixels are {kind}.*8 or 16 bits"):
        decoded(raw)


# Colors of more than 8 bits: Pillow takes the upper 8 bits, less than one level below


def test_deep_colors_are_within_a_level():
    found = decoded(deep_png(COLORS, 2))
    np.testing.assert_array_equal(found, COLORS >> 8)
    assert np.abs(found - COLORS / 257).max() < 1


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_colors_with_alpha_are_mixed_with_white(channels):
    colors, color = (COLORS[..., :channels], {1: 4, 3: 6}[channels])
    found = decoded(deep_png(np.dstack([colors, ALPHA]), color))
    alpha = ALPHA / 65535
    expected = colors / 257 * alpha + 255 * (1 - alpha)
    # The upper 8 bits of both, and a rounding of the mixture.
    assert np.abs(found - expected).max() <= 2.5


# Which pixels are transparent


def test_a_clear_color_of_a_deep_png_is_white():
    clear = COLORS[1, 1]
    expected = np.where((clear == COLORS).all(-1, keepdims=True), 255, COLORS >> 8)
    found = decoded(deep_png(COLORS, 2, tuple(clear.tolist())))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("depth", "row", "levels"),
    [(1, 0b01010000, [0, 255, 0, 255]), (2, 0b00011011, [0, 255, 170, 255])],
)
def test_a_clear_gray_of_few_bits_is_white(depth, row, levels):
    raw = png([bytes([row])], 4, depth, 0, transparent=(1,))
    np.testing.assert_array_equal(decoded(raw), gray([levels]))


# As they are stored


def test_of_an_animation_the_first_image_is_taken():
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, format="PNG", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decoded(out.getvalue()), np.full((2, 2, 3), (255, 0, 0)))


def test_an_orientation_is_not_applied():
    image = Image.new("RGB", (2, 1))
    turned = Image.Exif()
    turned[0x0112] = 6
    out = io.BytesIO()
    image.save(out, format="PNG", exif=turned)
    assert decoded(out.getvalue()).shape == (1, 2, 3)
