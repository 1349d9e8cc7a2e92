"""Every public method inside every Optax construction, value by value.

The expected values come from a plain NumPy loop around `tests.reference`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import disam_jax as dj
from disam_jax.methods import core as methods
from tests.problems import (
    ALPHA,
    LAM,
    METHODS,
    RHO,
    WEIGHTS,
    loss_fn,
    start,
    stream,
    to_flat,
    to_tree,
)

RATE = 0.1
STEPS = 4
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
# One method of each perturbation and each combination, where the objective cannot matter.
KINDS = ("erm", "asam", "gsam", "disam", "disam+sagm-pure")
every_kind = pytest.mark.parametrize("method", [METHODS[k] for k in KINDS], ids=KINDS)
PERTURBED = {name: m for name, m in METHODS.items() if "rho" in m.hyperparameters}
every_rho = pytest.mark.parametrize("method", PERTURBED.values(), ids=PERTURBED.keys())
pytestmark = pytest.mark.usefixtures("x64")


def run(tx, problems, w=None, dtype=None):
    """The parameters after each step of `tx`, as NumPy vectors."""
    params = to_tree(start() if w is None else w, dtype)
    state = tx.init(params)
    seen = []
    for problem in problems:
        params, state = one_step(tx, problem, params, state)
        seen.append(np.asarray(to_flat(params), np.float64))
    return np.stack(seen)


def one_step(tx, problem, params, state):
    updates, new_state = tx.update(
        None, state, params, loss_fn=loss_fn(problem), domain_weights=WEIGHTS
    )
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    return optax.apply_updates(params, updates), new_state


def loop(method, problems, rule=lambda g, w, t: w - RATE * g, **changes):
    """The same by hand: w <- rule(gradient, w, t)."""
    w, seen = start(), []
    for t, problem in enumerate(problems):
        at_t = {name: value(t) for name, value in changes.items()}
        w = rule(method.gradient(problem, w, **at_t), w, t)
        seen.append(w)
    return np.stack(seen)


def assert_same(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@every_method
def test_chain(method):
    tx = optax.chain(method.tx(), optax.sgd(RATE))
    assert_same(run(tx, stream(STEPS)), loop(method, stream(STEPS)))


@every_kind
def test_clip_after_acts_on_the_combined_gradient(method):
    tx = optax.chain(method.tx(), optax.clip_by_global_norm(0.5), optax.sgd(RATE))

    def rule(g, w, t):
        return w - RATE * g * min(1.0, 0.5 / np.linalg.norm(g))

    assert_same(run(tx, stream(STEPS)), loop(method, stream(STEPS), rule))


@every_kind
def test_weight_decay_after_does_not_bend_the_ascent(method):
    tx = optax.chain(method.tx(), optax.add_decayed_weights(0.3), optax.sgd(RATE))
    assert_same(
        run(tx, stream(STEPS)),
        loop(method, stream(STEPS), lambda g, w, t: w - RATE * (g + 0.3 * w)),
    )


@every_kind
def test_multi_steps_after_accumulates_combined_gradients(method):
    base = optax.MultiSteps(optax.sgd(RATE), every_k_schedule=2)
    tx = optax.chain(method.tx(), base.gradient_transformation())
    kept = []

    def rule(g, w, t):
        kept.append(g)
        if len(kept) < 2:
            return w
        mean = sum(kept) / 2
        kept.clear()
        return w - RATE * mean

    # MultiSteps accumulates in float32: 6e-8 of gradients below 10, at every second step.
    assert_same(run(tx, stream(STEPS)), loop(method, stream(STEPS), rule), 1e-6)


@every_rho
def test_inject_hyperparams_follows_the_value_in_the_state(method):
    tx = optax.chain(
        optax.inject_hyperparams(method.make)(**method.hyperparameters), optax.sgd(RATE)
    )
    problems, params = stream(STEPS), to_tree(start())
    state, seen = tx.init(params), []
    for t, problem in enumerate(problems):
        state[0].hyperparams["rho"] = jnp.asarray(0.1 * (t + 1))
        params, state = one_step(tx, problem, params, state)
        seen.append(to_flat(params))
    assert_same(np.stack(seen), loop(method, problems, rho=lambda t: 0.1 * (t + 1)))


@every_rho
def test_inject_hyperparams_takes_schedules(method):
    injected = optax.inject_hyperparams(method.make)(
        **{**method.hyperparameters, "rho": lambda count: 0.1 + 0.1 * count}
    )
    assert_same(
        run(optax.chain(injected, optax.sgd(RATE)), stream(STEPS)),
        loop(method, stream(STEPS), rho=lambda t: 0.1 + 0.1 * t),
    )


def test_inject_hyperparams_leaves_objectives_alone_when_told():
    method = METHODS["disam+sagm-pure"]
    injected = optax.inject_hyperparams(dj.sagm, static_args=("ascent", "descent", "mask"))(
        RHO, ALPHA, ascent=dj.variance_penalized(LAM), combine_with="descent"
    )
    tx = optax.chain(injected, optax.sgd(RATE))
    assert_same(run(tx, stream(STEPS)), loop(method, stream(STEPS)))


@every_method
@pytest.mark.parametrize("name", ["rho", "alpha", "lam"])
def test_every_hyperparameter_may_be_a_schedule(method, name):
    if name not in method.hyperparameters:
        return
    tx = method.tx(**{name: lambda count: 0.1 + 0.1 * count})
    assert_same(
        run(optax.chain(tx, optax.sgd(RATE)), stream(STEPS)),
        loop(method, stream(STEPS), **{name: lambda t: 0.1 + 0.1 * t}),
    )


@every_kind
def test_multi_transform_after(method):
    base = optax.multi_transform(
        {"slow": optax.sgd(RATE), "fast": optax.sgd(3 * RATE)},
        {"a": "slow", "b": {"c": "fast"}},
    )
    rates = RATE * np.array([1, 1, 3, 3, 3])
    assert_same(
        run(optax.chain(method.tx(), base), stream(STEPS)),
        loop(method, stream(STEPS), lambda g, w, t: w - rates * g),
    )


@every_kind
def test_masked_after(method):
    halve = optax.masked(optax.scale(0.5), {"a": True, "b": {"c": False}})
    factors = RATE * np.array([0.5, 0.5, 1, 1, 1])
    assert_same(
        run(optax.chain(method.tx(), halve, optax.sgd(RATE)), stream(STEPS)),
        loop(method, stream(STEPS), lambda g, w, t: w - factors * g),
    )


@every_kind
def test_apply_if_finite_after_skips_the_step(method):
    problems = stream(STEPS)
    broken = problems[2]
    problems[2] = type(broken)(broken.hessians, broken.centers * np.nan)
    tx = optax.chain(method.tx(), optax.apply_if_finite(optax.sgd(RATE), 3))

    def rule(g, w, t):
        return w if t == 2 else w - RATE * g

    assert_same(run(tx, problems), loop(method, problems, rule))


@every_method
def test_scan(method):
    tx = optax.chain(method.tx(), optax.sgd(RATE))
    problems = stream(STEPS)
    hessians = jnp.stack([p.hessians for p in problems])
    centers = jnp.stack([p.centers for p in problems])

    def body(carry, arrays):
        params, state = carry
        problem = type(problems[0])(*arrays)
        params, state = one_step(tx, problem, params, state)
        return (params, state), to_flat(params)

    params = to_tree(start())
    _, seen = jax.lax.scan(body, (params, tx.init(params)), (hessians, centers))
    assert_same(seen, loop(method, problems))


@every_rho
def test_vmap_over_rho(method):
    def final(rho):
        return run_traced(optax.chain(method.tx(rho=rho), optax.sgd(RATE)))

    def run_traced(tx):
        params = to_tree(start())
        state = tx.init(params)
        for problem in stream(STEPS):
            params, state = one_step(tx, problem, params, state)
        return to_flat(params)

    rhos = jnp.array([0.0, 0.1, 1.0])
    for rho, actual in zip(rhos, jax.vmap(final)(rhos), strict=True):
        if rho == 0 and method.kind == "asam":
            continue
        expected = loop(method, stream(STEPS), rho=lambda t, rho=rho: float(rho))[-1]
        assert_same(actual, expected)


@every_kind
def test_donated_buffers(method):
    tx = optax.chain(method.tx(), optax.sgd(RATE))
    problems = stream(STEPS)

    @jax.jit
    def whole(params, state, hessians, centers):
        return one_step(tx, type(problems[0])(hessians, centers), params, state)

    donating = jax.jit(whole, donate_argnums=(0, 1))
    params = to_tree(start())
    state, seen = tx.init(params), []
    for problem in problems:
        params, state = donating(params, state, problem.hessians, problem.centers)
        seen.append(np.array(to_flat(params)))
    assert_same(np.stack(seen), loop(method, problems))


@every_kind
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float16", 2e-2), ("bfloat16", 1e-1), ("float64", 1e-10)]
)
def test_parameters_of_any_float_dtype(method, dtype, tolerance):
    tx, problem = method.tx(), stream()[0]
    params = to_tree(start(), dtype)
    updates, _ = tx.update(
        None, tx.init(params), params, loss_fn=loss_fn(problem), domain_weights=WEIGHTS
    )
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(updates))
    rounded = np.asarray(to_flat(params), np.float64)
    assert_same(
        np.asarray(to_flat(updates), np.float64),
        method.gradient(problem, rounded),
        tolerance,
    )


@every_kind
def test_map_params_reaches_the_base_optimizer(method):
    tx = optax.chain(method.tx(), optax.adam(RATE))
    params = to_tree(start())
    state = tx.init(params)
    _, state = one_step(tx, stream()[0], params, state)
    doubled = optax.tree.map_params(tx, lambda leaf: 2 * leaf, state)
    assert_same(to_flat(doubled[1][0].mu), 2 * to_flat(state[1][0].mu))
    assert doubled[0].count == state[0].count == 1


@every_kind
def test_checkpoint_round_trip(method, tmp_path):
    scheduled = {name: lambda count: 0.1 + 0.1 * count for name in method.hyperparameters}
    tx = optax.chain(method.tx(**scheduled), optax.adam(RATE))
    problems, params = stream(STEPS), to_tree(start())
    state = tx.init(params)
    for problem in problems[:2]:
        params, state = one_step(tx, problem, params, state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", (params, state))
        checkpointer.wait_until_finished()
        fresh = to_tree(start())
        restored = checkpointer.restore(tmp_path / "saved", (fresh, tx.init(fresh)))
    for problem in problems[2:]:
        params, state = one_step(tx, problem, params, state)
        restored = one_step(tx, problem, *restored)
    assert_same(to_flat(restored[0]), to_flat(params), 0)


def test_the_table_holds_every_public_method():
    public = {name for name in vars(methods) if not name.startswith("_")}
    constructors = {
        name
        for name in public
        if getattr(vars(methods)[name], "__module__", "") == methods.__name__
    }
    assert constructors | {"erm", "sharpness_aware"} <= METHODS.keys()
    assert METHODS.keys() - PERTURBED.keys() == {"erm"}
