"""Distances between Hessians beside those of the matrices, in float64."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from disam_jax import diagnostics
from tests import reference
from tests.problems import loss_fn, start, to_tree

pytestmark = pytest.mark.usefixtures("x64")
PROBLEM = reference.Quadratics.random(0)
KEY = jax.random.key(0)


def test_distances_of_diagonal_hessians_are_exact():
    diagonals = np.array([[1.0, 2.0, -3.0], [0.0, 2.0, 1.0], [1.0, 2.0, -3.0]])
    found = diagnostics.hessian_distance(
        lambda w: jnp.asarray(diagonals) @ w**2 / 2 + w[0], jnp.ones(3), KEY, samples=2
    )
    expected = np.sum((diagonals[:, None] - diagonals) ** 2, axis=-1)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-12)
    assert found.mean[0, 2] == 0 and np.all(found.standard_error == 0)


def test_distances_are_without_bias():
    found = diagnostics.hessian_distance(
        loss_fn(PROBLEM), to_tree(start()), KEY, samples=200
    )
    for i in range(3):
        for j in range(3):
            away = PROBLEM.hessians[i] - PROBLEM.hessians[j]
            expected = np.sum(away**2)
            square = away @ away  # z.square.z: the estimator's variance for signs
            variance = 2 * np.sum((square - np.diag(np.diag(square))) ** 2)
            error = np.sqrt(variance / 200)
            assert abs(found.mean[i, j] - expected) <= 4 * error
            np.testing.assert_allclose(found.standard_error[i, j], error, rtol=0.25)


def test_distances_between_covariances():
    gradients = np.random.default_rng(5).normal(size=(2, 6, 4))  # of two domains
    loss = diagnostics.gradient_covariance(lambda w: gradients @ w)
    found = diagnostics.hessian_distance(loss, jnp.ones(4), KEY, samples=200)
    a, b = (np.cov(part.T, bias=True) for part in gradients)
    assert abs(found.mean[0, 1] - np.sum((a - b) ** 2)) < 4 * found.standard_error[0, 1]
    assert found.mean[0, 1] > 4 * found.standard_error[0, 1]
