"""Float16: gradients that would vanish, and overflows that must not do harm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj

METHODS = {
    "erm": dj.erm(),
    "sam": dj.sam(0.5),
    "sagm": dj.sagm(0.5, 0.1),
    "disam": dj.disam(0.5, 0.1),
}
params = jnp.array([1.0, 2.0])


def quadratic(w):
    return jnp.stack([jnp.sum(w**2), 2 * jnp.sum((w - 3) ** 2)])


@pytest.mark.parametrize("method", METHODS)
def test_a_good_step_is_the_step_without_scaling(x64, method):
    chain = optax.chain(METHODS[method], optax.adam(0.1))
    tx = dj.scale_loss(chain, 2.0**12)
    plain, _ = chain.update(None, chain.init(params), params, loss_fn=quadratic)
    updates, state = tx.update(None, tx.init(params), params, loss_fn=quadratic)
    np.testing.assert_allclose(updates, plain, rtol=1e-12)
    assert (int(state.good_steps), int(state.skipped)) == (1, 0)


def overflows_near(point):
    """A loss whose gradient is infinite within 0.1 of a point and quadratic elsewhere."""

    def loss_fn(w):
        blown = jnp.where(jnp.linalg.norm(w - point) < 0.1, jnp.inf, 1.0)
        return jnp.sum(w**2) * blown

    return loss_fn


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["at w", "at w + eps"])
def test_an_overflow_in_either_pass_skips_all_of_the_step(method, where):
    if method == "erm" and where == "at w + eps":
        pytest.skip("it has no second pass")
    method = METHODS[method]
    there = params
    if where == "at w + eps":
        _, state = method.update(
            None,
            method.init(params),
            params,
            loss_fn=lambda w: jnp.sum(w**2),
            record=True,
        )
        seen = dj.pop_evaluation(state)[0]
        there = params + params / jnp.linalg.norm(params) * seen.perturbation_norm
    tx = dj.scale_loss(optax.chain(method, optax.adam(0.1)), 1024.0)
    _, start = tx.update(None, tx.init(params), params, loss_fn=quadratic)
    updates, state = jax.jit(
        lambda s: tx.update(None, s, params, loss_fn=overflows_near(there))
    )(start)
    np.testing.assert_array_equal(updates, 0.0)
    jax.tree.map(np.testing.assert_array_equal, state.inner, start.inner)
    assert (float(state.scale), int(state.good_steps), int(state.skipped)) == (512, 0, 1)
    updates, state = tx.update(None, state, params, loss_fn=quadratic)  # and it goes on
    assert jnp.all(jnp.isfinite(updates)) and jnp.any(updates != 0)


def test_the_scale_grows_and_has_ends():
    tx = dj.scale_loss(dj.sam(), 2.0**23, growth_interval=2)
    state, scales = tx.init(params), []
    for _ in range(5):
        _, state = tx.update(None, state, params, loss_fn=quadratic)
        scales.append(float(state.scale))
    assert scales == [2.0**23, 2.0**24, 2.0**24, 2.0**24, 2.0**24]
    tx = dj.scale_loss(dj.sam(), 2.0)
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(None, state, params, loss_fn=overflows_near(params))
    assert float(state.scale) == 1.0 and int(state.skipped) == 3


def test_float16_gradients_that_vanish_without_it():
    """A loss of gradients near 1e-9: nothing in float16, right with a scale."""

    def loss_fn(w):
        return jnp.float16(1e-4) * jnp.sum(jnp.float16(1e-5) * w.astype(jnp.float16) ** 2)

    plain = dj.erm().update(None, dj.erm().init(params), params, loss_fn=loss_fn)[0]
    tx = dj.scale_loss(dj.erm(), 2.0**15)
    scaled, _ = tx.update(None, tx.init(params), params, loss_fn=loss_fn)
    np.testing.assert_array_equal(plain, 0.0)
    np.testing.assert_allclose(scaled, 2e-9 * params, rtol=0.05)


def test_with_records_in_a_scan_and_micro_batches():
    tx = dj.scale_loss(optax.chain(dj.per_micro_batch(dj.sam()), optax.adam(0.1)))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(
            None,
            state,
            params,
            loss_fn=lambda w, x: jnp.sum((w - x) ** 2),
            micro_batches=jnp.ones((3, 2)),
            record=True,
        )
        seen, state = dj.pop_evaluation(state)
        return (optax.apply_updates(params, updates), state), seen.losses

    (_, state), losses = jax.lax.scan(step, (params, tx.init(params)), None, length=4)
    assert losses.shape == (4, 3, 1) and int(state.good_steps) == 4


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_function_of_it_is_that_of_the_method(x64, method):
    tx = dj.scale_loss(METHODS[method])
    (_, scaled), state = dj.value_and_grad(quadratic, tx)(params, tx.init(params))
    plain, _ = METHODS[method].update(
        None, METHODS[method].init(params), params, loss_fn=quadratic
    )
    np.testing.assert_allclose(scaled, plain, rtol=1e-12)
    assert int(state.good_steps) == 1


def test_each_micro_batch_may_have_its_own(x64):
    each = [dj.per_micro_batch(tx) for tx in (dj.scale_loss(dj.sam(0.5)), dj.sam(0.5))]
    options = {
        "loss_fn": lambda w, x: jnp.sum((w - x) ** 2),
        "micro_batches": jnp.array([[0.0, 1.0], [3.0, 5.0]]),
    }
    found, plain = (tx.update(None, tx.init(params), params, **options)[0] for tx in each)
    np.testing.assert_allclose(found, plain, rtol=1e-12)


def test_another_scale_beside_it_is_refused():
    tx = dj.scale_loss(dj.sam())
    options = {"loss_fn": quadratic, "loss_scale": 2.0}
    with pytest.raises(ValueError, match=r"finds the scale by itself; got loss_scale=2\.0"):
        tx.update(None, tx.init(params), params, **options)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"scale": 0.0}, "scale must be positive and finite; got 0.0"),
        ({"scale": float("nan")}, "scale must be positive and finite; got nan"),
        ({"growth_interval": 0}, "growth_interval must be an integer >= 1; got 0"),
    ],
)
def test_bad_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        dj.scale_loss(dj.sam(), **bad)
