"""A loss in two parts, and the method that looks between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj

FIRST = {"W": np.array([[0.1, 0.2], [0.3, 0.4]]), "V": np.array([[0.5, -0.6], [0.7, 0.8]])}
INPUT = np.array([1.0, -0.5])


def outputs_fn(params, inputs=INPUT):
    return jnp.tanh(inputs @ params["W"].T) @ params["V"].T


def cross_entropy(outputs, *batch):
    return -jax.nn.log_softmax(outputs)[..., 0].mean()


LOSS = dj.composed_loss(outputs_fn, cross_entropy)


def gradient(tx, loss_fn, params, **options):
    return tx.update(None, tx.init(params), params, loss_fn=loss_fn, **options)[0]


def test_functional_sam_is_its_formula(x64):
    """To the digits of a network by hand, rho 0.5: a formula, for there is no release."""
    found = gradient(dj.functional_sam(0.5), LOSS, FIRST)
    expected = (0.1062920406, -0.0531460203, 0.5262476458, -0.2631238229)
    np.testing.assert_allclose(found["W"].ravel(), expected, atol=1e-10)
    expected = (-0.0424360731, -0.306125635, 0.0424360731, 0.306125635)
    np.testing.assert_allclose(found["V"].ravel(), expected, atol=1e-10)
    assert float(LOSS(FIRST)) == pytest.approx(0.7653465637, abs=1e-10)


def test_losses_as_a_list_and_outputs_that_are_no_floats():
    def loss_of_outputs(outputs):
        return [outputs["y"][0], outputs["label"] * outputs["y"][1]]

    def loss(as_):
        def outputs(w):
            return {"y": w**2, "label": 3, "seen": jnp.array([True])}

        return dj.composed_loss(outputs, lambda outputs: as_(loss_of_outputs(outputs)))

    params = jnp.array([3.0, 4.0])
    listed, stacked = (
        gradient(dj.functional_sam(0.5), loss(as_), params) for as_ in (list, jnp.stack)
    )
    # eps = 0.5 (3, 12) / norm, and the slopes (1, 3) / 2 at the clean outputs.
    eps = 0.5 * np.array([3.0, 12.0]) / np.hypot(3.0, 12.0)
    expected = 2 * (np.array([3.0, 4.0]) + eps) * np.array([0.5, 1.5])
    np.testing.assert_allclose(listed, expected, rtol=1e-6)
    np.testing.assert_allclose(stacked, expected, rtol=1e-6)


def test_its_radius_follows_a_schedule(x64):
    tx = dj.functional_sam(lambda count: 0.5 * count)
    state, found = tx.init(FIRST), []
    for _ in range(2):
        grads, state = tx.update(None, state, FIRST, loss_fn=LOSS)
        found.append(grads["W"])
    np.testing.assert_allclose(found[0], gradient(dj.erm(), LOSS, FIRST)["W"], rtol=1e-12)
    expected = gradient(dj.functional_sam(0.5), LOSS, FIRST)["W"]
    np.testing.assert_allclose(found[1], expected, rtol=1e-12)


def test_sam_sees_a_composed_loss_as_any_other(x64):
    plain = gradient(dj.sam(0.5), lambda params: LOSS(params), FIRST)
    jax.tree.map(np.testing.assert_array_equal, gradient(dj.sam(0.5), LOSS, FIRST), plain)


def test_of_a_linear_model_it_is_erm(x64):
    loss_fn = dj.composed_loss(lambda p: p["V"] @ INPUT, lambda o: jnp.sum(jnp.exp(o)))
    found = gradient(dj.functional_sam(0.5), loss_fn, FIRST)
    expected = gradient(dj.erm(), loss_fn, FIRST)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)
    assert not np.allclose(gradient(dj.sam(0.5), loss_fn, FIRST)["V"], expected["V"])


def test_domains_are_weighed_as_by_any_method(x64):
    def of_domains(outputs):
        return jnp.stack([jnp.sum(outputs**2), jnp.sum(jnp.exp(outputs))])

    weights = np.array([3.0, 1.0])
    both = dj.composed_loss(outputs_fn, of_domains)
    pooled = dj.composed_loss(outputs_fn, lambda o: of_domains(o) @ weights / 4)
    tx = dj.functional_sam(0.5)
    found = gradient(tx, both, FIRST, domain_weights=weights)
    expected = gradient(tx, pooled, FIRST)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


def test_micro_batches_arguments_and_complex_parameters_reach_both_parts(x64):
    inputs = np.random.default_rng(0).normal(size=(6, 2))
    targets = inputs[:, :1] + 1

    def mse(outputs, inputs, targets):
        return jnp.mean((outputs - targets) ** 2)

    def model(params, inputs, targets):
        return outputs_fn(params, inputs)

    tx, loss_fn = dj.functional_sam(0.5), dj.composed_loss(model, mse)
    step = dj.value_and_grad(loss_fn, tx)
    (_, whole), _ = step(FIRST, tx.init(FIRST), inputs, targets)
    in_parts = dj.composed_loss(
        lambda params, batch: model(params, *batch),
        lambda outputs, batch: mse(outputs, *batch),
    )
    parts = gradient(
        tx, in_parts, FIRST, micro_batches=dj.micro_batches((inputs, targets), 3)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), parts, whole)
    turned = {name: leaf.astype(complex) for name, leaf in FIRST.items()}
    real = dj.composed_loss(
        lambda params: outputs_fn(jax.tree.map(jnp.real, params)), cross_entropy
    )
    found = gradient(tx, real, turned)
    expected = gradient(tx, LOSS, FIRST)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


def test_an_aux_of_the_model_comes_from_w(x64):
    loss_fn = dj.composed_loss(
        lambda params: (outputs_fn(params), jnp.sum(params["W"])),
        cross_entropy,
        has_aux=True,
    )
    tx = dj.functional_sam(0.5)
    options = {"loss_fn": loss_fn, "has_aux": True, "record": True}
    _, state = tx.update(None, tx.init(FIRST), FIRST, **options)
    evaluation, _ = dj.pop_evaluation(state)
    assert float(evaluation.aux) == pytest.approx(1.0)


def test_it_costs_what_sam_costs(optimized):
    """The clean outputs are there already: the compiler computes them once."""
    params = {"W": jnp.ones((64, 64)), "V": jnp.ones((8, 64))}
    inputs = jnp.ones((128, 64))
    loss_fn = dj.composed_loss(lambda p: outputs_fn(p, inputs), cross_entropy)

    def flops(tx):
        state = tx.init(params)
        step = jax.jit(lambda p, s: tx.update(None, s, p, loss_fn=loss_fn))
        return step.lower(params, state).compile().cost_analysis()["flops"]

    assert flops(dj.functional_sam(0.05)) <= 1.02 * flops(dj.sam(0.05))


def test_a_loss_in_one_part_is_refused():
    with pytest.raises(
        TypeError, match=r"disam_jax.composed_loss\(outputs_fn, loss_of_out"
    ):
        gradient(dj.functional_sam(0.5), lambda params: LOSS(params), FIRST)
