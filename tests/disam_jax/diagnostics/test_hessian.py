"""Products and eigenvectors of Hessians that are written down, in float64."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from disam_jax import diagnostics
from tests import reference
from tests.disam_jax.diagnostics.answers import hessian_of, quadratic, symmetric
from tests.problems import loss_fn, start, to_tree

pytestmark = pytest.mark.usefixtures("x64")
PROBLEM = reference.Quadratics.random(0)
KEY = jax.random.key(0)
ROUNDING = 1e-12


def test_a_product_is_that_of_the_matrix():
    found = hessian_of(lambda w: loss_fn(PROBLEM)(w)[1], to_tree(start()))
    np.testing.assert_allclose(found, PROBLEM.hessians[1], atol=ROUNDING)


@pytest.mark.parametrize("iterations", [None, 40])
def test_eigenvectors_are_those_of_the_matrix(iterations):
    eigenvalues = np.array([9.0, 7.0, 7.0, 4.0, *np.linspace(1, -3, 36)])
    rotation = np.linalg.qr(symmetric(40))[0]
    hessian = rotation * eigenvalues @ rotation.T
    params = {"a": jnp.ones((5, 3)), "b": [jnp.ones(25)]}

    def loss(w):
        return quadratic(hessian)(jax.flatten_util.ravel_pytree(w)[0])

    found = diagnostics.hessian_top_eigenvectors(
        loss, params, 4, KEY, iterations=iterations
    )
    assert jax.tree.map(jnp.shape, found.vectors) == {"a": (4, 5, 3), "b": [(4, 25)]}
    vectors = np.array([jax.flatten_util.ravel_pytree(row)[0] for row in rows(found)])
    np.testing.assert_allclose(found.values, [9, 7, 7, 4], atol=1e-10)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(
        hessian @ vectors.T, vectors.T * np.asarray(found.values), atol=1e-9
    )


def rows(found):
    return [jax.tree.map(lambda leaf, k=k: leaf[k], found.vectors) for k in range(4)]


def test_complex_parameters_are_two_real_ones_each():
    def loss(z):
        return jnp.real(z[0]) ** 2 + 3 * jnp.imag(z[0]) ** 2

    z = jnp.array([1.0 + 2.0j])
    product = diagnostics.hessian_product(loss, z, jnp.array([1.0 + 1.0j]))
    np.testing.assert_allclose(product, [2 + 6j], atol=ROUNDING)
    found = diagnostics.hessian_top_eigenvectors(loss, z, 1, KEY)
    np.testing.assert_allclose(found.values, [6], atol=ROUNDING)
    np.testing.assert_allclose(np.abs(found.vectors.imag), [[1]], atol=ROUNDING)
