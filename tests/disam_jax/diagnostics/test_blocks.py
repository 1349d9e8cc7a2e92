"""A block of the parameters is that of the Hessian, in float64."""

import jax
import jax.flatten_util
import numpy as np
import pytest

from disam_jax import diagnostics
from tests.disam_jax.diagnostics.answers import hessian_of, mlp

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
ROUNDING = 1e-12


def test_a_block_is_that_of_the_hessian():
    losses, params = mlp()

    def mean(params):
        return losses(params).mean()

    whole = hessian_of(mean, params)  # hidden: bias 3, kernel 6; out: 2 and 1
    masks = {
        (0, 9): {"hidden": True, "out": False},
        (3, 9): {"hidden": {"kernel": True, "bias": False}, "out": False},
        (9, 12): lambda params: {"hidden": False, "out": [True, True]},
    }
    for (first, last), mask in masks.items():
        loss, part = diagnostics.block(mean, params, mask)
        expected = whole[first:last, first:last]
        np.testing.assert_allclose(hessian_of(loss, part), expected, atol=ROUNDING)
    density = diagnostics.spectral_density(loss, part, KEY, samples=1)
    np.testing.assert_allclose(
        density.nodes[0], np.linalg.eigvalsh(expected)[::-1], atol=ROUNDING
    )
    climbed = diagnostics.sharpness(loss, part, 0.1)
    pulled = jax.grad(mean)(params)["out"]
    assert climbed[0] > 0 and part["hidden"]["bias"] is None
    first_order = 0.1 * np.sqrt(sum(np.sum(np.square(g)) for g in pulled))
    np.testing.assert_allclose(climbed, [first_order], rtol=0.2)


def test_a_mask_holds_bools():
    with pytest.raises(TypeError, match=r"mask must hold bools; got 1 \(int\)"):
        diagnostics.block(lambda w: w["a"], {"a": 1.0}, {"a": 1})
