"""Spectral densities beside NumPy's eigenvalues and matfree's quadrature, in float64."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from disam_jax import diagnostics
from disam_jax.diagnostics.lanczos import lanczos
from tests.disam_jax.diagnostics.answers import quadratic, symmetric

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


def test_the_density_has_the_moments_of_the_eigenvalues():
    hessian = symmetric(12)
    loss, w = quadratic(hessian), jnp.ones(12)
    whole = diagnostics.spectral_density(loss, w, KEY, samples=30)
    eigenvalues = np.linalg.eigvalsh(hessian)[::-1]
    np.testing.assert_allclose(whole.nodes, [eigenvalues] * 30, atol=1e-11)
    np.testing.assert_allclose(whole.weights.sum(axis=1), 1, rtol=1e-12)
    for power in (1, 2):
        seen = np.sum(whole.weights * whole.nodes**power, axis=1)
        error = seen.std(ddof=1) / np.sqrt(30)
        assert abs(seen.mean() - np.mean(eigenvalues**power)) < 4 * error
    # Of the same vectors, 3 nodes have their moments up to 2 * 3 - 1.
    few = diagnostics.spectral_density(loss, w, KEY, samples=30, iterations=3)
    assert few.nodes.shape == few.weights.shape == (30, 3)
    for power in range(6):
        seen, expected = (
            np.sum(found.weights * found.nodes**power, axis=1) for found in (few, whole)
        )
        np.testing.assert_allclose(seen, expected, rtol=1e-9, atol=1e-9)


def test_the_curve_is_a_density_around_the_nodes():
    hessian = symmetric(12)
    found = diagnostics.spectral_density(
        quadratic(hessian), jnp.ones(12), KEY, width=0.02, points=2000
    )
    grid, density = np.asarray(found.grid), np.asarray(found.density)
    step = grid[1] - grid[0]
    np.testing.assert_allclose(density.sum() * step, 1, rtol=1e-5)
    mean = np.sum(found.weights * found.nodes) / 4
    np.testing.assert_allclose(np.sum(density * grid) * step, mean, rtol=1e-3, atol=1e-3)
    sigma = 0.02 * np.max(np.abs(found.nodes))
    expected = np.sum(found.weights * found.nodes**2) / 4 - mean**2 + sigma**2
    variance = np.sum(density * (grid - mean) ** 2) * step
    np.testing.assert_allclose(variance, expected, rtol=1e-3)


@pytest.mark.parametrize("width", [0.01, 1e-3, 1e-5])
def test_of_peaks_between_the_points_nothing_is_lost(width):
    loss, w = quadratic(np.diag([6.0, 1.92, -2.1])), jnp.ones(3)
    found = diagnostics.spectral_density(loss, w, KEY, width=width)
    assert np.all(found.density >= 0)
    step = found.grid[1] - found.grid[0]
    # What lies more than 5 sigma beyond the outermost nodes is cut off.
    assert np.sum(found.density) * step == pytest.approx(1, abs=1e-6)


@pytest.mark.usefixtures("debug_nans")
@pytest.mark.parametrize("value", [0.0, 2.0, -3.0])
def test_the_density_of_equal_eigenvalues(value):
    found = diagnostics.spectral_density(quadratic(value * np.eye(5)), jnp.ones(5), KEY)
    np.testing.assert_allclose(np.sum(found.weights * found.nodes) / 4, value, atol=1e-12)
    peak = found.grid[np.argmax(found.density)]
    assert abs(peak - value) < found.grid[1] - found.grid[0]
    assert np.all(np.isfinite(found.density))


def test_the_quadrature_is_matfrees():
    pytest.importorskip("matfree")
    from matfree import decomp, funm

    hessian, w = symmetric(30) / 10, jnp.ones(30)
    theirs = funm.monte_carlo_funm_sym(
        funm.dense_funm_sym_eigh(jnp.exp), decomp.tridiag_sym(4, reortho="full")
    )
    key = jax.random.split(KEY, 1)[0]
    vector = lanczos(lambda v: hessian @ v, w, key, 1)[1][0]
    expected = theirs(lambda v: jnp.asarray(hessian) @ v, vector)
    found = diagnostics.spectral_density(
        quadratic(hessian), w, KEY, samples=1, iterations=4
    )
    # The same random vector for any number of iterations.
    np.testing.assert_allclose(
        np.sum(found.weights * np.exp(found.nodes)), expected, rtol=1e-10
    )


def test_nothing_is_promoted_silently():
    w = {"a": jnp.ones((2, 3), jnp.float32), "b": jnp.ones((), jnp.float32)}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        diagnostics.spectral_density(
            lambda w: jnp.sum(jnp.cosh(w["a"])) * w["b"], w, KEY, samples=2
        )
