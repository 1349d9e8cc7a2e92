"""The authors' PyTorch optimizers, step by step, through both doors of the package."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj

DATA = Path(__file__).parents[1] / "data"
CASES = json.loads((DATA / "trajectories.json").read_text())
ARRAYS = np.load(DATA / "trajectories.npz")
TOLERANCE = 1e-8


def method(case):
    rho, alpha, lam = case["rho"], case["alpha"], case["lam"]
    if case["method"] == "sam":
        return dj.sam(rho, adaptive=case["adaptive"])
    if case["method"] == "disam":
        return dj.disam(rho, lam, variance=case["variance"], adaptive=case["adaptive"])
    ascent = None if lam is None else dj.variance_penalized(lam, case["variance"])
    factory = {"gsam": dj.gsam, "sagm": dj.sagm}[case["method"].removeprefix("disam+")]
    return factory(rho, alpha, ascent=ascent)


def base_optimizer(case):
    rate, decay = case["learning_rate"], case["weight_decay"]
    l2 = optax.add_decayed_weights(decay)
    return {
        "sgd": optax.chain(l2, optax.sgd(rate, momentum=0.9)),
        "adam": optax.chain(l2, optax.adam(rate)),
        "adamw": optax.adamw(rate, weight_decay=decay),
    }[case["base_optimizer"]]


def arrays_under(case, folder):
    prefix = f"{case['name']}/{folder}/"
    return {k.removeprefix(prefix): ARRAYS[k] for k in ARRAYS if k.startswith(prefix)}


def batch_norm(h, params, statistics):
    mean, var, n = h.mean(0), h.var(0), len(h)
    moved = {
        "bn/mean": 0.9 * statistics["bn/mean"] + 0.1 * mean,
        "bn/var": 0.9 * statistics["bn/var"] + 0.1 * var * n / (n - 1),
    }
    normalized = (h - mean) / jnp.sqrt(var + 1e-5)
    return normalized * params["bn/scale"] + params["bn/bias"], moved


def loss_fn(params, statistics, x, y, domain):
    h = x @ params["dense1/kernel"] + params["dense1/bias"]
    if statistics:
        h, statistics = batch_norm(h, params, statistics)
    logits = jnp.tanh(h) @ params["dense2/kernel"] + params["dense2/bias"]
    example_losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return dj.domain_means(example_losses, domain, num_domains=3)[0], statistics


def chain_door(case):
    tx = optax.chain(method(case), base_optimizer(case))

    def step(params, statistics, state, x, y, domain):
        updates, state = tx.update(
            None,
            state,
            params,
            loss_fn=lambda params: loss_fn(params, statistics, x, y, domain),
            domain_weights=dj.domain_shares(domain, 3),
            has_aux=True,
            record=True,
        )
        evaluation, state = dj.pop_evaluation(state)
        return optax.apply_updates(params, updates), state, evaluation

    return tx.init, step


def value_and_grad_door(case):
    tx, base = method(case), base_optimizer(case)
    grad_fn = dj.value_and_grad(loss_fn, tx, has_aux=True)

    def init(params):
        return tx.init(params), base.init(params)

    def step(params, statistics, state, x, y, domain):
        sharpness_state, base_state = state
        (evaluation, grads), sharpness_state = grad_fn(
            params,
            sharpness_state,
            statistics,
            x,
            y,
            domain,
            domain_weights=dj.domain_shares(domain, 3),
        )
        updates, base_state = base.update(grads, base_state, params)
        return (
            optax.apply_updates(params, updates),
            (sharpness_state, base_state),
            evaluation,
        )

    return init, step


@pytest.mark.parametrize("door", [chain_door, value_and_grad_door])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['name']}-{c['method']}")
def test_trajectory_is_the_authors(x64, case, door):
    init, step = door(case)
    step = jax.jit(step)
    start = {name: jnp.asarray(array) for name, array in arrays_under(case, "init").items()}
    statistics = {name: start.pop(name) for name in ("bn/mean", "bn/var") if name in start}
    params, state = start, init(start)
    recorded = arrays_under(case, "trajectory")
    x, y, domain, domain_loss, loss = (
        ARRAYS[f"{case['name']}/{key}"]
        for key in ("x", "y", "domain", "domain_loss", "loss")
    )
    assert len(x) == case["steps"] == len(recorded["dense1/kernel"])
    for t in range(case["steps"]):
        params, state, evaluation = step(params, statistics, state, x[t], y[t], domain[t])
        statistics = evaluation.aux
        for name, value in {**params, **statistics}.items():
            np.testing.assert_allclose(value, recorded[name][t], rtol=0, atol=TOLERANCE)
        present = ~np.isnan(domain_loss[t])
        np.testing.assert_allclose(
            evaluation.losses[present], domain_loss[t][present], rtol=0, atol=TOLERANCE
        )
        pooled = dj.weighted_mean(evaluation.losses, dj.domain_shares(domain[t], 3))
        np.testing.assert_allclose(pooled, loss[t], rtol=0, atol=TOLERANCE)
    assert {**params, **statistics}.keys() == recorded.keys()


def test_every_recorded_case_is_listed():
    assert {name.split("/")[0] for name in ARRAYS} == {case["name"] for case in CASES}
    assert len(CASES) == 18
