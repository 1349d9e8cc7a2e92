"""The loss over batches is that of the whole: in value, in memory, on any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import disam_jax as dj
from disam_jax import diagnostics

KEY = jax.random.key(0)
DOMAINS, BATCHES, SIZE = 2, 6, 8


def losses(params, batch):
    x = batch["x"]  # [M, B, 3]
    return jnp.mean((jnp.tanh(x @ params["a"]) @ params["b"] - batch["y"]) ** 2, axis=1)


def problem():
    rng = np.random.default_rng(0)
    batches = {
        "x": rng.normal(size=(BATCHES, DOMAINS, SIZE, 3)),
        "y": rng.normal(size=(BATCHES, DOMAINS, SIZE)),
    }
    params = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    return jax.tree.map(jnp.asarray, (params, batches))


def measures(losses, params):
    def mean(params):
        return losses(params).mean()

    return {
        "losses": losses(params),
        "worst case": diagnostics.worst_case_sharpness(
            losses, params, 0.1, KEY, steps=3, ascent=dj.weighted_mean
        ),
        "trace": diagnostics.hessian_trace(mean, params, KEY, samples=2),
    }


def assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)


def test_over_batches_is_over_the_whole(x64):
    params, batches = problem()
    whole = {
        "x": jnp.concatenate(list(batches["x"]), axis=1),
        "y": jnp.concatenate(list(batches["y"]), axis=1),
    }
    found = measures(diagnostics.over_batches(losses, batches), params)
    assert_same(found, measures(lambda params: losses(params, whole), params))


def test_many_losses_in_half_precision_are_summed_in_float32():
    """In bfloat16 a sum of 2.25 stands still at 1024."""
    over = diagnostics.over_batches(
        lambda w, batch: w * batch, jnp.ones(2000, jnp.bfloat16)
    )
    mean = over(jnp.array(2.25, jnp.bfloat16))
    assert mean.dtype == jnp.float32
    assert float(mean) == 2.25


def test_over_batches_on_devices(x64):
    params, batches = problem()
    expected = measures(diagnostics.over_batches(losses, batches), params)
    mesh = jax.make_mesh(
        (4,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4]
    )
    cut = NamedSharding(mesh, PartitionSpec(None, None, "batch"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    over = diagnostics.over_batches(losses, jax.device_put(batches, cut))
    found = measures(over, jax.device_put(params, everywhere))
    assert_same(found, expected)


def test_the_memory_is_that_of_one_batch(optimized):
    def temporary(num, measured):
        wide = {"a": jnp.ones((3, 512)), "b": jnp.ones(512)}
        batches = {"x": jnp.ones((num, 1, 256, 3)), "y": jnp.ones((num, 1, 256))}
        over = diagnostics.over_batches(losses, batches)
        compiled = (
            jax.jit(lambda w: measured(lambda w: over(w)[0], w)).lower(wide).compile()
        )
        return compiled.memory_analysis().temp_size_in_bytes

    def gradient(loss, w):
        return jax.grad(loss)(w)

    def product(loss, w):
        return diagnostics.hessian_product(loss, w, w)

    for measured in (gradient, product):
        one, eight = (temporary(num, measured) for num in (2, 16))
        activations = 256 * 512 * 4  # of one layer and batch, in bytes
        assert one > activations / 2
        assert eight < one + activations


@pytest.mark.parametrize("batches", [(), np.ones(()), np.ones((0, 2))])
def test_no_batches(batches):
    with pytest.raises(ValueError, match="one K >= 1"):
        diagnostics.over_batches(losses, batches)
