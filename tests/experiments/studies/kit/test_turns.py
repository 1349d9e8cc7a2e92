from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from disam_jax.objectives import ObjectiveFn
from experiments.studies.kit.turns import angle, spread_for, turn_of

CENTRES = np.random.default_rng(0).normal(size=(3, 6))
POINT = np.array([0.3, -1.0, 0.7, 0.2, 0.0, 1.5])


def domain_losses(w):
    return jnp.sum((w - CENTRES) ** 2 * jnp.arange(1.0, 4.0)[:, None], axis=1) / 4


def explicit(lam):
    """Degrees between the gradients of the mean and of DISAM's own objective."""
    shares = jnp.full(3, 1 / 3)
    objective = cast(ObjectiveFn, dj.variance_penalized(lam))
    g = jax.grad(lambda w: jnp.mean(domain_losses(w)))(POINT)
    g_di = jax.grad(lambda w: objective(domain_losses(w), shares))(POINT)
    cosine = g @ g_di / jnp.linalg.norm(g) / jnp.linalg.norm(g_di)
    return np.degrees(np.arccos(cosine))


@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0, 100.0])
def test_the_angle_is_that_of_disam_s_own_objective(lam):
    with jax.enable_x64(True):
        jacobian = np.asarray(jax.jacobian(domain_losses)(jnp.asarray(POINT)))
        losses, expected = np.asarray(domain_losses(jnp.asarray(POINT))), explicit(lam)
    found = angle(turn_of(losses, jacobian @ jacobian.T), lam)
    # arccos of a cosine next to 1 is good to the root of the precision.
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradients_at_right_angles_turn_by_twice_lam_times_the_spread():
    losses = np.array([1.0, 2.0, 4.0])
    turn = turn_of(losses, 7.0 * np.eye(3))
    np.testing.assert_allclose([turn.per_nat, turn.along], [1.0, 0.0], atol=1e-12)
    expected = np.degrees(np.arctan(2 * 0.1 * losses.std()))
    np.testing.assert_allclose(angle(turn, 0.1), expected)
    assert spread_for(float(expected), 0.1, 1.0) == pytest.approx(losses.std())


def test_nothing_turns_where_losses_or_gradients_are_equal():
    gram = CENTRES @ CENTRES.T
    assert angle(turn_of(np.ones(3), gram), 100.0) == 0
    # Equal gradients: the perturbation can only be turned round.
    assert angle(turn_of(np.array([1.0, 2.0, 3.0]), np.ones((3, 3))), 100.0) == 0


def test_leading_axes_are_kept():
    losses = np.stack([np.arange(3.0), np.ones(3)])
    turn = turn_of(losses, np.stack([np.eye(3)] * 2))
    np.testing.assert_allclose(turn.spread, losses.std(1))
    assert angle(turn, 1.0).shape == (2,)
