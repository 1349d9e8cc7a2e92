"""A filtered module of Equinox with BatchNorm and dropout, as a user would write it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import disam_jax as dj
from tests.float32 import assert_close

DOMAINS, BATCH, FEATURES, CLASSES = 3, 8, 5, 4
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(DOMAINS, BATCH, FEATURES)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, CLASSES, size=(DOMAINS, BATCH)))


class Model(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    last: eqx.nn.Linear
    steps: jax.Array  # no number that is trained
    activation: Callable

    def __init__(self, key):
        first, last = jax.random.split(key)
        self.first = eqx.nn.Linear(FEATURES, 6, key=first)
        self.norm = eqx.nn.BatchNorm(6, "batch", momentum=0.9, mode="batch")
        self.dropout = eqx.nn.Dropout(0.3)
        self.last = eqx.nn.Linear(6, CLASSES, key=last)
        self.steps, self.activation = jnp.array(0), jax.nn.relu

    def __call__(self, x, statistics, key):
        hidden, statistics = self.norm(self.first(x), statistics)
        hidden = self.dropout(self.activation(hidden), key=key)
        return self.last(hidden), statistics


def loss_fn(model, statistics, key):
    axes = {"in_axes": (0, None, 0), "out_axes": (0, None), "axis_name": "batch"}
    keys = jax.random.split(key, DOMAINS * BATCH)
    logits, moved = jax.vmap(model, **axes)(X.reshape(-1, FEATURES), statistics, keys)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, Y.reshape(-1))
    return losses.reshape(Y.shape).mean(axis=1), moved


def test_a_filtered_module_with_statistics_and_dropout():
    model, statistics = eqx.nn.make_with_state(Model)(jax.random.key(0))
    # Only the last layer is trained, and perturbed.
    mask = jax.tree.map(lambda _: False, model)
    last = jax.tree.map(eqx.is_inexact_array, model.last)
    mask = eqx.tree_at(lambda model: model.last, mask, last)
    tx = optax.chain(dj.disam(rho=0.5, lam=0.1), optax.adam(1e-2))

    @eqx.filter_jit
    def train_step(model, statistics, state, key):
        params, rest = eqx.partition(model, mask)
        updates, state = tx.update(
            None,
            state,
            params,
            loss_fn=lambda params: loss_fn(eqx.combine(params, rest), statistics, key),
            has_aux=True,
            record=True,
        )
        evaluation, state = dj.pop_evaluation(state)
        model = eqx.apply_updates(model, updates)
        return model, evaluation.aux, state, evaluation._replace(aux=None)

    state = tx.init(eqx.filter(model, mask))
    after, moved, state, evaluation = train_step(
        model, statistics, state, jax.random.key(1)
    )
    assert_close(evaluation.perturbation_norm, 0.5)
    assert_close(evaluation.losses, loss_fn(model, statistics, jax.random.key(1))[0])
    hidden = jax.vmap(model.first)(X.reshape(-1, FEATURES))
    mean, var = moved.get(after.norm.batch_state_index)
    assert_close((mean, var), (0.1 * hidden.mean(0), 0.9 + 0.1 * hidden.var(0)))
    assert eqx.tree_equal(after.first, model.first) and after.steps == model.steps
    assert np.all(after.last.weight != model.last.weight)
