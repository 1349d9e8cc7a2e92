"""Objectives with memory, in every method's two slots: GroupDRO."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from tests.three_domains import START, first_gradient, loss_fn, params_of


def walk(tx, steps, params=None, loss_fn=loss_fn, **options):
    """The last gradient and state of so many steps."""
    params = params_of(START) if params is None else params
    state, gradients = tx.init(params), None
    for _ in range(steps):
        gradients, state = tx.update(None, state, params, loss_fn=loss_fn, **options)
        after, _ = tx_sgd.update(gradients, tx_sgd.init(params), params)
        params = optax.apply_updates(params, after)
    return gradients, state


tx_sgd = optax.sgd(0.05)


def q_of(state, which=1, count=3):
    return jax.nn.softmax(state.memories[which][:count])


def test_group_dro_is_domainbed_s(x64):
    """To the digits of their `GroupDRO` with eta 0.01, before SGD of rate 0.05."""
    tx = dj.erm(descent=dj.group_dro(0.01))
    _, state = walk(tx, 1)
    recorded = (0.3220408474, 0.3239303076, 0.354028845)
    np.testing.assert_allclose(q_of(state), recorded, atol=1e-10)
    expected = (-3.5008228829, -2.1999734347, 0.2349851445)
    expected += (0.4319879976, 7.5799699939, -1.0368197466)
    np.testing.assert_allclose(first_gradient(tx), expected, atol=1e-9)
    _, state = walk(tx, 3)
    recorded = (0.3105719375, 0.3104279718, 0.3790000908)
    np.testing.assert_allclose(q_of(state), recorded, atol=1e-10)


def test_as_ascent_it_remembers_what_was_climbed(x64):
    tx = dj.sam(0.1, ascent=dj.group_dro(0.01))
    _, state = tx.update(
        None, tx.init(params_of(START)), params_of(START), loss_fn=loss_fn, record=True
    )
    evaluation, state = dj.pop_evaluation(state)
    recorded = (0.3220408474, 0.3239303076, 0.354028845)
    np.testing.assert_allclose(q_of(state, 0), recorded, atol=1e-10)
    np.testing.assert_allclose(evaluation.ascent_weights, recorded, atol=1e-10)
    assert state.memories[1] == ()
    weighted = dj.sam(0.1, ascent=lambda losses, weights: losses @ jnp.array(recorded))
    np.testing.assert_allclose(first_gradient(tx), first_gradient(weighted), rtol=1e-8)


def test_descended_losses_are_those_at_the_perturbed_point(x64):
    tx = dj.sam(0.5, descent=dj.group_dro(0.1))
    _, state = tx.update(
        None, tx.init(params_of(START)), params_of(START), loss_fn=loss_fn, record=True
    )
    evaluation, state = dj.pop_evaluation(state)
    expected = jax.nn.softmax(0.1 * evaluation.perturbed_losses)
    np.testing.assert_allclose(q_of(state), expected, rtol=1e-10)


METHODS = {
    "sam": dj.sam,
    "gsam": lambda **slots: dj.gsam(0.1, 0.1, **slots),
    "late_sam": lambda **slots: dj.late_sam(0.1, start=1, **slots),
    "looksam": lambda **slots: dj.looksam(0.1, period=2, **slots),
    "ae_sam": lambda **slots: dj.ae_sam(0.1, **slots),
    "multi_step_sam": lambda **slots: dj.multi_step_sam(0.1, steps=2, **slots),
    "bilateral_sam": dj.bilateral_sam,
    "gam": dj.gam,
    "one_pass": lambda **slots: dj.one_pass(dj.ascend(0.1), **slots),
    "wsam_decoupled": lambda **slots: dj.wsam_decoupled(
        optax.sgd(0.1), learning_rate=0.1, rho=0.1, **slots
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_remembers_alike(name):
    """Two steps in a scan, so that the state keeps its tree, whichever steps ascend."""
    tx = METHODS[name](ascent=dj.group_dro(0.3), descent=dj.group_dro(0.1))
    start = tx.init(params_of(START))

    def step(state, _):
        updates, state = tx.update(None, state, params_of(START), loss_fn=loss_fn)
        return state, updates

    state, _ = jax.lax.scan(step, start, None, length=2)
    ascent, descent = optax.tree.get(state, "memories")
    losses = loss_fn(
        params_of(START)
    )  # at w; those that were climbed are, but of a one-pass step
    if name not in ("one_pass",):
        np.testing.assert_allclose(
            ascent[:3], 0.6 * (losses - losses.max()), rtol=1e-5, atol=1e-5
        )
    assert float(jnp.ptp(descent[:3])) > 0.1 * float(jnp.ptp(losses))
    np.testing.assert_array_equal(descent[3:], 0.0)


def test_an_absent_domain_keeps_its_weight(x64):
    tx = dj.erm(descent=dj.group_dro(0.1))
    params, losses = jnp.zeros(3), jnp.array([1.0, 2.0, 3.0])

    def loss_fn(w):
        return w + losses

    state = tx.init(params)
    weights = jnp.array([1.0, 0.0, 1.0])
    first, state = tx.update(None, state, params, loss_fn=loss_fn, domain_weights=weights)
    two = jax.nn.softmax(0.1 * losses[jnp.array([0, 2])])
    np.testing.assert_allclose(first, [two[0], 0.0, two[1]], rtol=1e-10)
    second, _ = tx.update(None, state, params, loss_fn=loss_fn)
    expected = jax.nn.softmax(jnp.array([0.2, 0.2, 0.6]))
    np.testing.assert_allclose(second, expected, rtol=1e-10)


def test_eta_follows_a_schedule(x64):
    tx = dj.erm(descent=dj.group_dro(lambda count: 0.1 * count))
    params, state = jnp.zeros(2), None
    state = tx.init(params)
    found = []
    for _ in range(3):
        losses, state = tx.update(
            None, state, params, loss_fn=lambda w: w + jnp.array([0.0, 1.0])
        )
        found.append(losses)
    expected = [jax.nn.softmax(jnp.array([0.0, total])) for total in (0.0, 0.1, 0.3)]
    np.testing.assert_allclose(jnp.stack(found), jnp.stack(expected), rtol=1e-10)


def test_more_domains_than_there_is_room_for():
    tx = dj.erm(descent=dj.group_dro(0.01, max_domains=2))
    with pytest.raises(ValueError, match="room for 2 domains, and there are 3: give max"):
        first_gradient(tx)
    with pytest.raises(ValueError, match="eta must be finite and >= 0"):
        dj.group_dro(-1.0)


def test_a_memory_of_one_s_own(x64):
    """The step's number, in a few lines."""

    def at(memory):
        return lambda losses, weights: dj.weighted_mean(losses, weights) * (1 + memory)

    mean = dj.Remembering(
        init=lambda params: jnp.zeros(()),
        at=at,
        remember=lambda memory, losses, weights: memory + 1,
    )
    gradients, state = walk(dj.erm(descent=mean), 2, params=jnp.ones(2), loss_fn=jnp.sum)
    np.testing.assert_allclose(gradients, 2.0)
    assert state.memories[1] == 2
