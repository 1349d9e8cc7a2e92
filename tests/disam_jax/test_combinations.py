import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from tests import reference
from tests.problems import to_flat, to_tree

RNG = np.random.default_rng(1)
GRAD, PERTURBED = RNG.normal(size=5), RNG.normal(size=5)
PARTS = {
    "sam": dj.take_perturbed,
    "sagm": dj.average,
    "gsam": dj.subtract_orthogonal(0.4),
}


@pytest.mark.parametrize("kind", PARTS)
def test_formula(x64, kind):
    combined = PARTS[kind](to_tree(GRAD), to_tree(PERTURBED))
    expected = reference.COMBINE[kind](GRAD, PERTURBED, 0.4)
    np.testing.assert_allclose(to_flat(combined), expected, rtol=1e-12)


def test_gsam_keeps_the_perturbed_gradient_and_subtracts_what_is_orthogonal(x64):
    combined = to_flat(PARTS["gsam"](to_tree(GRAD), to_tree(PERTURBED)))
    removed = PERTURBED - combined
    np.testing.assert_allclose(removed @ PERTURBED, 0.0, atol=1e-12)
    np.testing.assert_allclose(removed @ GRAD, 0.4 * (removed / 0.4) @ (removed / 0.4))


def test_gsam_of_parallel_gradients_is_sam(x64):
    combined = PARTS["gsam"](to_tree(-3 * PERTURBED), to_tree(PERTURBED))
    np.testing.assert_allclose(to_flat(combined), PERTURBED, rtol=1e-12)


def test_gsam_at_a_zero_perturbed_gradient(debug_nans):
    combined = PARTS["gsam"](to_tree(GRAD), to_tree(np.zeros(5)))
    np.testing.assert_allclose(to_flat(combined), -0.4 * GRAD, rtol=1e-6)


def test_gsam_projects_in_float32():
    grad = {"w": jnp.full(1000, 300.0, jnp.float16)}
    combined = PARTS["gsam"](grad, grad)["w"]
    np.testing.assert_allclose(combined.astype(jnp.float32), 300.0, rtol=1e-3)
