import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from experiments.config.preset import Preset
from experiments.methods import METHODS
from experiments.training.optimizer import (
    learning_rate_schedule,
    make_chain,
    make_optimizer,
)


def test_learning_rate_warms_up_and_ends_at_zero():
    rate = learning_rate_schedule(Preset(steps=100, schedule="cosine", learning_rate=0.4))
    assert [float(rate(t)) for t in (0, 5, 100)] == pytest.approx([0.0, 0.4, 0.0])
    middle = 0.2 * (1 + np.cos(np.pi * 45 / 95))
    assert float(rate(50)) == pytest.approx(middle, rel=1e-5)


def test_constant_and_step_schedules():
    constant = learning_rate_schedule(Preset(steps=10, learning_rate=0.1))
    assert [float(constant(t)) for t in (0, 9)] == pytest.approx([0.1, 0.1])
    step = learning_rate_schedule(Preset(steps=10, schedule="step", learning_rate=0.1))
    assert [float(step(t)) for t in (0, 7, 8, 9)] == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_adam_has_torch_s_coupled_decay():
    """Two steps on one weight, by the formula of torch.optim.Adam."""
    preset = Preset(steps=2, learning_rate=0.1, weight_decay=0.5)
    tx = make_optimizer(preset)
    w, state, m, v, expected = jnp.array(2.0), tx.init(jnp.array(2.0)), 0.0, 0.0, 2.0
    for t, gradient in enumerate((0.3, -4.0), start=1):
        g = gradient + 0.5 * expected
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        expected -= 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        updates, state = tx.update(jnp.array(gradient), state, w)
        w = optax.apply_updates(w, updates)
    assert float(w) == pytest.approx(expected, rel=1e-5)


def by_hand(rate, decay):
    decayed = optax.add_decayed_weights(decay)
    genie = optax.chain(decayed, dj.genie(rate))
    polyak = optax.chain(dj.sam(0.05), decayed)
    return {
        "genie": optax.chain(dj.erm(), genie),
        "disam+genie": optax.chain(dj.disam(), genie),
        "bsam": optax.chain(dj.bsam(1e4, weight_decay=decay), optax.sgd(rate)),
        "sassha": optax.chain(dj.sassha(), decayed, optax.sgd(rate)),
        "polyak_sam": dj.polyak_step(polyak, rate),
    }


def path_of(tx):
    def loss_fn(w):
        return jnp.stack([jnp.sum(w**4), jnp.sum((w - 1) ** 2)])

    @jax.jit
    def step(w, state):
        updates, state = tx.update(None, state, w, loss_fn=loss_fn)
        return optax.apply_updates(w, updates), state

    w, path = jnp.array([1.0, -2.0, 0.5]), []
    state = tx.init(w)
    for _ in range(3):
        w, state = step(w, state)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("name", by_hand(0.1, 0.1))
def test_what_brings_its_optimizer_has_its_own_rate_and_the_presets_schedule(name):
    preset = Preset(steps=40, schedule="cosine", learning_rate=9.0, weight_decay=0.1)
    own = dataclasses.replace(METHODS[name].defaults, own_rate=0.02)
    rate = learning_rate_schedule(dataclasses.replace(preset, learning_rate=0.02))
    found = path_of(make_chain(METHODS[name], own, preset))
    np.testing.assert_allclose(found, path_of(by_hand(rate, 0.1)[name]), rtol=1e-6)
    assert len(np.unique(found, axis=0)) == 3  # the first step's rate is 0


def test_every_method_with_an_optimizer_of_its_own_is_tested():
    own = {name for name, method in METHODS.items() if method.optimizer is not None}
    assert own == set(by_hand(0.1, 0.1))


def test_sampa_goes_ahead_at_the_rate_of_the_run():
    preset = Preset(steps=9, optimizer="sgd", learning_rate=0.03)
    sampa = METHODS["sampa"]
    by_hand = optax.chain(dj.sampa(0.03), optax.sgd(0.03, momentum=0.9))
    found = path_of(make_chain(sampa, sampa.defaults, preset))
    np.testing.assert_allclose(found, path_of(by_hand), rtol=1e-6)
