import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config.preset import Preset
from experiments.training.optimizer import learning_rate_schedule, make_optimizer


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
