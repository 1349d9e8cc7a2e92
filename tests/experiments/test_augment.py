import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import augment as module
from experiments.data.augment import augment, luma

RECORDED = np.load(Path(__file__).parents[1] / "data" / "transforms" / "recorded.npz")
IMAGE = jnp.asarray(RECORDED["image"], jnp.float32) / 255
FACTORS, TURNS = [0.7, 1.0, 1.23], [-0.3, 0.0, 0.11, 0.5]
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("name", "i", "value"),
    [
        *(
            (n, i, f)
            for n in ("brightness", "contrast", "saturation")
            for i, f in enumerate(FACTORS)
        ),
        *(("hue", i, t) for i, t in enumerate(TURNS)),
    ],
)
def test_adjustments_are_torchvision_s(name, i, value):
    found = getattr(module, f"adjust_{name}")(IMAGE, value)
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


def test_all_orders_of_the_jitter_occur(monkeypatch):
    """Each adjustment marks the image with its digit; the digits spell the order."""
    for digit, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        monkeypatch.setattr(
            module, f"adjust_{name}", lambda x, value, digit=digit: 10 * x + digit + 1
        )
    keys = jax.random.split(KEY, 3000)
    spelled = jax.vmap(
        lambda k: module.color_jitter(k, jnp.zeros((1, 1, 3)), 0.3)[0, 0, 0]
    )(keys)
    orders, counts = np.unique(np.asarray(spelled).astype(int), return_counts=True)
    assert len(orders) == 24 and set("".join(map(str, orders))) == set("1234")
    np.testing.assert_allclose(counts, 125, rtol=0.3)


def test_factors_fill_their_range(monkeypatch):
    """The value each adjustment gets, seen one at a time."""
    keys = jax.random.split(KEY, 2000)
    for name, middle in (
        ("brightness", 1.0),
        ("contrast", 1.0),
        ("saturation", 1.0),
        ("hue", 0.0),
    ):
        with monkeypatch.context() as patch:
            for other in ("brightness", "contrast", "saturation", "hue"):
                patch.setattr(
                    module,
                    f"adjust_{other}",
                    (lambda x, value: x + value) if other == name else (lambda x, value: x),
                )
            seen = np.asarray(
                jax.vmap(
                    lambda k: module.color_jitter(k, jnp.zeros((1, 1, 3)), 0.3)[0, 0, 0]
                )(keys)
            )
        counts, _ = np.histogram(seen - middle, bins=6, range=(-0.3, 0.3))
        assert counts.sum() == 2000
        np.testing.assert_allclose(counts, 2000 / 6, rtol=0.2)


def test_a_batch_is_a_function_of_its_key():
    images = np.repeat(RECORDED["image"][None], 4, 0)
    a, b = augment(KEY, images), augment(KEY, images)
    np.testing.assert_array_equal(a, b)
    assert (np.asarray(a) != np.asarray(augment(jax.random.key(1), images))).any()
    assert a.dtype == jnp.float32 and float(a.min()) >= 0.0 and float(a.max()) <= 1.0
