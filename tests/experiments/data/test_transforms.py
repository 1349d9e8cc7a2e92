import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.transforms import (
    center_crop,
    crop_and_resize,
    crop_box,
    decode,
    random_resized_crop,
    resize,
)

RECORDED = np.load(Path(__file__).parents[2] / "data" / "transforms" / "recorded.npz")
BOXES = [(0, 0, 40, 30), (3, 5, 17, 22), (10, 1, 25, 9)]
IMAGE = Image.fromarray(RECORDED["image"])


@pytest.mark.parametrize("i", range(len(BOXES)))
def test_crops_are_torchvision_s(i):
    np.testing.assert_array_equal(
        crop_and_resize(IMAGE, BOXES[i], 16), RECORDED[f"crop{i}"]
    )


def test_the_test_view_is_torchvision_s():
    np.testing.assert_array_equal(resize(IMAGE, 24), RECORDED["resize"])


def test_boxes_follow_the_rule():
    rng = np.random.default_rng(0)
    width, height = 300, 200
    boxes = np.array([crop_box(rng, width, height) for _ in range(4000)])
    left, top, w, h = boxes.T
    assert (left >= 0).all() and (left + w <= width).all()
    assert (top >= 0).all() and (top + h <= height).all()
    area = w * h / (width * height)
    assert area.min() == pytest.approx(0.7, abs=0.01) and area.max() <= 1.0
    assert (w / h).min() > 3 / 4 - 0.01 and (w / h).max() < 4 / 3 + 0.01
    # Where a box lies is uniform in what is free.
    free = width - w
    share = left[free > 20] / free[free > 20]
    assert share.mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("name", "size"), [("wide", (300, 200)), ("square", (256, 256)), ("strip", (400, 60))]
)
def test_boxes_are_distributed_as_torchvision_s(name, size):
    rng = np.random.default_rng(2)
    theirs = RECORDED[f"boxes_{name}"]
    ours = np.array([crop_box(rng, *size) for _ in theirs])
    for column in range(4):
        values = np.arange(max(size) + 1)
        below = [np.searchsorted(np.sort(x[:, column]), values) for x in (ours, theirs)]
        farthest = np.abs(below[0] - below[1]).max() / len(ours)
        assert farthest < 1.63 * (2 / len(ours)) ** 0.5  # Kolmogorov-Smirnov, at 1 %


def test_a_square_image_takes_all_areas_alike():
    rng = np.random.default_rng(1)
    boxes = np.array([crop_box(rng, 400, 400, min_crop=0.2) for _ in range(4000)])
    area = boxes[:, 2] * boxes[:, 3] / 400**2
    # A box wider than the image is drawn anew, which large areas are more often.
    counts, _ = np.histogram(area, bins=[0.2, 0.3, 0.4, 0.5, 0.6])
    np.testing.assert_allclose(counts / counts.mean(), 1.0, atol=0.15)
    ratio = np.log(boxes[:, 2] / boxes[:, 3])[area < 0.5]
    counts, _ = np.histogram(ratio, bins=4, range=(np.log(3 / 4), np.log(4 / 3)))
    np.testing.assert_allclose(counts / counts.mean(), 1.0, atol=0.15)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((1000, 10), (493, 0, 13, 10)),  # ratio 4/3 at full height
        ((10, 1000), (0, 493, 10, 13)),
    ],
)
def test_where_no_box_fits_the_central_one_is_taken(size, box):
    assert crop_box(np.random.default_rng(0), *size) == box


def test_a_crop_is_a_function_of_its_generator():
    a, b, c = (random_resized_crop(IMAGE, np.random.default_rng(s), 16) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def encoded(image, form="PNG"):
    out = io.BytesIO()
    image.save(out, format=form)
    return out.getvalue()


def test_every_mode_becomes_rgb_on_white():
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(decode(encoded(half)))[0, 0].tolist() == [255, 255, 255]
    gray = Image.new("L", (4, 4), 77)
    assert np.asarray(decode(encoded(gray)))[0, 0].tolist() == [77, 77, 77]
    palette = Image.new("RGB", (4, 4), (10, 200, 30)).quantize(4)
    assert np.asarray(decode(encoded(palette)))[0, 0].tolist() == [10, 200, 30]
    cmyk = Image.new("RGB", (8, 8), (200, 40, 40)).convert("CMYK")
    found = np.asarray(decode(encoded(cmyk, "JPEG")))[0, 0]
    np.testing.assert_allclose(found, [200, 40, 40], atol=6)


# Width and height, the side of the view; the longer side then, and what is cut before it.
CENTERS = [
    ((300, 200), 224, 336, 56),
    ((200, 301), 64, 96, 16),  # portrait; 96.32 is rounded down
    ((67, 64), 64, 67, 2),  # half of an odd rest, 1.5, is rounded to even
    ((65, 64), 64, 65, 0),  # 0.5
    ((64, 69), 64, 69, 2),  # 2.5
    ((31, 17), 48, 87, 20),  # smaller than the view; 19.5
    ((1, 3), 5, 15, 5),
]


@pytest.mark.parametrize(("sides", "size", "longer", "before"), CENTERS)
def test_the_center_is_where_torchvision_cuts(sides, size, longer, before):
    """Resize(size) and CenterCrop(size), by what their arithmetic gives."""
    width, height = sides
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    resized = (longer, size) if width > height else (size, longer)
    whole = np.asarray(image.resize(resized, Image.Resampling.BILINEAR))
    kept = slice(before, before + size)
    cut = whole[:, kept] if width > height else whole[kept]
    np.testing.assert_array_equal(center_crop(image, size), cut)


def test_a_square_has_one_view():
    square = IMAGE.crop((0, 0, 30, 30))
    np.testing.assert_array_equal(center_crop(square, 24), resize(square, 24))
    assert (center_crop(IMAGE, 24) != resize(IMAGE, 24)).any()
