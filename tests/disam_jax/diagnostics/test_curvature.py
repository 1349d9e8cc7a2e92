"""Other curvatures beside matrices made entry by entry, in float64."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from disam_jax import diagnostics
from tests.disam_jax.diagnostics.answers import hessian_of
from tests.problems import start, to_flat, to_tree

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
ROUNDING = 1e-12


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


def test_gauss_newton_over_batches():
    batches = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)))
    w, v = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)))

    def loss(outputs, batch):
        return jnp.mean(jnp.cosh(outputs) * batch[:, 0])

    of_batch = diagnostics.gauss_newton(lambda w, batch: jnp.tanh(batch @ w), loss)
    found = diagnostics.hessian_product(diagnostics.over_batches(of_batch, batches), w, v)
    x = batches.reshape(20, 3)
    f = np.tanh(x @ w)
    rows = x * (1 - f**2)[:, None]
    expected = rows.T @ (np.cosh(f) * x[:, 0] * (rows @ v)) / 20
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=ROUNDING)


def test_outputs_of_integers_have_no_derivative():
    def outputs_fn(w):
        return {"y": w[0] * w[1], "label": jnp.array([1])}

    def loss_of_outputs(outputs):
        return outputs["y"] ** 2 / 2 * outputs["label"][0]

    loss = diagnostics.gauss_newton(outputs_fn, loss_of_outputs)
    np.testing.assert_allclose(jax.hessian(loss)(jnp.array([2.0, 3.0])), [[9, 6], [6, 4]])


def test_gauss_newton_under_vmap():
    def largest(scale):
        loss = diagnostics.gauss_newton(lambda w: scale * w**2, lambda f: jnp.sum(f**2))
        return diagnostics.hessian_top_eigenvalues(loss, jnp.ones(3), 1, KEY)

    found = jax.jit(jax.vmap(largest))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(found, [[8.0], [32.0]], rtol=1e-12)


def test_a_product_with_gauss_newton_costs_no_more_than_by_hand(optimized):
    def outputs_fn(w):
        return jnp.tanh(jnp.ones((16, 32)) @ w["a"]) @ w["b"]

    def loss(outputs):
        return jnp.mean(jnp.cosh(outputs))

    def by_hand(w, v):
        outputs, along = jax.jvp(outputs_fn, (w,), (v,))
        cotangent = jax.jvp(jax.grad(loss), (outputs,), (along,))[1]
        return jax.vjp(outputs_fn, w)[1](cotangent)[0]

    def product(w, v):
        return diagnostics.hessian_product(diagnostics.gauss_newton(outputs_fn, loss), w, v)

    w = {"a": jnp.ones((32, 64)), "b": jnp.ones((64, 8))}
    costs = [
        jax.jit(f).lower(w, w).compile().cost_analysis()["flops"]
        for f in (product, by_hand)
    ]
    assert costs[0] <= 1.02 * costs[1]
