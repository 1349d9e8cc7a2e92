"""Linen's training state with a BatchNorm model, as a user would write it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training import train_state

import disam_jax as dj
from tests.float32 import assert_close

DOMAINS, BATCH, FEATURES, CLASSES = 3, 8, 5, 4
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(DOMAINS, BATCH, FEATURES)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, CLASSES, size=(DOMAINS, BATCH)))


def domain_losses(logits):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, Y.reshape(-1))
    return losses.reshape(DOMAINS, BATCH).mean(axis=1)


def expected_statistics(hidden, decay=0.9):
    """One step of running statistics from (0, 1), by hand."""
    return (1 - decay) * hidden.mean(0), decay + (1 - decay) * hidden.var(0)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="first")(x)
        x = nn.BatchNorm(use_running_average=False, momentum=0.9, name="norm")(x)
        return nn.Dense(CLASSES, name="last")(nn.relu(x))


def test_linen_train_state():
    class TrainState(train_state.TrainState):
        batch_stats: dict
        sharpness: optax.OptState

    model, sharpness = Linen(), dj.disam(rho=0.5, lam=0.1)
    variables = model.init(jax.random.key(0), X.reshape(-1, FEATURES))
    state = TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=optax.adam(1e-2),
        batch_stats=variables["batch_stats"],
        sharpness=sharpness.init(variables["params"]),
    )

    def loss_fn(params, batch_stats, x):
        logits, moved = model.apply(
            {"params": params, "batch_stats": batch_stats},
            x.reshape(-1, FEATURES),
            mutable=["batch_stats"],
        )
        return domain_losses(logits), moved["batch_stats"]

    grad_fn = dj.value_and_grad(loss_fn, sharpness, has_aux=True)

    @jax.jit
    def train_step(state, x):
        (evaluation, grads), sharpness_state = grad_fn(
            state.params, state.sharpness, state.batch_stats, x
        )
        state = state.apply_gradients(
            grads=grads, batch_stats=evaluation.aux, sharpness=sharpness_state
        )
        return state, evaluation

    first = variables["params"]["first"]
    hidden = X.reshape(-1, FEATURES) @ first["kernel"] + first["bias"]
    state, evaluation = train_step(state, X)
    mean, var = expected_statistics(hidden)
    assert_close(state.batch_stats["norm"], {"mean": mean, "var": var})
    assert_close(evaluation.perturbation_norm, 0.5)
    state, _ = train_step(state, X)
    assert state.sharpness.count == state.step == 2


def test_train_state_alone_says_what_to_do():
    """TrainState.apply_gradients passes no loss_fn on: the error must name the way out."""
    model = Linen()
    params = model.init(jax.random.key(0), X[0])["params"]
    state = train_state.TrainState.create(
        apply_fn=model.apply, params=params, tx=optax.chain(dj.sam(0.1), optax.sgd(0.1))
    )
    with pytest.raises(ValueError, match=r"disam_jax\.value_and_grad"):
        state.apply_gradients(grads=params)
