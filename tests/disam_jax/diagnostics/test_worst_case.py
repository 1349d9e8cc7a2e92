"""Worst-case sharpness beside closed forms and Auto-PGD written as a loop, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from disam_jax import diagnostics
from disam_jax.diagnostics import apgd
from disam_jax.diagnostics.balls import BALLS
from tests import reference
from tests.disam_jax.diagnostics.answers import highest_on_the_sphere
from tests.problems import WEIGHTS, loss_fn, start, to_tree

pytestmark = pytest.mark.usefixtures("x64")
PROBLEM = reference.Quadratics.random(0)
PARAMS = start()
KEY = jax.random.key(0)
NORMS = ["l2", "linf"]


def worst_case(losses, w, rho, **kwargs):
    return diagnostics.worst_case_sharpness(losses, w, rho, KEY, **kwargs)


# How far the ascent goes.


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_loss_rises_by_the_dual_norm(norm, adaptive):
    gradient = np.array([3.0, -4.0, 0.5])
    w = np.array([0.2, -3.0, 0.0])
    sizes = np.abs(w) if adaptive else np.ones(3)
    found = worst_case(
        lambda w: w @ gradient, jnp.asarray(w), 0.3, norm=norm, adaptive=adaptive
    )
    expected = 0.3 * np.linalg.norm(sizes * gradient, 2 if norm == "l2" else 1)
    # In l2 the way to the pole is halved at each step.
    np.testing.assert_allclose(found, [expected], rtol=1e-8)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_highest_point_in_an_ellipsoid(adaptive):
    sizes = np.abs(PARAMS) if adaptive else np.ones(5)
    expected = [
        highest_on_the_sphere(sizes * g, sizes[:, None] * h * sizes, 2.0)
        for g, h in zip(PROBLEM.grads(PARAMS), PROBLEM.hessians, strict=True)
    ]
    losses, w = loss_fn(PROBLEM), to_tree(PARAMS)
    found = worst_case(losses, w, 2.0, adaptive=adaptive, steps=100, restarts=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.all(found <= np.array(expected) * (1 + 1e-12))
    fewer = worst_case(losses, w, 2.0, adaptive=adaptive, steps=20)
    np.testing.assert_allclose(fewer, expected, rtol=1e-2)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_highest_corner_of_a_box(adaptive):
    sizes = np.abs(PARAMS) if adaptive else np.ones(5)
    corners = np.array(list(itertools.product([-0.5, 0.5], repeat=5))) * sizes
    rises = np.array([PROBLEM.losses(PARAMS + c) for c in corners])
    rises -= PROBLEM.losses(PARAMS)
    found = worst_case(
        loss_fn(PROBLEM), to_tree(PARAMS), 0.5, norm="linf", adaptive=adaptive, restarts=4
    )
    np.testing.assert_allclose(found, np.max(rises, axis=0), rtol=1e-12)


def many_hills(w):
    return jnp.sum(jnp.sin(5 * w) + jnp.cos(3 * w[::-1] * w)) + w[0]


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_are_never_lower(norm):
    w = jnp.array([0.1, 0.4, -0.2])
    found = [
        worst_case(many_hills, w, 2.0, norm=norm, restarts=restarts)[0]
        for restarts in range(1, 6)
    ]
    assert np.all(np.diff(found) >= 0) and found[-1] > found[0]


# How it goes.


def auto_pgd(loss, gradient, x, rho, norm, steps):
    """Croce and Hein's Algorithm 1 from the paper, one point after another."""

    def project(x):
        if norm == "linf":
            return np.clip(x, -rho, rho)
        return x * min(1.0, rho / np.sqrt(np.sum(x**2)))

    def direction(g):
        return np.sign(g) if norm == "linf" else g / np.sqrt(np.sum(g**2))

    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    checkpoints = sorted({int(np.ceil(round(p * steps, 6))) for p in shares})
    xs, values, size = [x, project(x + 2 * rho * direction(gradient(x)))], [], 2 * rho
    values = [loss(x) for x in xs]
    best = int(np.argmax(values))
    best_x, best_value = xs[best], values[best]
    rose, last, last_best, last_size = [values[1] > values[0]], 0, values[0], None
    for k in range(1, steps):
        if k in checkpoints:
            stands = last_size == size and last_best == best_value
            few = sum(rose[last:k]) < 0.75 * (k - last)
            last, last_best, last_size = k, best_value, size
            if few or stands:
                size /= 2
                xs[k], values[k] = best_x, best_value
        z = project(xs[k] + size * direction(gradient(xs[k])))
        new = project(xs[k] + 0.75 * (z - xs[k]) + 0.25 * (xs[k] - xs[k - 1]))
        xs.append(new)
        values.append(loss(new))
        rose.append(values[-1] > values[-2])
        if values[-1] > best_value:
            best_x, best_value = new, values[-1]
    return best_value


# Among random points these are some where the rarer of its rules decide.
POINTS = np.random.default_rng(0).normal(size=(150, 3))[[15, 78, 96, 99, 108, 129]]


@pytest.mark.parametrize("steps", [1, 9, 20, 50])
@pytest.mark.parametrize("norm", NORMS)
def test_the_ascent_is_the_papers(norm, steps):
    drawn = BALLS[norm].draw(jax.random.fold_in(KEY, 0), jnp.zeros(3))
    for w in POINTS:

        def loss(x, w=w):
            at = w + x
            return np.sum(np.sin(5 * at) + np.cos(3 * at[::-1] * at)) + at[0]

        def gradient(x, w=w):
            at = w + x
            slope = 5 * np.cos(5 * at) - 6 * at[::-1] * np.sin(3 * at[::-1] * at)
            return slope + np.eye(3)[0]

        start = np.asarray(drawn)
        expected = auto_pgd(loss, gradient, start, 1.0, norm, steps) - loss(0 * w)
        found = worst_case(many_hills, jnp.asarray(w), 1.0, norm=norm, steps=steps)
        np.testing.assert_allclose(found, [max(expected, 0)], rtol=1e-9, atol=1e-12)


def test_the_checkpoints_of_a_hundred_steps():
    spans = apgd._spans(100)
    assert np.flatnonzero(spans).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert spans[spans > 0].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]


@pytest.mark.parametrize("norm", NORMS)
def test_starts_lie_in_the_ball(norm):
    like = to_tree(PARAMS)
    for seed in range(3):
        x = BALLS[norm].draw(jax.random.key(seed), like)
        projected = BALLS[norm].project(x, 1 + 1e-12)
        jax.tree.map(np.testing.assert_array_equal, x, projected)


# Of what.


def test_one_ascent_for_all_domains_is_the_pooled_one():
    losses, w = loss_fn(PROBLEM), to_tree(PARAMS)
    common = worst_case(losses, w, 0.4, ascent=dj.weighted_mean, domain_weights=WEIGHTS)
    pooled = worst_case(lambda w: losses(w) @ WEIGHTS, w, 0.4)
    assert common.shape == (3,) and pooled.shape == (1,)
    np.testing.assert_allclose(common @ WEIGHTS, pooled[0], rtol=1e-12)
    assert np.all(common <= worst_case(losses, w, 0.4) + 1e-6)


def network(w):
    x = np.random.default_rng(0).normal(size=(6, 4))
    hidden = jax.nn.relu(x @ w["first"])
    return jnp.mean((hidden @ w["second"] - x[:, 0]) ** 2)


def two_layers(factor):
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(4, 5)), rng.normal(size=5)
    return {"first": jnp.asarray(first * factor), "second": jnp.asarray(second / factor)}


@pytest.mark.parametrize(
    "measure",
    [
        lambda w, adaptive: worst_case(network, w, 0.1, adaptive=adaptive, steps=5),
        lambda w, adaptive: worst_case(
            network, w, 0.1, adaptive=adaptive, steps=5, norm="linf"
        ),
        lambda w, adaptive: (
            diagnostics.average_sharpness(
                network, w, 0.1, KEY, adaptive=adaptive, samples=4
            ).mean
        ),
    ],
    ids=["l2", "linf", "average"],
)
def test_factors_between_layers_do_not_change_the_adaptive_ones(measure):
    same, scaled = two_layers(1.0), two_layers(4.0)
    np.testing.assert_allclose(measure(scaled, True), measure(same, True), rtol=1e-9)
    assert abs(measure(scaled, False) / measure(same, False) - 1) > 0.1


@pytest.mark.usefixtures("debug_nans")
@pytest.mark.parametrize("norm", NORMS)
def test_nothing_rises_without_a_gradient_or_a_radius(norm):
    flat = worst_case(lambda w: jnp.stack([w @ w, 7.0]), jnp.ones(2), 0.1, norm=norm)
    assert flat[0] > 0 and flat[1] == 0
    still = worst_case(lambda w: w @ w, jnp.zeros(2), 0.1, norm=norm, adaptive=True)
    no_radius = worst_case(lambda w: w @ w, jnp.ones(2), 0.0, norm=norm)
    assert still == 0 and no_radius == 0


def test_nothing_outside_of_the_ball_counts():
    """The code of the paper starts outside, and finds 33 times as much."""
    found = worst_case(lambda w: w @ w / 2, jnp.zeros(400), 0.1)
    np.testing.assert_allclose(found, [0.1**2 / 2], rtol=1e-12)


def test_on_a_summit_the_point_itself_is_the_highest():
    found = worst_case(lambda w: -jnp.sum(w**4), jnp.zeros(3), 0.5)
    assert found == 0


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_nan_is_not_hidden(restarts):
    def loss(w):  # the first is the logarithm of less than 0 in half of the ball
        return jnp.stack([-jnp.log(w[0]), w[1]])

    found = worst_case(loss, jnp.array([0.01, 0.0]), 1.0, restarts=restarts)
    np.testing.assert_allclose(found, [np.nan, 1.0], rtol=1e-8)


def test_nothing_is_promoted_silently():
    w = {"a": jnp.ones((2, 3), jnp.float32), "b": jnp.ones((), jnp.float32)}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        worst_case(lambda w: jnp.sum(jnp.cosh(w["a"])) * w["b"], w, 0.1, adaptive=True)


ERRORS = {
    r"norm must be one of \['l2', 'linf'\]; got 'l1'": {"norm": "l1"},
    "steps must be an integer >= 1, of the ascent; got 0": {"steps": 0},
    "restarts must be an integer >= 1, .*; got 0": {"restarts": 0},
    "got weights and no ascent": {"domain_weights": WEIGHTS},
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_say_what_to_mend(message):
    with pytest.raises(ValueError, match=message):
        worst_case(loss_fn(PROBLEM), to_tree(PARAMS), 0.1, **ERRORS[message])
    with pytest.raises(ValueError, match="rho must be finite and >= 0"):
        worst_case(loss_fn(PROBLEM), to_tree(PARAMS), -0.1)
