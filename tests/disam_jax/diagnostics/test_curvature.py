"""Products, eigenvectors, densities and distances, of the Hessian and of other curvatures.

Beside matrices written down or made entry by entry, in float64.
"""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from disam_jax import diagnostics
from disam_jax.diagnostics.lanczos import lanczos
from tests import reference
from tests.disam_jax.diagnostics.answers import mlp, quadratic, symmetric
from tests.problems import loss_fn, start, to_flat, to_tree

pytestmark = pytest.mark.usefixtures("x64")
PROBLEM = reference.Quadratics.random(0)
KEY = jax.random.key(0)
ROUNDING = 1e-12


def hessian_of(loss, params):
    """All of it, through its products with unit vectors."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    rows = [
        diagnostics.hessian_product(loss, params, unravel(unit))
        for unit in np.eye(flat.size)
    ]
    return np.array([jax.flatten_util.ravel_pytree(row)[0] for row in rows])


# The Hessian.


def test_a_product_is_that_of_the_matrix():
    found = hessian_of(lambda w: loss_fn(PROBLEM)(w)[1], to_tree(start()))
    np.testing.assert_allclose(found, PROBLEM.hessians[1], atol=ROUNDING)


@pytest.mark.parametrize("iterations", [None, 40])
def test_eigenvectors_are_those_of_the_matrix(iterations):
    eigenvalues = np.array([9.0, 7.0, 7.0, 4.0, *np.linspace(1, -3, 36)])
    rotation = np.linalg.qr(symmetric(40))[0]
    hessian = rotation * eigenvalues @ rotation.T
    params = {"a": jnp.ones((5, 3)), "b": [jnp.ones(25)]}

    def loss(w):
        return quadratic(hessian)(jax.flatten_util.ravel_pytree(w)[0])

    found = diagnostics.hessian_top_eigenvectors(
        loss, params, 4, KEY, iterations=iterations
    )
    assert jax.tree.map(jnp.shape, found.vectors) == {"a": (4, 5, 3), "b": [(4, 25)]}
    vectors = np.array([jax.flatten_util.ravel_pytree(row)[0] for row in rows(found)])
    np.testing.assert_allclose(found.values, [9, 7, 7, 4], atol=1e-10)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(
        hessian @ vectors.T, vectors.T * np.asarray(found.values), atol=1e-9
    )


def rows(found):
    return [jax.tree.map(lambda leaf, k=k: leaf[k], found.vectors) for k in range(4)]


def test_complex_parameters_are_two_real_ones_each():
    def loss(z):
        return jnp.real(z[0]) ** 2 + 3 * jnp.imag(z[0]) ** 2

    z = jnp.array([1.0 + 2.0j])
    product = diagnostics.hessian_product(loss, z, jnp.array([1.0 + 1.0j]))
    np.testing.assert_allclose(product, [2 + 6j], atol=ROUNDING)
    found = diagnostics.hessian_top_eigenvectors(loss, z, 1, KEY)
    np.testing.assert_allclose(found.values, [6], atol=ROUNDING)
    np.testing.assert_allclose(np.abs(found.vectors.imag), [[1]], atol=ROUNDING)


# Densities.


def test_the_density_has_the_moments_of_the_eigenvalues():
    hessian = symmetric(12)
    loss, w = quadratic(hessian), jnp.ones(12)
    whole = diagnostics.spectral_density(loss, w, KEY, samples=30)
    eigenvalues = np.linalg.eigvalsh(hessian)[::-1]
    np.testing.assert_allclose(whole.nodes, [eigenvalues] * 30, atol=1e-11)
    np.testing.assert_allclose(whole.weights.sum(axis=1), 1, rtol=1e-12)
    for power in (1, 2):
        seen = np.sum(whole.weights * whole.nodes**power, axis=1)
        error = seen.std(ddof=1) / np.sqrt(30)
        assert abs(seen.mean() - np.mean(eigenvalues**power)) < 4 * error
    # Of the same vectors, 3 nodes have their moments up to 2 * 3 - 1.
    few = diagnostics.spectral_density(loss, w, KEY, samples=30, iterations=3)
    assert few.nodes.shape == few.weights.shape == (30, 3)
    for power in range(6):
        seen, expected = (
            np.sum(found.weights * found.nodes**power, axis=1) for found in (few, whole)
        )
        np.testing.assert_allclose(seen, expected, rtol=1e-9, atol=1e-9)


def test_the_curve_is_a_density_around_the_nodes():
    hessian = symmetric(12)
    found = diagnostics.spectral_density(
        quadratic(hessian), jnp.ones(12), KEY, width=0.02, points=2000
    )
    grid, density = np.asarray(found.grid), np.asarray(found.density)
    step = grid[1] - grid[0]
    np.testing.assert_allclose(density.sum() * step, 1, rtol=1e-5)
    mean = np.sum(found.weights * found.nodes) / 4
    np.testing.assert_allclose(np.sum(density * grid) * step, mean, rtol=1e-3, atol=1e-3)
    sigma = 0.02 * np.max(np.abs(found.nodes))
    expected = np.sum(found.weights * found.nodes**2) / 4 - mean**2 + sigma**2
    variance = np.sum(density * (grid - mean) ** 2) * step
    np.testing.assert_allclose(variance, expected, rtol=1e-3)


@pytest.mark.usefixtures("debug_nans")
@pytest.mark.parametrize("value", [0.0, 2.0, -3.0])
def test_the_density_of_equal_eigenvalues(value):
    found = diagnostics.spectral_density(quadratic(value * np.eye(5)), jnp.ones(5), KEY)
    np.testing.assert_allclose(np.sum(found.weights * found.nodes) / 4, value, atol=1e-12)
    peak = found.grid[np.argmax(found.density)]
    assert abs(peak - value) < found.grid[1] - found.grid[0]
    assert np.all(np.isfinite(found.density))


def test_the_quadrature_is_matfrees():
    pytest.importorskip("matfree")
    from matfree import decomp, funm

    hessian, w = symmetric(30) / 10, jnp.ones(30)
    theirs = funm.monte_carlo_funm_sym(
        funm.dense_funm_sym_eigh(jnp.exp), decomp.tridiag_sym(4, reortho="full")
    )
    key = jax.random.split(KEY, 1)[0]
    vector = lanczos(lambda v: hessian @ v, w, key, 1)[1][0]
    expected = theirs(lambda v: jnp.asarray(hessian) @ v, vector)
    found = diagnostics.spectral_density(
        quadratic(hessian), w, KEY, samples=1, iterations=4
    )
    # The same random vector for any number of iterations.
    np.testing.assert_allclose(
        np.sum(found.weights * np.exp(found.nodes)), expected, rtol=1e-10
    )


# Other curvatures.


def classifier():
    """Outputs, loss and parameters of a small network with three classes."""
    rng = np.random.default_rng(3)
    x, labels = jnp.asarray(rng.normal(size=(6, 2))), np.array([0, 1, 2, 2, 1, 0])
    params = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=(3, 3))}

    def outputs_fn(params):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    def losses(logits, labels=labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    return outputs_fn, losses, jax.tree.map(jnp.asarray, params)


def jacobian(function, params):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    found = np.asarray(jax.jacobian(lambda flat: function(unravel(flat)))(flat))
    return found.reshape(-1, flat.size)


def test_gauss_newton_of_a_linear_model_is_the_hessian():
    x, y = np.random.default_rng(0).normal(size=(2, 7, 5))
    y = y[:, 0]

    def outputs_fn(w):
        return x @ to_flat(w)

    def loss(outputs):
        return jnp.mean(jnp.cosh(outputs - y))

    linear = diagnostics.gauss_newton(outputs_fn, loss)
    w = to_tree(start())
    expected = hessian_of(lambda w: loss(outputs_fn(w)), w)
    np.testing.assert_allclose(hessian_of(linear, w), expected, rtol=1e-10, atol=1e-12)


def test_gauss_newton_is_fishers_matrix_of_the_softmax():
    outputs_fn, losses, params = classifier()
    loss = diagnostics.gauss_newton(outputs_fn, lambda logits: losses(logits).mean())
    fisher = 0  # the expectation over the labels that the model would draw
    shares = np.asarray(jax.nn.softmax(outputs_fn(params)))
    for label in range(3):

        def drawn(params, label=label):
            return losses(outputs_fn(params), np.full(6, label))

        gradients = jacobian(drawn, params)
        fisher += gradients.T * shares[:, label] @ gradients / 6
    np.testing.assert_allclose(hessian_of(loss, params), fisher, atol=ROUNDING)
    assert np.linalg.eigvalsh(fisher)[0] > -ROUNDING

    # Where a Hessian is asked for, it is: value and gradient are the model's.
    def whole(params):
        return losses(outputs_fn(params)).mean()

    for a, b in zip(
        jax.tree.leaves(jax.value_and_grad(loss)(params)),
        jax.tree.leaves(jax.value_and_grad(whole)(params)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    found = diagnostics.hessian_top_eigenvalues(loss, params, 3, KEY)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(fisher)[::-1][:3], atol=ROUNDING)
    trace = diagnostics.hessian_trace(loss, params, KEY, samples=100)
    assert abs(trace.mean - np.trace(fisher)) < 4 * trace.standard_error


def test_a_partial_gives_both_parts_its_batch():
    def loss(outputs, batch):
        return jnp.sum(outputs**2 * batch)

    of_batch = diagnostics.gauss_newton(lambda w, batch: batch * w**2, loss)
    for factor in (1.0, 2.0):
        batch = factor * jnp.array([1.0, 3.0])
        found = diagnostics.hessian_product(
            jax.tree_util.Partial(of_batch, batch=batch), jnp.ones(2), jnp.ones(2)
        )
        np.testing.assert_allclose(found, 8 * batch**3, rtol=1e-12)


@pytest.mark.parametrize("centered", [False, True])
def test_moments_of_the_gradients_of_examples(centered):
    outputs_fn, losses, params = classifier()
    make = diagnostics.gradient_covariance if centered else diagnostics.empirical_fisher
    loss = make(lambda params: losses(outputs_fn(params)))
    gradients = jacobian(lambda params: losses(outputs_fn(params)), params)
    if centered:
        gradients = gradients - gradients.mean(axis=0)
    expected = gradients.T @ gradients / 6
    np.testing.assert_allclose(hessian_of(loss, params), expected, atol=ROUNDING)


def test_gauss_newton_under_vmap():
    def largest(scale):
        loss = diagnostics.gauss_newton(lambda w: scale * w**2, lambda f: jnp.sum(f**2))
        return diagnostics.hessian_top_eigenvalues(loss, jnp.ones(3), 1, KEY)

    found = jax.jit(jax.vmap(largest))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(found, [[8.0], [32.0]], rtol=1e-12)


# Distances.


def test_distances_of_diagonal_hessians_are_exact():
    diagonals = np.array([[1.0, 2.0, -3.0], [0.0, 2.0, 1.0], [1.0, 2.0, -3.0]])
    found = diagnostics.hessian_distance(
        lambda w: jnp.asarray(diagonals) @ w**2 / 2 + w[0], jnp.ones(3), KEY, samples=2
    )
    expected = np.sum((diagonals[:, None] - diagonals) ** 2, axis=-1)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-12)
    assert found.mean[0, 2] == 0 and np.all(found.standard_error == 0)


def test_distances_are_without_bias():
    found = diagnostics.hessian_distance(
        loss_fn(PROBLEM), to_tree(start()), KEY, samples=200
    )
    for i in range(3):
        for j in range(3):
            away = PROBLEM.hessians[i] - PROBLEM.hessians[j]
            expected = np.sum(away**2)
            square = away @ away  # z.square.z: the estimator's variance for signs
            variance = 2 * np.sum((square - np.diag(np.diag(square))) ** 2)
            error = np.sqrt(variance / 200)
            assert abs(found.mean[i, j] - expected) <= 4 * error
            np.testing.assert_allclose(found.standard_error[i, j], error, rtol=0.25)


def test_distances_between_covariances():
    gradients = np.random.default_rng(5).normal(size=(2, 6, 4))  # of two domains
    loss = diagnostics.gradient_covariance(lambda w: gradients @ w)
    found = diagnostics.hessian_distance(loss, jnp.ones(4), KEY, samples=200)
    a, b = (np.cov(part.T, bias=True) for part in gradients)
    assert abs(found.mean[0, 1] - np.sum((a - b) ** 2)) < 4 * found.standard_error[0, 1]
    assert found.mean[0, 1] > 4 * found.standard_error[0, 1]


# Fewer parameters, more data.


def test_a_block_is_that_of_the_hessian():
    losses, params = mlp()

    def mean(params):
        return losses(params).mean()

    whole = hessian_of(mean, params)  # hidden: bias 3, kernel 6; out: 2 and 1
    masks = {
        (0, 9): {"hidden": True, "out": False},
        (3, 9): {"hidden": {"kernel": True, "bias": False}, "out": False},
        (9, 12): lambda params: {"hidden": False, "out": [True, True]},
    }
    for (first, last), mask in masks.items():
        loss, part = diagnostics.block(mean, params, mask)
        expected = whole[first:last, first:last]
        np.testing.assert_allclose(hessian_of(loss, part), expected, atol=ROUNDING)
    density = diagnostics.spectral_density(loss, part, KEY, samples=1)
    np.testing.assert_allclose(
        density.nodes[0], np.linalg.eigvalsh(expected)[::-1], atol=ROUNDING
    )
    climbed = diagnostics.sharpness(loss, part, 0.1)
    pulled = jax.grad(mean)(params)["out"]
    assert climbed[0] > 0 and part["hidden"]["bias"] is None
    first_order = 0.1 * np.sqrt(sum(np.sum(np.square(g)) for g in pulled))
    np.testing.assert_allclose(climbed, [first_order], rtol=0.2)


def test_a_mask_holds_bools():
    with pytest.raises(TypeError, match=r"mask must hold bools; got 1 \(int\)"):
        diagnostics.block(lambda w: w["a"], {"a": 1.0}, {"a": 1})
