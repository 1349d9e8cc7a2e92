import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from experiments.methods.penalties import PENALTIES, coral, fishr, penalty_weight, vrex

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
M, N, F, C = 4, 17, 5, 3
# Domain 1 is absent, domain 3 has one example.
DOMAINS = np.array([0] * 7 + [2] * 9 + [3])
FEATURES = RNG.normal(size=(N, F))
LOGITS = RNG.normal(size=(N, C))
LABELS = RNG.integers(0, C, N)
LOSSES = np.array([0.5, 0.0, 2.0, 0.9])


@functools.cache
def compiled(penalty):
    return jax.jit(penalty), jax.jit(jax.grad(penalty, argnums=(0, 1, 2)))


def call(penalty, losses=LOSSES, features=FEATURES, logits=LOGITS, domains=DOMAINS):
    return compiled(penalty)[0](losses, features, logits, LABELS, domains)


def test_coral_is_the_mean_over_pairs():
    distances = []
    for i, j in itertools.combinations((0, 2), 2):  # domain 3 has no covariance
        a, b = (FEATURES[d == DOMAINS] for d in (i, j))
        means = np.mean((a.mean(0) - b.mean(0)) ** 2)
        covariances = np.mean((np.cov(a.T) - np.cov(b.T)) ** 2)
        distances.append(means + covariances)
    assert float(call(coral)) == pytest.approx(np.mean(distances), rel=1e-12)


def test_coral_averages_over_three_pairs():
    domains = np.arange(N) % 3
    distances = []
    for i, j in itertools.combinations(range(3), 2):
        a, b = (FEATURES[domains == d] for d in (i, j))
        distances.append(
            np.mean((a.mean(0) - b.mean(0)) ** 2)
            + np.mean((np.cov(a.T) - np.cov(b.T)) ** 2)
        )
    assert float(call(coral, domains=domains)) == pytest.approx(
        np.mean(distances), rel=1e-12
    )


def test_vrex_is_the_variance_of_the_present_domains():
    assert float(call(vrex)) == pytest.approx(np.var([0.5, 2.0, 0.9]), rel=1e-12)
    weights = dj.domain_shares(jnp.array([0, 2, 3]), M)
    library = dj.vrex(2.0)(jnp.asarray(LOSSES), weights)
    mean = np.mean([0.5, 2.0, 0.9])
    assert mean + 2.0 * float(call(vrex)) == pytest.approx(float(library), rel=1e-12)


def test_fishr_is_the_spread_of_the_head_s_gradient_variances():
    head = {"kernel": RNG.normal(size=(F, C)), "bias": RNG.normal(size=C)}

    def loss(head, features, label):
        logits = features @ head["kernel"] + head["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(head, FEATURES, LABELS)
    flat = np.concatenate(
        [np.asarray(g).reshape(N, -1) for g in jax.tree.leaves(gradients)], 1
    )
    variances = [flat[d == DOMAINS].var(0) for d in (0, 2, 3)]
    center = np.mean(variances, 0)
    expected = np.mean([np.mean((v - center) ** 2) for v in variances])
    logits = FEATURES @ head["kernel"] + head["bias"]
    assert float(call(fishr, logits=logits)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("penalty", [coral, vrex, fishr])
def test_absent_and_lonely_domains_leave_gradients_finite(penalty):
    alone = np.zeros(N, int)
    for domains in (DOMAINS, alone):
        gradients = compiled(penalty)[1](LOSSES, FEATURES, LOGITS, LABELS, domains)
        assert all(np.isfinite(g).all() for g in gradients)
    assert float(call(penalty, domains=alone)) == 0.0


@pytest.mark.parametrize("penalty", [coral, fishr])
def test_equal_domains_cost_nothing(penalty):
    twice = [np.concatenate([x[:8], x[:8], x[:1]]) for x in (FEATURES, LOGITS)]
    labels = np.concatenate([LABELS[:8], LABELS[:8], LABELS[:1]])
    domains = np.array([0] * 8 + [1] * 8 + [9])  # the last example is of no domain
    found = compiled(penalty)[0](LOSSES, *twice, labels, domains)
    assert float(found) == pytest.approx(0.0, abs=1e-12)


def test_weights_are_annealed_as_domainbed_s():
    weights = {
        name: [
            float(penalty_weight(name, None, jnp.asarray(t))) for t in (0, 499, 500, 1500)
        ]
        for name in PENALTIES
    }
    assert weights == {
        "coral": [1.0, 1.0, 1.0, 1.0],
        "vrex": [1.0, 1.0, 10.0, 10.0],
        "fishr": [0.0, 0.0, 0.0, 1000.0],
    }
    assert float(penalty_weight("fishr", 3.0, jnp.asarray(0))) == 3.0


@pytest.mark.parametrize("weight", [None, 3.0, jnp.float32(3.0)])
@pytest.mark.parametrize("start", [5, jnp.float32(5.0)])
def test_a_weight_may_start_later_than_the_run(weight, start):
    full = 10.0 if weight is None else 3.0
    found = [float(penalty_weight("vrex", weight, jnp.asarray(t), start)) for t in (4, 5)]
    assert found == [1.0, full]


def test_a_penalty_leaves_disam_s_variance_alone():
    """Added to every loss it moves the ascent objective by itself, whatever lam is."""
    losses, weights = jnp.asarray(LOSSES), jnp.full(M, 0.25)
    for objective in (dj.weighted_mean, dj.variance_penalized(0.7)):
        moved = objective(losses + 3.0, weights) - objective(losses, weights)
        assert float(moved) == pytest.approx(3.0, rel=1e-12)
