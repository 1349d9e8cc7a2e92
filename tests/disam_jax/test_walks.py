"""A walk down the domains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from tests.three_domains import START, first_gradient, flat, loss_fn, params_of


def of_domain(params, domain):
    return loss_fn(params)[domain]


def test_it_is_the_recorded_walk(x64):
    """DomainBed's walk with plain SGD of rate 0.05 in place of Adam, order 0, 1, 2."""
    found = first_gradient(dj.fish(0.05), of_domain, micro_batches=jnp.arange(3))
    expected = (-3.208, -1.9135, -0.004, 0.4128333333, 6.4666666667, -1.0288333333)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_short_walk_is_erm(x64):
    found = first_gradient(dj.fish(1e-9), of_domain, micro_batches=jnp.arange(3))
    # The way bends by rate * curvature: 4e-9 of gradients below 10.
    np.testing.assert_allclose(found, first_gradient(dj.erm()), atol=1e-6)


def test_where_its_schedule_is_0_the_walk_stands_still(x64):
    warm_up = optax.linear_schedule(0.0, 0.1, 10)
    found = first_gradient(dj.fish(warm_up), of_domain, micro_batches=jnp.arange(3))
    np.testing.assert_allclose(found, first_gradient(dj.erm()), rtol=1e-12)
    found = first_gradient(dj.pgrad(warm_up), of_domain, micro_batches=jnp.arange(3))
    np.testing.assert_array_equal(found, 0.0)


def test_who_is_absent_is_not_walked(x64):
    weights = jnp.array([[1.0], [0.0], [1.0]])
    beside = first_gradient(
        dj.fish(0.05), of_domain, micro_batches=jnp.arange(3), domain_weights=weights
    )
    alone = first_gradient(dj.fish(0.05), of_domain, micro_batches=jnp.array([0, 2]))
    np.testing.assert_allclose(beside, alone, rtol=1e-12)


def test_a_walk_has_a_length():
    with pytest.raises(ValueError, match="rate must be finite and > 0; got 0"):
        dj.fish(0)


def test_pgrad_is_the_singular_values_of_the_walk(x64):
    """By a singular value decomposition of the points, where the method has products."""
    params = params_of(START)
    points = [np.asarray(flat(params))]
    for domain in range(3):
        gradient = jax.grad(of_domain)(params, domain)
        params = jax.tree.map(lambda w, g: w - 0.05 * g, params, gradient)
        points.append(np.asarray(flat(params)))
    points = np.stack(points)
    _, values, directions = np.linalg.svd(points - points.mean(0), full_matrices=False)
    back = points[0] - points[-1]
    found = np.zeros(6)
    for value, direction in list(zip(values**2, directions, strict=True))[:2]:
        ahead = 1 if direction @ back > 0 else -1
        found += value * np.linalg.norm(back) * ahead * direction
    found /= np.linalg.norm(values[:2] ** 2)
    ours = first_gradient(dj.pgrad(0.05, 2), of_domain, micro_batches=jnp.arange(3))
    np.testing.assert_allclose(ours, found, rtol=1e-9)
