"""Every method of the family beside a NumPy loop written from its formula, in float64."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from tests import family
from tests.family import grad, sam, some_steps, unit
from tests.problems import LAM, RHO, WEIGHTS, loss_fn, start, stream, to_flat, to_tree
from tests.reference import length
from tests.steps import STEPS, run, whole_batch

pytestmark = pytest.mark.usefixtures("x64")


def mixed(alpha):
    return lambda g, p: (1 - alpha) * g + alpha * p


CLIMB = dj.variance_penalized(LAM)
ON = {"a": False, "b": {"c": True}}
FAMILY = {
    "layerwise": (dj.layerwise_sam(RHO), partial(sam, eps=family.layer_eps)),
    "linf": (dj.linf_sam(RHO), partial(sam, eps=lambda g, w: RHO * np.sign(g))),
    "unnormalized": (dj.unnormalized_sam(RHO), partial(sam, eps=lambda g, w: RHO * g)),
    "sam-on": (dj.sam_on(RHO, mask=ON), partial(sam, eps=family.on_eps)),
    "nuclear": (dj.nuclear_sam(RHO), partial(sam, eps=family.leaves_eps)),
    "spectral": (dj.spectral_sam(RHO), partial(sam, eps=family.leaves_eps)),
    "le": (dj.le_sam(0.2, RHO), partial(sam, eps=family.loss_eps)),
    "fisher+disam": (
        dj.fisher_sam(RHO, 0.3, ascent=CLIMB),
        partial(sam, lam=LAM, eps=family.fisher_eps),
    ),
    "zsharp of vectors": (dj.zsharp(RHO), sam),
    "friendly": (dj.friendly_sam(RHO, 0.6, 0.8), family.friendly),
    "vasso": (dj.vasso(RHO, 0.3), family.vasso),
    "gradient-norm": (dj.gradient_norm_penalty(RHO, 0.7), partial(sam, combine=mixed(0.7))),
    "gradient-norm+disam": (
        dj.gradient_norm_penalty(RHO, 0.7, ascent=CLIMB),
        partial(sam, lam=LAM, combine=mixed(0.7)),
    ),
    "wsam": (dj.wsam(RHO, 0.8), partial(sam, combine=mixed(4.0))),
    "wsam+disam-listing": (
        dj.wsam(RHO, 0.8, ascent=CLIMB, combine_with="ascent"),
        partial(sam, lam=LAM, combine=mixed(4.0), pure=False),
    ),
    "stable": (
        dj.stable_sam(RHO),
        partial(sam, combine=lambda g, p: length(g) * unit(p)),
    ),
    "interval": (
        dj.interval_sam(RHO, 2),
        partial(some_steps, takes=lambda t: t % 2 == 0),
    ),
    "interval+disam": (
        dj.interval_sam(RHO, 2, ascent=CLIMB),
        partial(some_steps, takes=lambda t: t % 2 == 0, lam=LAM),
    ),
    "late": (dj.late_sam(RHO, 3), partial(some_steps, takes=lambda t: t >= 3)),
    "looksam": (dj.looksam(RHO, 0.5, 2), family.looksam),
    "looksam+disam": (
        dj.looksam(RHO, 0.5, 2, ascent=CLIMB),
        partial(family.looksam, lam=LAM),
    ),
    "ae": (dj.ae_sam(RHO, 1.0, decay=0.7), family.ae_sam),
    "ae-scheduled": (
        dj.ae_sam(RHO, lambda t: 1.5 - 0.2 * t, decay=0.7),
        partial(family.ae_sam, threshold=lambda t: 1.5 - 0.2 * t),
    ),
    "ae+disam": (
        dj.ae_sam(RHO, 1.0, decay=0.7, ascent=CLIMB),
        partial(family.ae_sam, lam=LAM),
    ),
    "momentum": (dj.momentum_sam(RHO, 0.8), family.momentum_sam),
    "last-gradient+disam": (
        dj.one_pass(dj.ascend(RHO), ascent=CLIMB),
        family.last_gradient,
    ),
    "multi-step": (dj.multi_step_sam(RHO, 3), family.multi_step),
    "multi-step+disam": (
        dj.multi_step_sam(RHO, 3, ascent=CLIMB),
        partial(family.multi_step, lam=LAM),
    ),
    "bilateral": (dj.bilateral_sam(RHO, 0.15), family.bilateral),
    "bilateral+disam": (
        dj.bilateral_sam(RHO, 0.15, ascent=CLIMB),
        partial(family.bilateral, lam=LAM),
    ),
    "async": (dj.async_sam(RHO), family.async_sam),
    "async+disam": (
        dj.async_sam(RHO, ascent=CLIMB),
        partial(family.async_sam, lam=LAM),
    ),
    "sampa": (dj.sampa(0.2, RHO, 0.3), family.sampa),
    "sampa+disam": (
        dj.sampa(0.2, RHO, 0.3, ascent=CLIMB),
        partial(family.sampa, lam=LAM),
    ),
    "sampa without a rate": (dj.sampa(0.0, RHO, 0.0), family.async_sam),
    "cr+disam": (dj.cr_sam(RHO, 0.3, 0.2, ascent=CLIMB), partial(family.cr_sam, lam=LAM)),
    "bsam+disam": (
        dj.bsam(
            math.inf,
            RHO,
            weight_decay=0.05,
            decay=(0.8, 0.7),
            damping=0.2,
            first_precision=2.0,
            ascent=CLIMB,
        ),
        partial(family.bsam, lam=LAM),
    ),
    "gam": (dj.gam(RHO, 0.05, gamma=0.3, beta=(0.4, 0.7)), family.gam),
    "gam+disam": (
        dj.gam(RHO, 0.05, gamma=0.3, beta=(0.4, 0.7), ascent=CLIMB),
        partial(family.gam, lam=LAM),
    ),
}


def path_of(tx):
    path, _ = run(tx, to_tree(start()), whole_batch)
    return [to_flat(params) for params in path]


@pytest.mark.parametrize("name", FAMILY)
def test_every_method_takes_the_steps_of_its_formula(name):
    tx, loop = FAMILY[name]
    expected = loop(stream(STEPS), start())
    np.testing.assert_allclose(path_of(tx), expected, rtol=1e-10, atol=1e-10)


def test_asam_scales_matrices_and_not_biases():
    def to_params(w):
        return {"kernel": jnp.asarray(w[:2]).reshape(1, 2), "scale": jnp.asarray(w[2:])}

    def from_params(params):
        return jnp.concatenate([params["kernel"][0], params["scale"]])

    def batch(problem):
        def losses(params):
            return jnp.stack(problem.losses(from_params(params)))

        return {"loss_fn": losses, "domain_weights": WEIGHTS}

    path, _ = run(dj.asam(RHO, 0.01), to_params(start()), batch)
    expected = sam(stream(STEPS), start(), eps=family.asam_eps)
    found = [from_params(params) for params in path]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_the_threshold_of_ae_sam_is_passed_on_some_steps_and_not_on_others():
    tx = dj.ae_sam(RHO, 1.0, decay=0.7)
    _, evaluations = run(tx, to_tree(start()), whole_batch, record=True)
    assert len({bool(e.perturbation_norm > 0) for e in evaluations}) == 2


def test_random_choice_is_the_policys():
    when = dj.with_probability(0.5, seed=3)
    takes = [bool(when(t)) for t in range(STEPS)]
    assert len(set(takes)) == 2
    expected = some_steps(stream(STEPS), start(), takes=lambda t: takes[t])
    found = path_of(dj.rst(RHO, 0.5, seed=3))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_probability_is_met_on_average():
    when = jax.vmap(dj.with_probability(0.3))
    taken = when(jnp.arange(20_000))
    assert abs(float(jnp.mean(taken)) - 0.3) < 0.01  # three standard deviations


def test_decoupled_wsam_keeps_the_sharpness_out_of_the_moments():
    tx = dj.wsam_decoupled(optax.adam(0.05), lambda t: 0.1 / (t + 1), RHO, 0.75)
    base = optax.adam(0.05)
    params, w = to_tree(start()), start()
    state, adam = tx.init(params), base.init(jnp.asarray(w))
    for t, problem in enumerate(stream(STEPS)):
        updates, new = tx.update(
            None, state, params, loss_fn=loss_fn(problem), domain_weights=WEIGHTS
        )
        assert jax.tree.structure(new) == jax.tree.structure(state)
        params, state = optax.apply_updates(params, updates), new
        g = grad(problem, w)
        sharpness = grad(problem, w + RHO * unit(g)) - g
        step, adam = base.update(jnp.asarray(g), adam)
        w = w + np.asarray(step) - 0.1 / (t + 1) * 3.0 * sharpness
        np.testing.assert_allclose(to_flat(params), w, rtol=1e-9, atol=1e-9)


def test_noise_sam_moves_by_rho_in_another_direction_each_step():
    problem, moves = stream()[0], []

    def watched(params):
        jax.debug.callback(lambda w: moves.append(w - start()), to_flat(params))
        return jnp.stack(problem.losses(to_flat(params)))

    tx, params = dj.noise_sam(RHO), to_tree(start())
    state = tx.init(params)
    for _ in range(2):
        grads, state = tx.update(None, state, params, loss_fn=watched)
    jax.effects_barrier()
    np.testing.assert_allclose([np.linalg.norm(m) for m in moves], RHO, rtol=1e-12)
    assert abs(moves[0] @ moves[1]) < 0.99 * RHO**2
    there = start() + moves[1]
    mean = np.mean([g for g in problem.grads(there)], axis=0)
    np.testing.assert_allclose(to_flat(grads), mean, rtol=1e-12)


def test_wsam_takes_an_injected_gamma():
    """An injected gamma is traced where the method is made."""
    (problem,) = stream(1)

    def traced(tx):
        params = to_tree(start())
        options = whole_batch(problem)
        step = jax.jit(lambda state: tx.update(None, state, params, **options)[0])
        return to_flat(step(tx.init(params)))

    injected = optax.inject_hyperparams(
        dj.wsam, static_args=("ascent", "descent", "mask", "combine_with")
    )
    found = traced(injected(rho=RHO, gamma=0.8))
    np.testing.assert_allclose(found, traced(dj.wsam(RHO, 0.8)))


def test_gsams_radius_follows_the_learning_rate():
    schedule = optax.cosine_decay_schedule(0.3, 10)
    rho = dj.follow_learning_rate(schedule, 0.3, rho_max=0.5, rho_min=0.1)
    for t in range(11):
        expected_rho = 0.1 + 0.4 * (1 + np.cos(np.pi * t / 10)) / 2
        assert float(rho(t)) == pytest.approx(expected_rho, abs=1e-6)


def test_a_late_ascent_starts_at_a_share_of_the_run():
    when = dj.starting_at(0.75, steps=8)
    assert [bool(when(count)) for count in range(8)] == [False] * 6 + [True] * 2
    assert bool(dj.starting_at(0.0)(0)) and bool(dj.starting_at(0.0, steps=8)(0))  # SAM
    assert not bool(dj.starting_at(np.float32(0.5), steps=8)(3))
    with pytest.warns(UserWarning, match="starts at step 8 of a run that has 8"):
        dj.late_sam(0.1, 8, steps=8)
    with pytest.raises(ValueError, match=r"step is the share 0.75 of a run: give its len"):
        dj.late_sam(0.1, 0.75)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dj.interval_sam(0.1, 0), "period must be an integer >= 1; got 0"),
        (lambda: dj.late_sam(0.1, -1), "step must be an integer >= 0; got -1"),
        (
            lambda: dj.rst(0.1, 1.5),
            "probability must be finite .* <= 1; got 1.5",
        ),
        (lambda: dj.wsam(0.1, 1.0), "gamma must be below 1; got 1.0"),
        (lambda: dj.multi_step_sam(0.1, 0), "steps must be an integer >= 1; got 0"),
        (lambda: dj.vasso(0.1, 1.5), "theta must be finite .* <= 1; got 1.5"),
        (lambda: dj.vasso(0.1, 0.0), "theta must be finite and > 0 and <= 1; got 0.0"),
        (lambda: dj.friendly_sam(0.1, 1.0, -0.1), "decay must be finite .* got -0.1"),
        (lambda: dj.gam(beta=(0.5, 2.0)), "beta must be finite .* got 2.0"),
        (lambda: dj.ae_sam(0.1, float("nan")), "threshold must be finite; got nan"),
        (
            lambda: dj.looksam(combine_with="both"),
            "combine_with must be 'ascent' or 'descent'; got 'both'",
        ),
        (lambda: dj.looksam(alpha=-1.0), "alpha must be finite and >= 0; got -1.0"),
        (
            lambda: dj.normalization_layers({"kernel": 1.0}),
            "no parameter's name holds 'norm' or 'bn'",
        ),
        (
            lambda: dj.follow_learning_rate(lambda t: t, 0.0, rho_max=1, rho_min=0),
            "peak must be positive",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
