"""Dropout of the features before the head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models.classifier import make_classifier
from tests.float32 import assert_close

MODEL = make_classifier("patchnet", 3)
IMAGES = jax.random.uniform(jax.random.key(0), (32, 16, 16, 3))
PARAMS = MODEL.init(jax.random.key(1), IMAGES, train=False)["params"]


def features(dropout, params=PARAMS, train=True, key=2):
    rngs = {"dropout": jax.random.key(key)}
    return MODEL.apply({"params": params}, IMAGES, train, dropout, rngs=rngs)[1]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_share_is_dropped_and_the_others_are_scaled(rate):
    whole = np.asarray(features(0.0))
    there = whole != 0
    dropped = np.asarray(jax.jit(features)(jnp.float32(rate)))
    kept = there & (dropped != 0)
    assert_close(dropped, np.where(kept, whole / (1 - rate), 0))
    count = there.sum()  # 5 standard deviations of a binomial
    assert abs(kept.sum() - (1 - rate) * count) < 5 * np.sqrt(rate * (1 - rate) * count)
    assert_close(features(rate), dropped)


def test_one_key_drops_alike_at_other_weights_and_another_does_not():
    there = [
        np.asarray(features(0.5, params, key=key) != 0)
        for params, key in (
            (PARAMS, 2),
            (jax.tree.map(lambda w: 1.01 * w, PARAMS), 2),
            (PARAMS, 3),
        )
    ]
    assert (there[0] != there[1]).mean() < 0.01  # a feature that itself became 0 or not
    assert (there[0] != there[2]).mean() > 0.1


def test_nothing_is_dropped_in_evaluation():
    np.testing.assert_array_equal(features(0.5, train=False), features(0.0))
