"""Every measure beside a NumPy version or a known answer, in float64.

The references share no code with the package: closed forms of quadratics, a bisection for
the highest point on a sphere, NumPy's eigenvalues, and loops. Longer ones have files of
their own in diagnostics/.
"""

import gc
import weakref

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from disam_jax import diagnostics
from tests import reference
from tests.disam_jax.diagnostics.answers import (
    highest_on_the_sphere,
    mlp,
    quadratic,
    symmetric,
)
from tests.problems import LAM, RHO, WEIGHTS, loss_fn, start, to_flat, to_tree

pytestmark = pytest.mark.usefixtures("x64")
PROBLEM = reference.Quadratics.random(0)
PARAMS = start()
KEY = jax.random.key(0)
# Of an eigenvalue: some n |H| 2^-53, and n |H| is at most 400 here.
ROUNDING = 1e-12


def increases(eps):
    """How much every domain of PROBLEM rises along eps, from its gradient and Hessian."""
    return np.array(
        [
            g @ eps + eps @ h @ eps / 2
            for g, h in zip(PROBLEM.grads(PARAMS), PROBLEM.hessians, strict=True)
        ]
    )


# Sharpness.


@pytest.mark.parametrize("rho", [0.05, 1.3])
def test_one_step_has_a_closed_form(rho):
    found = diagnostics.sharpness(loss_fn(PROBLEM), to_tree(PARAMS), rho)
    expected = [
        rho * reference.length(g) + rho**2 / 2 * (g @ h @ g) / (g @ g)
        for g, h in zip(PROBLEM.grads(PARAMS), PROBLEM.hessians, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_many_steps_find_the_highest_point_on_the_sphere():
    found = diagnostics.sharpness(loss_fn(PROBLEM), to_tree(PARAMS), 2.0, steps=200)
    expected = [
        highest_on_the_sphere(g, h, 2.0)
        for g, h in zip(PROBLEM.grads(PARAMS), PROBLEM.hessians, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    one_step = diagnostics.sharpness(loss_fn(PROBLEM), to_tree(PARAMS), 2.0)
    assert np.all(one_step < 0.9995 * np.array(expected))


def test_of_many_steps_the_highest_counts():
    def loss(w):  # at w + rho it falls, so that the second step goes to w - rho
        return jnp.sin(w[0])

    found = diagnostics.sharpness(loss, jnp.array([1.4]), 0.5, steps=2)
    np.testing.assert_allclose(found, [np.sin(1.9) - np.sin(1.4)], rtol=1e-12)


@pytest.mark.parametrize("lam", [0.0, LAM])
@pytest.mark.parametrize("steps", [1, 3])
def test_one_ascent_for_all_domains(lam, steps):
    found = diagnostics.sharpness(
        loss_fn(PROBLEM),
        to_tree(PARAMS),
        RHO,
        steps=steps,
        ascent=dj.variance_penalized(lam),
        domain_weights=2 * WEIGHTS,
    )
    eps, met = np.zeros(5), []
    for _ in range(steps):
        losses, grads = PROBLEM.losses(PARAMS + eps), PROBLEM.grads(PARAMS + eps)
        beta = reference.disam_weights(losses, WEIGHTS, lam, "uniform")
        g = sum(b * g for b, g in zip(beta, grads, strict=True))
        eps = RHO * g / reference.length(g)
        losses = PROBLEM.losses(PARAMS + eps)
        height = WEIGHTS @ losses - lam * reference.pairwise_variance(losses)
        met.append((height, increases(eps)))
    np.testing.assert_allclose(found, max(met, key=lambda m: m[0])[1], rtol=1e-11)


def test_the_mean_along_one_ascent_is_the_pooled_sharpness():
    losses = loss_fn(PROBLEM)
    common = diagnostics.sharpness(losses, to_tree(PARAMS), RHO, ascent=dj.weighted_mean)
    pooled = diagnostics.sharpness(lambda w: losses(w).mean(), to_tree(PARAMS), RHO)
    assert pooled.shape == (1,)
    np.testing.assert_allclose(common.mean(), pooled[0], rtol=1e-12)


@pytest.mark.usefixtures("debug_nans")
@pytest.mark.parametrize("ascent", [None, dj.weighted_mean])
def test_nothing_rises_without_a_gradient_or_a_radius(ascent):
    losses = loss_fn(PROBLEM)
    still = diagnostics.sharpness(
        lambda w: jnp.stack([losses(w)[0], 7.0]), to_tree(PARAMS), RHO, steps=2
    )
    assert still[0] > 0 and still[1] == 0
    at_rest = diagnostics.sharpness(
        lambda w: to_flat(w)[:3] ** 2, to_tree(np.zeros(5)), RHO, ascent=ascent
    )
    no_radius = diagnostics.sharpness(losses, to_tree(PARAMS), 0.0, ascent=ascent)
    assert np.all(at_rest == 0) and np.all(no_radius == 0)


def test_a_nan_is_not_hidden():
    def loss(w):  # at w + eps the first is the logarithm of -1
        return jnp.stack([-jnp.log(2 - w[0]), w[0] ** 2])

    found = diagnostics.sharpness(loss, jnp.array([1.0]), 2.0, steps=3)
    np.testing.assert_allclose(found, [np.nan, 8.0], rtol=1e-12)


# The Hessian.


@pytest.mark.parametrize("size", [1, 5, 12])
def test_all_eigenvalues_of_a_small_hessian(size):
    hessian = symmetric(size)
    found = diagnostics.hessian_top_eigenvalues(
        quadratic(hessian), jnp.ones(size), size, KEY
    )
    np.testing.assert_allclose(found, np.linalg.eigvalsh(hessian)[::-1], atol=ROUNDING)


def test_nearly_equal_eigenvalues_bring_no_copies_of_the_others():
    eigenvalues = np.array([10.0, 7.0, 5.0, 4.0, *(1 + 1e-9 * np.arange(7, -1, -1))])
    rotation = np.linalg.qr(symmetric(12))[0]
    hessian = rotation * eigenvalues @ rotation.T
    found = diagnostics.hessian_top_eigenvalues(quadratic(hessian), jnp.ones(12), 12, KEY)
    np.testing.assert_allclose(found, eigenvalues, atol=ROUNDING)


@pytest.mark.parametrize(
    ("hessian", "atol"), [(symmetric(200), 1e-6), (2 * np.eye(200), ROUNDING)]
)
def test_the_top_of_a_hessian_larger_than_the_iterations(hessian, atol):
    found = diagnostics.hessian_top_eigenvalues(quadratic(hessian), jnp.ones(200), 3, KEY)
    expected = np.linalg.eigvalsh(hessian)[::-1][:3]
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    assert np.all(found < expected + ROUNDING)


@pytest.mark.usefixtures("debug_nans")
@pytest.mark.parametrize(
    "eigenvalues",
    [
        [2.0] * 5,
        [0.0] * 5,
        [-1.0] * 5,
        [3.0, 3.0, 1.0, 1.0, 1.0],
        [4.0, 0.0, 0.0, 0.0, 0.0],
    ],
)
def test_eigenvalues_come_as_often_as_they_are_there(eigenvalues):
    rotation = np.linalg.qr(symmetric(5))[0]
    hessian = rotation * eigenvalues @ rotation.T
    found = diagnostics.hessian_top_eigenvalues(quadratic(hessian), jnp.ones(5), 5, KEY)
    np.testing.assert_allclose(found, eigenvalues, atol=ROUNDING)


def test_the_hessian_of_a_network():
    losses, params = mlp()

    def mean(params):
        return losses(params).mean()

    flat, unravel = jax.flatten_util.ravel_pytree(params)
    hessian = np.asarray(jax.jit(jax.hessian(lambda flat: mean(unravel(flat))))(flat))
    assert hessian.shape == (12, 12)
    found = diagnostics.hessian_top_eigenvalues(mean, params, 12, KEY)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(hessian)[::-1], atol=ROUNDING)

    trace = diagnostics.hessian_trace(mean, params, KEY, samples=200)
    off_diagonal = hessian - np.diag(np.diag(hessian))
    error = np.sqrt(2 * np.sum(off_diagonal**2) / 200)  # the estimator's, for signs
    assert abs(trace.mean - np.trace(hessian)) < 4 * error
    np.testing.assert_allclose(trace.standard_error, error, rtol=0.25)


def test_the_trace_of_a_diagonal_hessian_is_exact():
    found = diagnostics.hessian_trace(
        lambda w: jnp.sum(to_flat(w) ** 2 * jnp.arange(-2.0, 3.0) / 2) + to_flat(w)[0] ** 2,
        to_tree(PARAMS),
        KEY,
        samples=3,
    )
    np.testing.assert_allclose(found, (2.0, 0.0), atol=ROUNDING)


def test_the_standard_error_is_that_of_the_samples():
    # z^T H z is 2 or -2, so that the mean tells how many of each there were.
    found = diagnostics.hessian_trace(lambda w: w[0] * w[1], jnp.ones(2), KEY, samples=10)
    assert abs(found.mean) < 2
    np.testing.assert_allclose(
        found.standard_error, np.sqrt((4 - found.mean**2) / 9), rtol=1e-12
    )


# Gradients.


def test_the_gradient_variance_is_that_of_a_loop():
    rng = np.random.default_rng(2)
    batches = {"x": rng.normal(size=(7, 8, 5)), "y": rng.normal(size=(7, 8))}
    found = diagnostics.gradient_variance(
        lambda w, batch: jnp.mean((batch["x"] @ to_flat(w) - batch["y"]) ** 2),
        to_tree(PARAMS),
        jax.tree.map(jnp.asarray, batches),
    )
    grads = [
        2 * x.T @ (x @ PARAMS - y) / 8
        for x, y in zip(batches["x"], batches["y"], strict=True)
    ]
    mean = sum(grads) / 7
    expected = sum(reference.length(g - mean) ** 2 for g in grads) / 7
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_large_mean_gradient_leaves_the_variance_its_digits():
    gradients = 1e4 + np.random.default_rng(3).normal(size=(50, 5))
    gradients = gradients.astype(np.float32)
    found = diagnostics.gradient_variance(
        lambda w, gradient: w @ gradient, jnp.zeros(5, jnp.float32), gradients
    )
    assert found.dtype == jnp.float32
    expected = gradients.astype(np.float64).var(axis=0).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_one_batch_has_no_variance():
    found = diagnostics.gradient_variance(jnp.dot, jnp.ones(3), jnp.ones((1, 3)))
    assert found == 0


def test_the_conflict_of_gradients():
    losses = loss_fn(PROBLEM)
    found = diagnostics.gradient_conflict(
        lambda w: jnp.concatenate([losses(w), -2 * losses(w)[:1], jnp.zeros(1)]),
        to_tree(PARAMS),
    )
    a, b, c = PROBLEM.grads(PARAMS)
    grads = [a, b, c, -2 * a, 0 * a]
    norms = [reference.length(g) for g in grads]
    cosines = [
        [g @ h / (m * n or 1) for h, n in zip(grads, norms, strict=True)]
        for g, m in zip(grads, norms, strict=True)
    ]
    np.testing.assert_allclose(found.norms, norms, rtol=1e-12)
    np.testing.assert_allclose(found.cosines, cosines, rtol=1e-12)


def test_the_cosines_of_parallel_gradients_are_not_above_one():
    scales = jnp.asarray(np.random.default_rng(7).normal(size=8))
    found = diagnostics.gradient_conflict(lambda w: scales * (PARAMS @ w), jnp.ones(5))
    np.testing.assert_allclose(np.abs(found.cosines), 1, rtol=1e-12)
    assert np.all(np.abs(found.cosines) <= 1)


@pytest.mark.parametrize("radians", [1e-6, 0.3, np.pi / 2, 2.0, np.pi - 1e-6, np.pi])
def test_the_angle_also_where_the_cosine_is_flat(radians):
    a = {"x": jnp.array([3.0, 0.0]), "y": jnp.zeros(1)}
    b = {"x": 7 * jnp.array([np.cos(radians), 0.0]), "y": 7 * jnp.sin(jnp.full(1, radians))}
    found = diagnostics.angle(a, b)
    np.testing.assert_allclose(found, radians, rtol=1e-9)
    np.testing.assert_allclose(np.pi - found, np.pi - radians, rtol=1e-6, atol=1e-15)


def test_the_angle_to_nothing_and_to_itself_is_zero():
    a, zero = to_tree(PARAMS), to_tree(np.zeros(5))
    for pair in [(a, zero), (zero, a), (zero, zero), (a, a)]:
        assert diagnostics.angle(*pair) == 0


# Surfaces.


def test_filters_are_as_long_as_the_weights_own():
    rng = np.random.default_rng(4)
    params = {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 6)).astype(np.float32))},
        "dense": {"kernel": jnp.asarray(rng.normal(size=(6, 4))).at[:, 1].set(0.0)},
        "norm": {"scale": jnp.ones(6)},
        "temperature": jnp.array(2.0),
    }
    found = diagnostics.filter_normalized(KEY, params)
    for layer, axes in (("conv", (0, 1, 2)), ("dense", 0)):
        norms = [
            np.sqrt(np.sum(np.square(tree[layer]["kernel"], dtype=np.float64), axis=axes))
            for tree in (found, params)
        ]
        np.testing.assert_allclose(*norms, rtol=1e-6)
        directions = found[layer]["kernel"].reshape(-1, norms[0].size).T
        assert np.linalg.matrix_rank(directions) == np.count_nonzero(norms[1])
    assert np.all(found["norm"]["scale"] == 0) and found["temperature"] == 0
    other = diagnostics.filter_normalized(jax.random.key(1), params)
    across = diagnostics.angle(found, other)
    assert abs(across - np.pi / 2) < 4 / np.sqrt(3 * 3 * 2 * 6 + 6 * 3)


def test_a_surface_is_the_losses_point_by_point():
    first, second = np.random.default_rng(5).normal(size=(2, 5))
    coordinates = np.linspace(-1, 1, 4), np.linspace(0, 2, 3)
    losses, directions = loss_fn(PROBLEM), [to_tree(first), to_tree(second)]
    expected = np.array(
        [
            [PROBLEM.losses(PARAMS + a * first + b * second) for b in coordinates[1]]
            for a in coordinates[0]
        ]
    )
    found = diagnostics.loss_surface(losses, to_tree(PARAMS), directions, coordinates)
    assert found.shape == (4, 3, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    of_one = diagnostics.loss_surface(
        lambda w: losses(w)[1], to_tree(PARAMS), directions[:1], coordinates[:1]
    )
    line = [PROBLEM.losses(PARAMS + a * first)[1] for a in coordinates[0]]
    np.testing.assert_allclose(of_one, line, rtol=1e-12)


# Curves.


def test_curves_are_those_of_loops():
    losses = np.random.default_rng(6).uniform(size=(6, 3))
    losses[:, 2] = 0.7
    degree, scaled = np.zeros((6, 3)), np.zeros((6, 3))
    for i, curve in enumerate(losses.T):
        for t in range(6):
            degree[t, i] = min(curve) - curve[t]
            if max(curve) > min(curve):
                scaled[t, i] = (curve[t] - min(curve)) / (max(curve) - min(curve))
    spread = [reference.pairwise_variance(row) ** 0.5 for row in losses]
    np.testing.assert_allclose(diagnostics.convergence_degree(losses), degree, atol=1e-15)
    np.testing.assert_allclose(diagnostics.scaled_losses(losses), scaled, rtol=1e-12)
    np.testing.assert_allclose(diagnostics.loss_spread(losses), spread, rtol=1e-12)
    best = [0.1, 0.2, 0.3]
    expected = [[b - loss for b, loss in zip(best, row, strict=True)] for row in losses]
    np.testing.assert_allclose(
        diagnostics.convergence_degree(losses, best), expected, rtol=1e-12
    )


def test_curves_in_half_precision_are_read_in_float32():
    losses = jnp.array([[1.0, 2.0], [3.0, 5.0]], jnp.bfloat16)
    for measure in (diagnostics.convergence_degree, diagnostics.scaled_losses):
        assert measure(losses).dtype == jnp.float32
    assert diagnostics.loss_spread(losses).tolist() == [0.5, 1.0]


# What all of them hold.


def measures(losses, batch_loss, batches):
    """Every measure of losses [M] as a function of the parameters."""

    def mean(w):
        return losses(w).mean()

    return {
        "sharpness": lambda w: diagnostics.sharpness(losses, w, RHO),
        "steps": lambda w: diagnostics.sharpness(losses, w, RHO, steps=2),
        "common": lambda w: diagnostics.sharpness(losses, w, RHO, ascent=dj.weighted_mean),
        "worst case": lambda w: diagnostics.worst_case_sharpness(
            losses, w, RHO, KEY, steps=2, restarts=2, ascent=dj.weighted_mean
        ),
        "average": lambda w: diagnostics.average_sharpness(losses, w, RHO, KEY, samples=3),
        "variance": lambda w: diagnostics.gradient_variance(batch_loss, w, batches),
        "conflict": lambda w: diagnostics.gradient_conflict(losses, w),
        "angle": lambda w: diagnostics.angle(w, jax.tree.map(jnp.ones_like, w)),
        "eigenvalues": lambda w: diagnostics.hessian_top_eigenvalues(mean, w, 2, KEY),
        "trace": lambda w: diagnostics.hessian_trace(mean, w, KEY, samples=4),
        "product": lambda w: diagnostics.hessian_product(mean, w, w),
        "density": lambda w: diagnostics.spectral_density(mean, w, KEY, iterations=2),
        "distance": lambda w: diagnostics.hessian_distance(losses, w, KEY, samples=2),
        "filters": lambda w: diagnostics.filter_normalized(KEY, w),
        "surface": lambda w: diagnostics.loss_surface(losses, w, [w], [jnp.arange(3.0)]),
        "curves": lambda w: diagnostics.scaled_losses(
            jnp.stack([losses(w), 2 * losses(w)])
        ),
    }


def measure(name, w, hessians=PROBLEM.hessians):
    """The measure of quadratics around 0 in a kernel [5, 1], beside its bias."""

    def batch_loss(w, hessian):
        flat = w["kernel"][:, 0] + w["bias"]
        return flat @ hessian @ flat / 2

    def losses(w):
        return jax.vmap(batch_loss, in_axes=(None, 0))(w, hessians)

    return measures(losses, batch_loss, hessians)[name](w)


def kernel_and_bias(dtype):
    return {
        "kernel": jnp.asarray(PARAMS[:, None], dtype), "bias": jnp.asarray(0.5, dtype)
    }  # fmt: skip


NAMES = measures(None, None, None).keys()


@pytest.mark.parametrize("name", sorted(NAMES - {"sharpness"}))
def test_under_jit_it_is_the_same(name):
    w = kernel_and_bias(float)
    with jax.checking_leaks():  # which keeps no caches: what is compiled stays out of it
        traced = jax.jit(measure, static_argnums=0).trace(name, w, PROBLEM.hessians)
    compiled = traced.lower().compile()(w, PROBLEM.hessians)
    expected = measure(name, w)
    assert np.all(
        np.isfinite(np.concatenate([x.ravel() for x in jax.tree.leaves(expected)]))
    )
    for a, b in zip(jax.tree.leaves(compiled), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(NAMES - {"steps", "common", "angle", "curves"}))
def test_half_precision_is_seen_in_float32(name):
    half = kernel_and_bias(jnp.bfloat16)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    hessians = PROBLEM.hessians.astype(np.float32)
    with jax.enable_x64(False):
        found, expected = (measure(name, w, hessians) for w in (half, single))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


def test_one_loss_function_is_compiled_once():
    traced = []

    def loss(w):
        traced.append(type(w[0]).__name__)
        return w @ w

    for w, rho in ((1.0, 0.1), (2.0, 0.2), (3.0, 0.3)):
        params = jnp.full(3, w)
        diagnostics.sharpness(loss, params, rho)
        diagnostics.hessian_trace(loss, params, KEY, samples=2)
        if w == 1.0:
            first = len(traced)
    assert len(traced) <= first + 2  # the shapes of the losses are looked at each time


def test_one_program_serves_all_batches_of_a_partial():
    traced = []

    def loss(w, batch):
        traced.append(1)
        return jnp.sum(batch * w**2)

    for factor in (1.0, 2.0, 3.0):
        batch = factor * jnp.arange(1.0, 4.0)
        of_batch = jax.tree_util.Partial(loss, batch=batch)
        found = diagnostics.hessian_top_eigenvalues(of_batch, jnp.ones(3), 3, KEY)
        np.testing.assert_allclose(found, [6 * factor, 4 * factor, 2 * factor])
    assert len(traced) == 1


def test_radii_under_vmap():
    losses, w, radii = loss_fn(PROBLEM), to_tree(PARAMS), np.array([0.1, 0.2])
    found = jax.vmap(lambda rho: diagnostics.sharpness(losses, w, rho, steps=2))(radii)
    expected = [diagnostics.sharpness(losses, w, rho, steps=2) for rho in radii]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_eigenvalues_under_vmap():
    hessians = jnp.asarray([symmetric(5), 2 * np.eye(5)])

    def largest(hessian):
        return diagnostics.hessian_top_eigenvalues(
            lambda w: w @ hessian @ w / 2, jnp.ones(5), 2, KEY
        )

    expected = np.linalg.eigvalsh(hessians)[:, :2:-1]
    np.testing.assert_allclose(jax.jit(jax.vmap(largest))(hessians), expected, rtol=1e-12)


def test_a_loss_function_and_its_batch_are_forgotten():
    forgotten = []
    for factor in (1.0, 2.0):
        batch = factor * jnp.ones(3)

        def loss(w, batch=batch):
            return jnp.sum(batch * w**2)

        np.testing.assert_allclose(
            diagnostics.hessian_top_eigenvalues(loss, jnp.ones(3), 1, KEY), [2 * factor]
        )
        forgotten.append(weakref.ref(loss))
        del loss
    gc.collect()
    assert [ref() for ref in forgotten] == [None, None]


def sharpness(rho=0.1, **kwargs):
    return diagnostics.sharpness(loss_fn(PROBLEM), to_tree(PARAMS), rho, **kwargs)


def top(num, loss=jnp.sum, **kwargs):
    return diagnostics.hessian_top_eigenvalues(loss, jnp.ones(3), num, KEY, **kwargs)


def surface(directions, coordinates):
    return diagnostics.loss_surface(jnp.sum, jnp.ones(3), directions, coordinates)


ERRORS = {
    "rho must be finite and >= 0; got -0.1": lambda: sharpness(-0.1),
    "rho must be finite and >= 0; got nan": lambda: sharpness(np.nan),
    "steps must be an integer >= 1, of the ascent; got 0": lambda: sharpness(steps=0),
    "got weights and no ascent. Give ascent=": lambda: sharpness(domain_weights=WEIGHTS),
    r"schedule. Take it at a step, ascent.at\(count\)": lambda: sharpness(
        ascent=dj.variance_penalized(lambda count: 0.1)
    ),
    r"remembers. Take it as it is at first, ascent.at": lambda: sharpness(
        ascent=dj.group_dro()
    ),
    "must have one entry per domain loss": lambda: sharpness(
        ascent=dj.weighted_mean, domain_weights=np.ones(2)
    ),
    r"vector of domain losses; got float64\[2, 2\]": lambda: diagnostics.sharpness(
        lambda w: jnp.outer(w, w), jnp.ones(2), 0.1
    ),
    "num must be an integer in 1 ... 3, the number of parameters; got 4": lambda: top(4),
    "num must be an integer in 1 ... 3, the number of parameters; got 0": lambda: top(0),
    "iterations must be an integer in 2 ... 3.*; got 1": lambda: top(2, iterations=1),
    "iterations must be an integer in 2 ... 3.*; got 9": lambda: top(2, iterations=9),
    r"must return a floating-point scalar; got float64\[3\]. Take the sum or the mean":
        lambda: top(1, jnp.square),
    "samples must be an integer >= 2, for a standard error; got 1": lambda:
        diagnostics.hessian_trace(jnp.sum, jnp.ones(3), KEY, samples=1),
    r"batches must be a tree .* got shapes \[\(2, 3\), \(4,\)\]": lambda:
        diagnostics.gradient_variance(jnp.sum, jnp.ones(3), (np.ones((2, 3)), np.ones(4))),
    r"one K >= 1; got shapes \[\(0, 3\)\]": lambda:
        diagnostics.gradient_variance(jnp.dot, jnp.ones(3), np.ones((0, 3))),
    r"one K >= 1; got shapes \[\]": lambda:
        diagnostics.gradient_variance(jnp.dot, jnp.ones(3), ()),
    r"got shapes \[\(2,\)\] for 2 directions": lambda: surface([1, 2], [np.ones(2)]),
    r"got shapes \[\(\)\] for 1 directions": lambda: surface([1], [0.5]),
    r"losses must have shape \[T, M\], times and domains; got \(4,\)": lambda:
        diagnostics.loss_spread(np.ones(4)),
}  # fmt: skip


@pytest.mark.parametrize("message", ERRORS)
def test_errors_say_what_to_mend(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
