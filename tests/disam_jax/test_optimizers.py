"""Every source before any optimizer of Optax: the same steps as by hand, at both doors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import disam_jax as dj
from tests.three_domains import START, loss_fn, params_of

OPTIMIZERS = {
    "sgd": functools.partial(optax.sgd, 0.01, momentum=0.9, nesterov=True),
    "adamw": functools.partial(optax.adamw, 0.01),
    "adafactor": functools.partial(optax.adafactor, 0.01, min_dim_size_to_factor=2),
    "lion": functools.partial(optax.lion, 0.01),
    "lamb": functools.partial(optax.lamb, 0.01),
    "lars": functools.partial(optax.lars, 0.01),
    "novograd": functools.partial(optax.novograd, 0.01),
    "adan": functools.partial(optax.adan, 0.01),
    "adopt": functools.partial(contrib.adopt, 0.01),
    "ademamix": functools.partial(contrib.ademamix, 0.01),
    "muon": functools.partial(contrib.muon, 0.01),
    "prodigy": functools.partial(contrib.prodigy, 1.0),
    "dog": functools.partial(contrib.dog, 1.0),
    "galore": functools.partial(contrib.galore, 0.01, rank=1),
    "schedule-free adamw": functools.partial(contrib.schedule_free_adamw, 0.01),
    "momo": functools.partial(contrib.momo, 0.01),
}
SOURCES = {
    "erm": dj.erm(),
    "disam": dj.disam(0.1, 0.1),
    "gsam": dj.gsam(0.1, 0.2),
    "interval_sam": dj.interval_sam(0.1, period=2),
    "momentum_sam": dj.momentum_sam(0.1),
    "sam, pcgrad": dj.sam(0.1, descent=dj.pcgrad()),
    "sam, group_dro": dj.sam(0.1, ascent=dj.group_dro()),
}
PAIRS = [("disam", name) for name in OPTIMIZERS]
PAIRS += [
    pytest.param(source, name, marks=pytest.mark.slow)
    for source in SOURCES
    for name in ("adafactor", "lamb", "muon", "schedule-free adamw")
    if source != "disam"
]


def mean_loss(params):
    return loss_fn(params).mean()


@pytest.mark.parametrize(("source", "name"), PAIRS)
def test_a_chain_takes_the_steps_of_both_by_hand(x64, source, name):
    tx, optimizer = SOURCES[source], OPTIMIZERS[name]()
    chain = optax.chain(tx, optimizer)
    params = by_hand = params_of(START)
    state, first, second = chain.init(params), tx.init(params), optimizer.init(params)
    gradient = dj.value_and_grad(loss_fn, tx)
    optimizer = optax.with_extra_args_support(optimizer)
    for _ in range(3):
        updates, state = chain.update(
            None, state, params, loss_fn=loss_fn, value=mean_loss(params)
        )
        params = optax.apply_updates(params, updates)
        (_, grads), first = gradient(by_hand, first)
        updates, second = optimizer.update(grads, second, by_hand, value=mean_loss(by_hand))
        by_hand = optax.apply_updates(by_hand, updates)
    assert not np.allclose(params["W"], params_of(START)["W"])
    jax.tree.map(np.testing.assert_array_equal, params, by_hand)


@pytest.mark.parametrize("source", SOURCES)
def test_schedule_free_stands_around_a_chain_too(x64, source):
    """Its gradient is that of the source at its own point y, which is what it is given."""
    inner = optax.chain(SOURCES[source], optax.sgd(0.01))
    around = contrib.schedule_free(inner, 0.01, b1=0.9)
    after = optax.chain(
        SOURCES[source], contrib.schedule_free(optax.sgd(0.01), 0.01, b1=0.9)
    )
    paths = []
    for tx in (around, after):
        params, path = params_of(START), []
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(None, state, params, loss_fn=loss_fn)
            params = optax.apply_updates(params, updates)
            path.append(params)
        paths.append(path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), *paths
    )


@pytest.mark.parametrize("name", ["disam", "gsam"])
def test_hyperparameters_are_injected_before_any_optimizer(x64, name):
    make, numbers, static = {
        "disam": (dj.disam, {"rho": 0.1, "lam": 0.1}, ("descent", "mask", "variance")),
        "gsam": (dj.gsam, {"rho": 0.1, "alpha": 0.2}, ("ascent", "descent", "mask")),
    }[name]
    injected = optax.inject_hyperparams(make, static_args=static)(**numbers)
    params, found = params_of(START), []
    for tx in (injected, make(**numbers)):
        chain = optax.chain(tx, contrib.muon(0.01))
        updates, _ = chain.update(None, chain.init(params), params, loss_fn=loss_fn)
        found.append(updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *found)


def test_low_rank_factors_before_muon_and_a_frozen_tree(x64):
    """The factors are what is differentiated, perturbed and orthogonalized."""
    base = params_of(START)
    factors = {"A": jnp.array([[0.5], [1.0]]), "B": jnp.array([[1.0, -0.5]])}

    def of_factors(factors):
        return loss_fn({**base, "W": base["W"] + factors["A"] @ factors["B"]})

    tx = optax.chain(dj.disam(0.1, 0.1), contrib.muon(0.01))
    updates, _ = tx.update(None, tx.init(factors), factors, loss_fn=of_factors)
    g = jax.grad(lambda f: dj.variance_penalized(0.1)(of_factors(f), jnp.ones(3) / 3))(
        factors
    )
    length = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in g.values()))
    moved = {name: leaf + 0.1 * g[name] / length for name, leaf in factors.items()}
    grads = jax.grad(lambda f: of_factors(f).mean())(moved)
    muon = contrib.muon(0.01)
    expected, _ = muon.update(grads, muon.init(factors), factors)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), updates, expected
    )


def test_muon_is_a_perturbation_too(x64):
    """Its direction is `ascend_spectral`'s, to what five of its steps leave."""
    matrix = params_of(START)["W"]
    numbers = contrib.MuonDimensionNumbers()
    muon = optax.chain(
        contrib.scale_by_muon(weight_dimension_numbers=numbers, beta=0.0, nesterov=False),
        optax.scale(0.1),
    )
    spectral = dj.ascend_spectral(0.1)
    gradient = jnp.array([[3.0, -1.0], [0.5, 2.0]])
    ours, _ = spectral.update(gradient, spectral.init(matrix), matrix)
    theirs, _ = muon.update(gradient, muon.init(matrix), matrix)
    # Muon's coefficients leave singular values between 0.68 and 1.13 of the right ones.
    ratio = np.linalg.svd(theirs, compute_uv=False) / 0.1
    assert (ratio > 0.65).all() and (ratio < 1.25).all()
    cosine = np.vdot(ours, theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine > 0.95


def test_upstream_muon_alone_needs_its_dimension_numbers():
    """Optax 0.2.8: None, its default, raises; when this fails, the trap is gone."""
    muon, params = contrib.scale_by_muon(), {"a": jnp.eye(2), "b": jnp.eye(2)}
    with pytest.raises(ValueError, match="None"):
        muon.update(params, muon.init(params), params)
