"""Normalized logits, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from disam_jax import diagnostics

pytestmark = pytest.mark.usefixtures("x64")


def test_normalized_logits_know_no_scale_and_no_shift():
    logits = np.random.default_rng(0).normal(size=(4, 7))
    found = diagnostics.normalized_logits(jnp.asarray(logits))
    centered = logits - logits.mean(axis=1, keepdims=True)
    expected = [row / np.sqrt(np.sum(row**2)) for row in centered]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    scaled = diagnostics.normalized_logits(jnp.asarray(1e3 * logits - 5))
    np.testing.assert_allclose(scaled, found, rtol=1e-10)


@pytest.mark.usefixtures("debug_nans")
def test_equal_logits_have_a_gradient_and_are_zero():
    logits = jnp.full((2, 3), 4.0)
    assert np.all(diagnostics.normalized_logits(logits) == 0)
    slope = jax.grad(lambda z: jnp.sum(diagnostics.normalized_logits(z)[:, 0]))(logits)
    assert np.all(np.isfinite(slope))


def test_squares_that_float16_does_not_hold():
    logits = jnp.array([300.0, -300.0], jnp.float16)
    found = diagnostics.normalized_logits(logits)
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, [0.5**0.5, -(0.5**0.5)], rtol=1e-3)
