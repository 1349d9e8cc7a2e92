import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from disam_jax.hyperparameters import at_step
from tests import reference

pytestmark = pytest.mark.usefixtures("x64")

CASES = {
    "equal": ([0.5, 2.0, 1.1], [1 / 3, 1 / 3, 1 / 3]),
    "shares": ([0.5, 2.0, 1.1, 0.2], [0.4, 0.3, 0.2, 0.1]),
    "absent": ([0.5, 7.0, 1.1], [0.6, 0.0, 0.4]),
    "one": ([0.5], [1.0]),
    "only one present": ([3.0, 0.5], [0.0, 1.0]),
}
every_case = pytest.mark.parametrize(
    ("losses", "weights"), CASES.values(), ids=list(CASES.keys())
)


def arrays(losses, weights):
    return jnp.array(losses), jnp.array(weights)


@every_case
@pytest.mark.parametrize("variance", ["uniform", "count_weighted"])
@pytest.mark.parametrize("lam", [0.0, 0.1, 5.0])
def test_ascent_weights_are_the_papers_beta(losses, weights, variance, lam):
    beta = jax.grad(dj.variance_penalized(lam, variance))(*arrays(losses, weights))
    expected = reference.disam_weights(losses, weights, lam, variance)
    np.testing.assert_allclose(beta, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(beta.sum(), 1.0, rtol=1e-12)


@every_case
def test_weighted_mean(losses, weights):
    expected = sum(a * x for a, x in zip(weights, losses, strict=True))
    np.testing.assert_allclose(dj.weighted_mean(*arrays(losses, weights)), expected)


def test_uniform_variance_is_the_papers_double_sum():
    losses = [0.3, 1.7, 0.9, 2.2]
    weights = [0.7, 0.1, 0.1, 0.1]  # do not matter
    np.testing.assert_allclose(
        dj.domain_variance(*arrays(losses, weights)),
        reference.pairwise_variance(losses),
        rtol=1e-12,
    )


def test_count_weighted_variance_is_the_variance_over_examples():
    counts, losses = [5, 2, 1], [0.3, 1.7, 0.9]
    per_example = np.repeat(losses, counts)
    np.testing.assert_allclose(
        dj.domain_variance(jnp.array(losses), jnp.array(counts) / 8, "count_weighted"),
        np.var(per_example),
        rtol=1e-12,
    )


@pytest.mark.parametrize("variance", ["uniform", "count_weighted"])
@pytest.mark.parametrize("loss", [0.0, 100.0, jnp.nan, jnp.inf])
def test_an_absent_domain_takes_no_part_whatever_its_loss(variance, loss):
    objective = dj.variance_penalized(0.5, variance)
    with_it = arrays([0.5, loss, 1.1], [0.6, 0.0, 0.4])
    without = arrays([0.5, 1.1], [0.6, 0.4])
    np.testing.assert_allclose(objective(*with_it), objective(*without), rtol=1e-12)
    beta = jax.grad(objective)(*with_it)
    np.testing.assert_allclose(beta[jnp.array([0, 2])], jax.grad(objective)(*without))
    assert beta[1] == 0


def test_vrex_is_the_mean_plus_the_variance():
    losses, weights = arrays([0.5, 2.0, 1.1], [0.5, 0.3, 0.2])
    expected = 0.5 * 0.5 + 0.3 * 2.0 + 0.2 * 1.1 + 3.0 * np.var([0.5, 2.0, 1.1])
    np.testing.assert_allclose(dj.vrex(3.0)(losses, weights), expected, rtol=1e-12)


def test_vrex_and_variance_penalized_are_opposite():
    losses, weights = arrays([0.5, 2.0, 1.1], [0.5, 0.3, 0.2])
    both = dj.vrex(0.7)(losses, weights) + dj.variance_penalized(0.7)(losses, weights)
    np.testing.assert_allclose(both, 2 * dj.weighted_mean(losses, weights), rtol=1e-12)


def test_a_scheduled_objective_is_resolved_at_each_step():
    schedule = dj.variance_penalized(lambda count: 0.1 * count)
    losses, weights = arrays([0.5, 2.0], [0.5, 0.5])
    for count in (0, 3):
        fixed = dj.variance_penalized(0.1 * count)
        np.testing.assert_allclose(
            at_step(schedule, count)(losses, weights), fixed(losses, weights), rtol=1e-12
        )
