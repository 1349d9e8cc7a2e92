"""What a user writes, for type checkers that see the installed package alone."""

from typing import assert_type

import jax
import jax.numpy as jnp
import optax

import disam_jax as dj


def loss_fn(params: optax.Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((x @ jnp.asarray(params) - y) ** 2, axis=1)


tx = optax.chain(dj.disam(rho=0.05, lam=0.1), optax.adam(1e-2))
grad_fn = dj.value_and_grad(loss_fn, dj.sagm(optax.linear_schedule(0.0, 0.05, 100)))


@jax.jit
def step(w: optax.Params, state: optax.OptState, x: jax.Array) -> optax.Params:
    # Optax has no type for "no gradients come in".
    updates, _ = tx.update(None, state, w, loss_fn=lambda w: loss_fn(w, x, x))  # type: ignore[arg-type]
    return optax.apply_updates(w, updates)


def losses(w: optax.Params, state: optax.OptState, x: jax.Array) -> jax.Array:
    (evaluation, _), state = grad_fn(w, state, x, x)
    assert_type(evaluation, dj.Evaluation)
    return evaluation.losses
