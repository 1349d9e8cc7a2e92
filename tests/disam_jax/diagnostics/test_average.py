"""Average sharpness beside the moments of a quadratic, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from disam_jax import diagnostics
from tests import reference
from tests.problems import loss_fn, start, to_tree

pytestmark = pytest.mark.usefixtures("x64")
PROBLEM = reference.Quadratics.random(0)
PARAMS = start()
KEY = jax.random.key(0)


def test_the_average_rise_of_a_quadratic():
    losses, w = loss_fn(PROBLEM), to_tree(PARAMS)
    found = diagnostics.average_sharpness(losses, w, 0.3, KEY, samples=300)
    expected = np.array([0.3**2 / 2 * np.trace(h) for h in PROBLEM.hessians])
    # The variance of rho g.z + rho^2 z.h.z / 2.
    variance = [
        0.3**2 * g @ g + 0.3**4 / 2 * np.sum(h**2)
        for g, h in zip(PROBLEM.grads(PARAMS), PROBLEM.hessians, strict=True)
    ]
    errors = np.sqrt(np.array(variance) / 300)
    assert np.all(np.abs(found.mean - expected) < 4 * errors)
    np.testing.assert_allclose(found.standard_error, errors, rtol=0.25)


def test_one_sample_has_no_standard_error():
    with pytest.raises(ValueError, match="samples must be an integer >= 2"):
        diagnostics.average_sharpness(jnp.sum, jnp.ones(3), 0.1, KEY, samples=1)
