"""What a step takes at once, what its perturbation is computed on, and in which dtype."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config.preset import Preset
from experiments.models.classifier import make_classifier
from experiments.training.metrics import RunDivergedError, train_line
from tests.experiments.training.test_step import (
    BATCH,
    CLASSES,
    SGD,
    fresh,
    program,
    take_step,
)
from tests.float32 import assert_close


def changed(**fields):
    return dataclasses.replace(SGD, schedule="constant", dropout=0.0, **fields)


def after(preset, steps=1):
    sam = program("sam", preset)  # the same in all tests: it is compiled once
    state, seen = fresh(sam), []
    for _ in range(steps):
        state, evaluation = take_step(sam, state)
        seen.append(jax.device_get(evaluation))
    return jax.device_get(state), seen


def test_a_batch_in_micro_batches_is_the_batch():
    whole, seen = after(changed(), steps=3)
    micro_batches, seen_in_micro_batches = after(changed(micro_batches=2), steps=3)
    assert_close(whole.params, micro_batches.params)
    assert_close(seen, seen_in_micro_batches)


@pytest.mark.parametrize(
    ("preset", "parts"),
    [
        (changed(scope="micro_batch", micro_batches=2), [slice(0, 8, 2), slice(1, 8, 2)]),
        (changed(scope="domain"), [slice(0, 4), slice(4, 8)]),
    ],
    ids=["micro_batch", "domain"],
)
def test_every_piece_climbs_by_itself(preset, parts):
    model = make_classifier("patchnet", CLASSES)
    params = jax.device_get(fresh(program("sam", preset)).params)

    @jax.jit
    def sam_gradient(params, images, labels):
        def loss(params):
            logits, _ = model.apply({"params": params}, images, train=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses)

        g = jax.grad(loss)(params)
        scale = 0.05 / optax.tree.norm(g)
        return jax.grad(loss)(jax.tree.map(lambda w, g: w + scale * g, params, g))

    images, labels = np.asarray(BATCH.images), np.asarray(BATCH.labels)
    grads = [jax.device_get(sam_gradient(params, images[at], labels[at])) for at in parts]
    expected = jax.tree.map(lambda w, a, b: w - 0.1 * (a + b) / 2, params, *grads)
    state, seen = after(preset)
    assert_close(state.params, expected)
    _, whole = after(changed())
    assert_close(seen[0].losses, whole[0].losses)
    assert_close(seen[0].perturbation_norm, np.full(2, 0.05))


def test_scope_domain_needs_whole_domains():
    with pytest.raises(ValueError, match="scope domain takes each domain as a micro-batch"):
        Preset(scope="domain", micro_batches=2)
    with pytest.raises(ValueError, match=r"batching must be balanced .* got merged"):
        Preset(scope="domain", batching="merged")


def test_half_precision_is_logged_and_near_float32():
    float32, _ = after(changed())
    for dtype in ("bfloat16", "float16"):
        half, seen = after(changed(dtype=dtype))
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(half.params))
        assert_close(half.params, float32.params, 0.1)  # 16 roundings of up to 2^-8
        line = train_line(1, ["a", "b"], jax.device_get(seen), 0.1, dtype == "float16")
        assert 0 < line["realized_cosine"] < 1 and line["realized_length_ratio"] > 1


def test_a_perturbed_pass_in_float32():
    """At w in bfloat16, at w + eps in float32: the gradient is the latter's."""
    preset = changed(dtype="bfloat16", perturbed_dtype="float32")
    mixed = after(preset)[0].params
    whole = after(changed())[0].params
    half = after(changed(dtype="bfloat16"))[0].params

    def distance(params):
        differences = jax.tree.map(np.subtract, params, whole)
        return sum(np.sum(x**2) for x in jax.tree.leaves(differences)) ** 0.5

    assert distance(mixed) < distance(half) / 5


def test_float16_skips_what_overflows_and_goes_on():
    preset = changed(dtype="float16")
    sam = program("sam", preset)
    state = fresh(sam)
    too_large = BATCH._replace(images=BATCH.images * 1e6)
    before = jax.device_get(state.params)
    state, seen = take_step(sam, state, too_large)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), before)
    assert int(state.opt_state.skipped) == 1 and int(state.step) == 1
    state, good = take_step(sam, state)
    assert int(state.opt_state.good_steps) == 1
    window = jax.device_get([seen, good])
    line = train_line(2, ["a", "b"], window, 0.1, may_overflow=True)
    assert line["skipped_steps"] == 1 and np.isfinite(line["loss/a"])
    with pytest.raises(RunDivergedError, match="all steps from 2 to 2 overflowed"):
        train_line(2, ["a", "b"], window[:1], 0.1, may_overflow=True)
