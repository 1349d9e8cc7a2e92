"""Every method of the family beside a NumPy loop written from its formula, in float64.

The loops share no code with the package. Each is a function of the stream of problems that
yields the gradient of every step, given back the parameters it is asked at.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from tests import reference
from tests.problems import LAM, RHO, WEIGHTS, loss_fn, start, stream, to_flat, to_tree

pytestmark = pytest.mark.usefixtures("x64")
RATE, STEPS = 0.1, 5


def grad(problem, w, lam=0.0):
    """The gradient of the weighted mean, or of DISAM's ascent objective."""
    beta = reference.disam_weights(problem.losses(w), WEIGHTS, lam, "uniform")
    return sum(b * g for b, g in zip(beta, problem.grads(w), strict=True))


def u(x):
    return x / reference.length(x)


def apart(x, y):
    """The part of x that is orthogonal to y."""
    return x - (x @ y) / (y @ y) * y


# Each takes (problems) and is sent w; it yields the gradient there.


def sam(lam=0.0, eps=lambda g, w: RHO * u(g), combine=lambda g, p: p, pure=True):
    def loop(problems):
        w = yield
        for problem in problems:
            g = grad(problem, w, lam)
            p = grad(problem, w + eps(g, w))
            w = yield combine(grad(problem, w) if pure else g, p)

    return loop


def asam_eps(g, w):
    t = np.where(np.arange(5) < 2, np.abs(w) + 0.01, 1.0)  # leaf "a" is a matrix here
    return RHO * t**2 * g / reference.length(t * g)


def layer_eps(g, w):
    t = np.repeat([reference.length(w[:2]), reference.length(w[2:])], [2, 3])
    return RHO * t**2 * g / reference.length(t * g)


def on_eps(g, w):
    masked = np.where(np.arange(5) < 2, 0.0, g)
    return RHO * u(masked)


def friendly(problems, sigma=0.6, decay=0.8):
    w = yield
    mean = None
    for problem in problems:
        g = grad(problem, w)
        direction = g if mean is None else g - sigma * mean
        mean = g if mean is None else decay * mean + (1 - decay) * g
        w = yield grad(problem, w + RHO * u(direction))


def vasso(problems, theta=0.3):
    w = yield
    d = 0.0
    for problem in problems:
        d = (1 - theta) * d + theta * grad(problem, w)
        w = yield grad(problem, w + RHO * u(d))


def some_steps(takes, lam=0.0):
    def loop(problems):
        w = yield
        for t, problem in enumerate(problems):
            g = grad(problem, w)
            eps = RHO * u(grad(problem, w, lam)) if takes(t) else 0.0 * g
            w = yield grad(problem, w + eps)

    return loop


def looksam(lam=0.0, alpha=0.5, period=2):
    def loop(problems):
        w = yield
        v = None
        for t, problem in enumerate(problems):
            if t % period == 0:
                g = grad(problem, w, lam)
                p = grad(problem, w + RHO * u(g))
                v = apart(p, g)
                w = yield p
            else:
                g = grad(problem, w)
                w = yield g + alpha * reference.length(g) * u(v)

    return loop


def ae_sam(lam=0.0, threshold=lambda t: 1.0, decay=0.7):
    def loop(problems):
        w = yield
        mean = variance = 0.0
        for t, problem in enumerate(problems):
            g = grad(problem, w)
            n = g @ g
            mean = decay * mean + (1 - decay) * n
            variance = decay * variance + (1 - decay) * (n - mean) ** 2
            if n >= mean + threshold(t) * variance**0.5:
                g = grad(problem, w + RHO * u(grad(problem, w, lam)))
            w = yield g

    return loop


def momentum_sam(problems, decay=0.8):
    w = yield
    v = np.zeros(5)
    for problem in problems:
        g = grad(problem, w - (RHO * u(v) if v.any() else 0.0))
        v = decay * v + g
        w = yield g


def last_gradient(problems):
    """One pass along the gradient of DISAM's objective at the last perturbed point."""
    w = yield
    d = np.zeros(5)
    for problem in problems:
        there = w + (RHO * u(d) if d.any() else 0.0)
        d = grad(problem, there, LAM)
        w = yield grad(problem, there)


def multi_step(lam=0.0, steps=3):
    def loop(problems):
        w = yield
        for problem in problems:
            eps = 0.0
            for _ in range(steps):
                eps = eps + RHO / steps * u(grad(problem, w + eps, lam))
            w = yield grad(problem, w + eps)

    return loop


def bilateral(lam=0.0, low=0.15):
    def loop(problems):
        w = yield
        for problem in problems:
            direction = u(grad(problem, w, lam))
            g = grad(problem, w)
            above = grad(problem, w + RHO * direction)
            below = grad(problem, w - low * direction)
            w = yield above + g - reference.length(above) * u(below)

    return loop


def gam(lam=0.0, inner=0.05, gamma=0.3, b0=0.4, b1=0.7):
    def loop(problems):
        w = yield
        for problem in problems:
            first = inner * u(grad(problem, w, lam))
            steeper = grad(problem, w + first, lam) - grad(problem, w, lam)
            second = RHO * u(steeper)
            third = second + inner * u(grad(problem, w + second, lam))
            a = b1 * grad(problem, w + first) + (1 - b1) * grad(problem, w + third)
            m = grad(problem, w) + (1 - b0) * grad(problem, w + second)
            w = yield a - gamma * apart(m, a)

    return loop


def mixed(alpha):
    return lambda g, p: (1 - alpha) * g + alpha * p


CLIMB = dj.variance_penalized(LAM)
ON = {"a": False, "b": {"c": True}}
FAMILY = {
    "layerwise": (dj.layerwise_sam(RHO), sam(eps=layer_eps)),
    "linf": (dj.linf_sam(RHO), sam(eps=lambda g, w: RHO * np.sign(g))),
    "unnormalized": (dj.unnormalized_sam(RHO), sam(eps=lambda g, w: RHO * g)),
    "sam-on": (dj.sam_on(RHO, mask=ON), sam(eps=on_eps)),
    "friendly": (dj.friendly_sam(RHO, 0.6, 0.8), friendly),
    "vasso": (dj.vasso(RHO, 0.3), vasso),
    "gradient-norm": (dj.gradient_norm_penalty(RHO, 0.7), sam(combine=mixed(0.7))),
    "gradient-norm+disam": (
        dj.gradient_norm_penalty(RHO, 0.7, ascent=CLIMB),
        sam(LAM, combine=mixed(0.7)),
    ),
    "wsam": (dj.wsam(RHO, 0.8), sam(combine=mixed(4.0))),
    "wsam+disam-listing": (
        dj.wsam(RHO, 0.8, ascent=CLIMB, combine_with="ascent"),
        sam(LAM, combine=mixed(4.0), pure=False),
    ),
    "stable": (
        dj.stable_sam(RHO),
        sam(combine=lambda g, p: reference.length(g) * u(p)),
    ),
    "interval": (dj.interval_sam(RHO, 2), some_steps(lambda t: t % 2 == 0)),
    "interval+disam": (
        dj.interval_sam(RHO, 2, ascent=CLIMB),
        some_steps(lambda t: t % 2 == 0, LAM),
    ),
    "late": (dj.late_sam(RHO, 3), some_steps(lambda t: t >= 3)),
    "looksam": (dj.looksam(RHO, 0.5, 2), looksam()),
    "looksam+disam": (dj.looksam(RHO, 0.5, 2, ascent=CLIMB), looksam(LAM)),
    "ae": (dj.ae_sam(RHO, 1.0, decay=0.7), ae_sam()),
    "ae-scheduled": (
        dj.ae_sam(RHO, lambda t: 1.5 - 0.2 * t, decay=0.7),
        ae_sam(threshold=lambda t: 1.5 - 0.2 * t),
    ),
    "ae+disam": (dj.ae_sam(RHO, 1.0, decay=0.7, ascent=CLIMB), ae_sam(LAM)),
    "momentum": (dj.momentum_sam(RHO, 0.8), momentum_sam),
    "last-gradient+disam": (dj.one_pass(dj.ascend(RHO), ascent=CLIMB), last_gradient),
    "multi-step": (dj.multi_step_sam(RHO, 3), multi_step()),
    "multi-step+disam": (dj.multi_step_sam(RHO, 3, ascent=CLIMB), multi_step(LAM)),
    "bilateral": (dj.bilateral_sam(RHO, 0.15), bilateral()),
    "bilateral+disam": (dj.bilateral_sam(RHO, 0.15, ascent=CLIMB), bilateral(LAM)),
    "gam": (dj.gam(RHO, 0.05, gamma=0.3, beta=(0.4, 0.7)), gam()),
    "gam+disam": (dj.gam(RHO, 0.05, gamma=0.3, beta=(0.4, 0.7), ascent=CLIMB), gam(LAM)),
}


def actual(tx, to_params=to_tree, from_params=to_flat):
    tx = optax.chain(tx, optax.sgd(RATE))
    params, seen = to_params(start()), []
    state = tx.init(params)
    for problem in stream(STEPS):
        updates, state = tx.update(
            None,
            state,
            params,
            loss_fn=lambda p, problem=problem: jnp.stack(problem.losses(from_params(p))),
            domain_weights=WEIGHTS,
        )
        params = optax.apply_updates(params, updates)
        seen.append(np.asarray(from_params(params)))
    return np.stack(seen)


def expected(loop):
    w, seen = start(), []
    gradients = loop(stream(STEPS))
    next(gradients)
    for _ in range(STEPS):
        try:
            g = gradients.send(w)
        except StopIteration:
            break
        w = w - RATE * g
        seen.append(w)
    return np.stack(seen)


@pytest.mark.parametrize("name", FAMILY)
def test_formula(name):
    tx, loop = FAMILY[name]
    np.testing.assert_allclose(actual(tx), expected(loop), rtol=1e-10, atol=1e-10)


def test_asam_scales_matrices_and_not_biases():
    def to_params(w):
        return {"kernel": jnp.asarray(w[:2]).reshape(1, 2), "scale": jnp.asarray(w[2:])}

    def from_params(params):
        return jnp.concatenate([params["kernel"][0], params["scale"]])

    found = actual(dj.asam(RHO, 0.01), to_params, from_params)
    np.testing.assert_allclose(found, expected(sam(eps=asam_eps)), rtol=1e-10, atol=1e-10)


def test_the_threshold_of_ae_sam_is_passed_on_some_steps_and_not_on_others():
    problems, taken = stream(STEPS), []
    tx = optax.chain(dj.ae_sam(RHO, 1.0, decay=0.7), optax.sgd(RATE))
    params = to_tree(start())
    state = tx.init(params)
    for problem in problems:
        updates, state = tx.update(
            None,
            state,
            params,
            loss_fn=loss_fn(problem),
            domain_weights=WEIGHTS,
            record=True,
        )
        evaluation, state = dj.pop_evaluation(state)
        params = optax.apply_updates(params, updates)
        taken.append(bool(evaluation.perturbation_norm > 0))
    assert len(set(taken)) == 2


def test_random_choice_is_the_policys():
    when = dj.with_probability(0.5, seed=3)
    takes = [bool(when(t)) for t in range(STEPS)]
    assert len(set(takes)) == 2
    tx = dj.randomized_sam(RHO, 0.5, seed=3)
    np.testing.assert_allclose(
        actual(tx), expected(some_steps(lambda t: takes[t])), rtol=1e-10
    )


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
        sharpness = grad(problem, w + RHO * u(g)) - g
        step, adam = base.update(jnp.asarray(g), adam)
        w = w + np.asarray(step) - 0.1 / (t + 1) * 3.0 * sharpness
        np.testing.assert_allclose(to_flat(params), w, rtol=1e-9, atol=1e-9)


def test_random_sam_moves_by_rho_in_another_direction_each_step():
    problem, moves = stream()[0], []

    def watched(params):
        jax.debug.callback(lambda w: moves.append(w - start()), to_flat(params))
        return jnp.stack(problem.losses(to_flat(params)))

    tx, params = dj.random_sam(RHO), to_tree(start())
    state = tx.init(params)
    for _ in range(2):
        grads, state = tx.update(None, state, params, loss_fn=watched)
    jax.effects_barrier()
    np.testing.assert_allclose([np.linalg.norm(m) for m in moves], RHO, rtol=1e-12)
    assert abs(moves[0] @ moves[1]) < 0.99 * RHO**2
    there = start() + moves[1]
    mean = np.mean([g for g in problem.grads(there)], axis=0)
    np.testing.assert_allclose(to_flat(grads), mean, rtol=1e-12)


@pytest.mark.parametrize("absent", [None, 0, 2])
def test_dgsam_walks_from_domain_to_domain(absent):
    """Against a plain loop over the order that the method's seed and count give."""
    weights = np.ones((3, 1))
    if absent is not None:
        weights[absent] = 0.0
    tx = optax.chain(dj.dgsam(RHO, seed=7), optax.sgd(RATE))
    params, w = jnp.asarray(start()), start()
    state = tx.init(params)
    for t, problem in enumerate(stream(STEPS)):
        updates, state = tx.update(
            None,
            state,
            params,
            loss_fn=lambda w, piece: (w - piece[1]) @ piece[0] @ (w - piece[1]) / 2,
            micro_batches=(problem.hessians, problem.centers),
            domain_weights=weights,
            record=True,
        )
        evaluation, state = dj.pop_evaluation(state)
        params = optax.apply_updates(params, updates)
        key = jax.random.fold_in(jax.random.key(7), t)
        order = [i for i in np.asarray(jax.random.permutation(key, 3)) if i != absent]
        eps, met, losses = np.zeros(5), [], np.zeros(3)
        for i in [*order, order[0]]:
            met.append(problem.grads(w + eps)[i])
            if len(met) <= len(order):
                losses[i] = problem.losses(w + eps)[i]
            last = eps
            eps = eps + RHO * u(met[-1])
        w = w - RATE * sum(met) / len(met)
        np.testing.assert_allclose(params, w, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(evaluation.losses, losses, rtol=1e-10)
        np.testing.assert_allclose(
            evaluation.perturbation_norm, np.linalg.norm(last), rtol=1e-10
        )


def test_one_pass_by_domain_is_one_pass_of_the_whole_batch():
    """The domains' own gradients, weighed: against `last_gradient`, the NumPy loop."""
    tx = optax.chain(dj.one_pass_by_domain(dj.ascend(RHO), ascent=CLIMB), optax.sgd(RATE))
    params, seen = jnp.asarray(start()), []
    state = tx.init(params)
    for problem in stream(STEPS):
        updates, state = tx.update(
            None,
            state,
            params,
            loss_fn=lambda w, piece: (w - piece[1]) @ piece[0] @ (w - piece[1]) / 2,
            micro_batches=(problem.hessians, problem.centers),
            domain_weights=WEIGHTS[:, None],
        )
        params = optax.apply_updates(params, updates)
        seen.append(params)
    np.testing.assert_allclose(np.stack(seen), expected(last_gradient), rtol=1e-10)


@pytest.mark.parametrize("tx", [dj.dgsam(), dj.one_pass_by_domain(dj.ascend())])
def test_pieces_are_asked_for(tx):
    with pytest.raises(ValueError, match="micro_batches is missing"):
        tx.update(None, tx.init(jnp.ones(2)), jnp.ones(2), loss_fn=lambda w: w)


def test_the_ascent_may_be_on_other_examples():
    """eps from `ascent_loss_fn`, the descent of `loss_fn`, also at skipped steps."""
    small, whole = stream(2)
    w = start()
    for tx, takes in ((dj.disam(RHO, LAM), True), (dj.late_sam(RHO, 1), False)):
        grads, _ = tx.update(
            None,
            tx.init(to_tree(w)),
            to_tree(w),
            loss_fn=loss_fn(whole),
            ascent_loss_fn=loss_fn(small),
            domain_weights=WEIGHTS,
        )
        eps = RHO * u(grad(small, w, LAM)) if takes else 0.0
        np.testing.assert_allclose(to_flat(grads), grad(whole, w + eps), rtol=1e-12)


def climbs_apart(tx, w, small, whole):
    grads, _ = tx.update(
        None,
        tx.init(to_tree(w)),
        to_tree(w),
        loss_fn=loss_fn(whole),
        ascent_loss_fn=loss_fn(small),
        domain_weights=WEIGHTS,
    )
    return to_flat(grads)


def bilateral_apart(w, small, whole, low=0.15):
    direction, g = u(grad(small, w, LAM)), grad(whole, w)
    above, below = (grad(whole, w + r * direction) for r in (RHO, -low))
    return above + g - reference.length(above) * u(below)


CLIMBS_APART = {
    "ae": (  # always above a threshold so low
        dj.ae_sam(RHO, -10.0, ascent=CLIMB),
        lambda w, small, whole: grad(whole, w + RHO * u(grad(small, w, LAM))),
    ),
    "gradient-norm": (
        dj.gradient_norm_penalty(RHO, 0.7, ascent=CLIMB),
        lambda w, small, whole: (
            0.3 * grad(whole, w) + 0.7 * grad(whole, w + RHO * u(grad(small, w, LAM)))
        ),
    ),
    "bilateral": (dj.bilateral_sam(RHO, 0.15, ascent=CLIMB), bilateral_apart),
    "bilateral, one objective": (
        dj.bilateral_sam(RHO, 0.15),
        lambda w, small, whole: (
            grad(whole, w + RHO * u(grad(small, w)))
            + grad(whole, w)
            - reference.length(grad(whole, w + RHO * u(grad(small, w))))
            * u(grad(whole, w - 0.15 * u(grad(small, w))))
        ),
    ),
}


@pytest.mark.parametrize("name", CLIMBS_APART)
def test_the_ascent_may_be_on_other_examples_in_every_form(name):
    tx, expected = CLIMBS_APART[name]
    small, whole = stream(2)
    found = climbs_apart(tx, start(), small, whole)
    np.testing.assert_allclose(found, expected(start(), small, whole), rtol=1e-11)


def test_a_piece_at_the_perturbed_point_is_of_the_perturbed_loss():
    """With micro-batches, `perturbed_loss_fn` is what `at_piece` sees at w + eps."""
    (problem,) = stream(1)

    def piece_loss(scale):
        return lambda w, piece: scale * (w - piece[1]) @ piece[0] @ (w - piece[1]) / 2

    def gradient(**losses):
        tx, params = dj.one_pass_by_domain(dj.ascend(RHO)), jnp.asarray(start())
        return tx.update(
            None,
            tx.init(params),
            params,
            micro_batches=(problem.hessians, problem.centers),
            **losses,
        )[0]

    plain = gradient(loss_fn=piece_loss(1.0))
    found = gradient(loss_fn=piece_loss(1.0), perturbed_loss_fn=piece_loss(3.0))
    np.testing.assert_allclose(found, 3.0 * plain, rtol=1e-12)


def test_wsam_takes_an_injected_gamma():
    """An injected gamma is traced where the method is made."""
    (problem,) = stream(1)

    def gradient(tx):
        params = to_tree(start())
        state = tx.init(params)
        return jax.jit(
            lambda state: tx.update(
                None, state, params, loss_fn=loss_fn(problem), domain_weights=WEIGHTS
            )[0]
        )(state)

    injected = optax.inject_hyperparams(
        dj.wsam, static_args=("ascent", "descent", "mask", "combine_with")
    )
    found = gradient(injected(rho=RHO, gamma=0.8))
    np.testing.assert_allclose(to_flat(found), to_flat(gradient(dj.wsam(RHO, 0.8))))


def test_gsams_radius_follows_the_learning_rate():
    schedule = optax.cosine_decay_schedule(0.3, 10)
    rho = dj.follow_learning_rate(schedule, 0.3, rho_max=0.5, rho_min=0.1)
    for t in range(11):
        expected_rho = 0.1 + 0.4 * (1 + np.cos(np.pi * t / 10)) / 2
        assert float(rho(t)) == pytest.approx(expected_rho, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dj.interval_sam(0.1, 0), "period must be an integer >= 1; got 0"),
        (lambda: dj.late_sam(0.1, -1), "step must be an integer >= 0; got -1"),
        (
            lambda: dj.randomized_sam(0.1, 1.5),
            "probability must be finite .* <= 1; got 1.5",
        ),
        (lambda: dj.wsam(0.1, 1.0), "gamma must be below 1; got 1.0"),
        (lambda: dj.multi_step_sam(0.1, 0), "steps must be an integer >= 1; got 0"),
        (lambda: dj.vasso(0.1, 1.5), "theta must be finite .* <= 1; got 1.5"),
        (lambda: dj.friendly_sam(0.1, 1.0, -0.1), "decay must be finite .* got -0.1"),
        (lambda: dj.gam(beta=(0.5, 2.0)), "beta must be finite .* got 2.0"),
        (lambda: dj.ae_sam(0.1, float("nan")), "threshold must be finite; got nan"),
        (
            lambda: dj.sharpness_aware(dj.ascend(), between=dj.plain_gradient()),
            "between needs when",
        ),
        (
            lambda: dj.sharpness_aware(dj.ascend(), ascent_steps=0),
            "ascent_steps must be an integer >= 1",
        ),
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
