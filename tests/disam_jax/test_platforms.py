"""Every step can be lowered for the machines that it is to run on."""

import jax
import jax.numpy as jnp
import pytest

import disam_jax as dj
from tests.methods import COMPOSED, METHODS, wants_micro_batches

ALL = {name: tx for name, (tx, _) in METHODS.items()} | COMPOSED


@pytest.mark.parametrize("name", ALL)
def test_a_step_lowers_for_tpu_and_cuda(name):
    tx = ALL[name]
    params = {"norm": jnp.ones((4, 3)), "bias": jnp.ones(3)}
    x = jnp.ones((2, 5, 4))

    def losses(params, x):
        return jnp.mean(jnp.tanh(x @ params["norm"] + params["bias"]), axis=(-2, -1))

    def step(params, state, x):
        arguments = {"loss_fn": losses, "micro_batches": x}
        if not wants_micro_batches(name):
            arguments = {"loss_fn": lambda params: losses(params, x)}
        updates, state = tx.update(None, state, params, record=True, **arguments)
        return updates, dj.pop_evaluation(state)

    exported = jax.export.export(jax.jit(step), platforms=["tpu", "cuda"])(
        params, tx.init(params), x
    )
    assert exported.platforms == ("tpu", "cuda")
