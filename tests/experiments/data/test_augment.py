import colorsys
import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import augment as module
from experiments.data.augment import adjust_hue, augment, color_jitter, draw_jitter, luma

RECORDED = np.load(Path(__file__).parents[2] / "data" / "transforms" / "recorded.npz")
IMAGE = jnp.asarray(RECORDED["image"], jnp.float32) / 255
FACTORS, TURNS = [0.7, 1.0, 1.23], [-0.3, 0.0, 0.11, 0.5]
NAMES = ("brightness", "contrast", "saturation", "hue")  # in the order of their numbers
KEY = jax.random.key(0)

# Colors in [0, 1]. An adjustment is ten roundings of 6e-8 or so, the mean gray of an image
# some sqrt(n); a mean over the channels is three.


def blend(image, base, factor):
    return jnp.clip(factor * image + (1.0 - factor) * base, 0.0, 1.0)


# One operation each, as torchvision has them; `color_jitter` computes three as one.
ADJUST = {
    "brightness": lambda image, factor: blend(image, 0.0, factor),
    "contrast": lambda image, factor: blend(image, jnp.mean(luma(image)), factor),
    "saturation": lambda image, factor: blend(image, luma(image), factor),
    "hue": adjust_hue,
}


@pytest.mark.parametrize(
    ("name", "i", "value"),
    [
        *((n, i, f) for n in NAMES[:3] for i, f in enumerate(FACTORS)),
        *(("hue", i, t) for i, t in enumerate(TURNS)),
    ],
)
def test_adjustments_are_torchvision_s(name, i, value):
    found = ADJUST[name](IMAGE, value)
    np.testing.assert_allclose(found, RECORDED[f"{name}{i}"], atol=1e-5)


def test_gray_is_torchvision_s():
    gray = np.broadcast_to(luma(IMAGE), IMAGE.shape)
    np.testing.assert_allclose(gray, RECORDED["gray"], atol=1e-6)


def many(count, **changes):
    images = np.repeat(RECORDED["image"][None], count, 0)
    jitted = jax.jit(
        functools.partial(augment, **{"jitter": 0.0, "grayscale": 0.0, **changes})
    )
    return np.asarray(jitted(KEY, images))


def test_half_of_the_images_are_mirrored_and_nothing_else():
    found = many(400)
    plain = np.asarray(IMAGE)
    mirrored = np.array([np.allclose(x, plain[:, ::-1], atol=1e-6) for x in found])
    same = np.array([np.allclose(x, plain, atol=1e-6) for x in found])
    assert (mirrored ^ same).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.08)


def test_a_tenth_of_the_images_is_gray():
    found = many(1000, grayscale=0.1)
    gray = np.ptp(found, axis=-1).max((1, 2)) < 1e-6
    assert gray.mean() == pytest.approx(0.1, abs=0.03)


def test_gray_images_are_mirrored_as_often_as_others():
    found = many(600, grayscale=0.5)
    is_gray = np.ptp(found, axis=-1).max((1, 2)) < 1e-6
    gray = np.asarray(luma(IMAGE))
    mirrored = np.array([np.allclose(x, gray[:, ::-1], atol=1e-6) for x in found[is_gray]])
    assert mirrored.mean() == pytest.approx(0.5, abs=0.1)


def test_orders_and_factors_are_uniform():
    keys = jax.random.split(KEY, 3000)
    orders, factors = jax.vmap(lambda key: draw_jitter(key, 0.3))(keys)
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert {tuple(order) for order in found} == set(itertools.permutations(range(4)))
    np.testing.assert_allclose(counts, 125, rtol=0.3)
    for operation, middle in enumerate((1.0, 1.0, 1.0, 0.0)):
        drawn = np.asarray(factors[:, operation]) - middle
        counts, _ = np.histogram(drawn, bins=6, range=(-0.3, 0.3))
        assert counts.sum() == 3000
        np.testing.assert_allclose(counts, 500, rtol=0.2)
    # Each is drawn by itself, also of the order.
    columns = np.concatenate([factors, orders], 1)
    off_diagonal = np.corrcoef(columns.T)[:4] - np.eye(8)[:4]
    assert np.abs(off_diagonal).max() < 0.08


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_jitter_is_the_adjustments_one_after_the_other(order):
    factors = np.array([1.3, 0.7, 1.25, 0.2], np.float32)
    expected = IMAGE
    for operation in order:
        expected = ADJUST[NAMES[operation]](expected, factors[operation])
    found = jax.jit(color_jitter)(IMAGE, jnp.array(order), factors)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_images_of_a_batch_are_augmented_each_by_itself():
    found = many(64, jitter=0.3)
    brightness = found.mean((1, 2, 3))
    assert len(np.unique(brightness.round(6))) > 60


@pytest.mark.parametrize("turn", [-0.3, 0.0, 0.17, 0.5])
def test_hue_where_channels_tie_or_vanish(turn):
    """Black, white, grays, pure and two-channel colors, against the standard library."""
    pixels = np.array(list(itertools.product((0.0, 0.25, 1.0), repeat=3)))
    expected = []
    for pixel in pixels:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value))
    found = adjust_hue(jnp.asarray(pixels[None], jnp.float32), turn)[0]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_gray_is_made_of_the_jittered_image(monkeypatch):
    monkeypatch.setattr(module, "color_jitter", lambda image, *_: image[..., ::-1])
    gray = np.broadcast_to(luma(IMAGE[..., ::-1]), IMAGE.shape)
    for image in augment(KEY, RECORDED["image"][None].repeat(4, 0), grayscale=1.0):
        either = min(np.abs(image - gray).max(), np.abs(image - gray[:, ::-1]).max())
        assert either < 1e-6


def test_a_batch_is_a_function_of_its_key():
    images = np.repeat(RECORDED["image"][None], 4, 0)
    a, b = augment(KEY, images), augment(KEY, images)
    np.testing.assert_array_equal(a, b)
    assert (np.asarray(a) != np.asarray(augment(jax.random.key(1), images))).any()
    assert a.dtype == jnp.float32 and float(a.min()) >= 0.0 and float(a.max()) <= 1.0


@pytest.mark.parametrize(
    ("images", "strengths", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), {}, "images must be uint8.*float32"),
        (np.zeros((4, 4, 3), np.uint8), {}, r"images must be uint8.*\(4, 4, 3\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), {"jitter": 0.6}, "jitter must be.*got 0.6"),
        (np.zeros((2, 4, 4, 3), np.uint8), {"grayscale": -1}, "grayscale must be.*got -1"),
    ],
)
def test_what_cannot_be_augmented_is_refused(images, strengths, message):
    with pytest.raises(ValueError, match=message):
        augment(KEY, images, **strengths)
