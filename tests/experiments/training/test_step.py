import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.tpu_compile import collectives
from experiments.config.protocols import IN_MEMORY
from experiments.data.batches import Batch
from experiments.devices import all_devices, one_device
from experiments.methods.registry import METHODS
from experiments.models.classifier import make_classifier
from experiments.models.small import merge_patches
from experiments.training.evaluation import CHUNK, in_chunks, score
from experiments.training.optimizer import learning_rate_schedule
from experiments.training.pattern import Numbers
from experiments.training.program import Program, begin
from experiments.training.step import compile_step
from tests.float32 import BOUND, assert_close

CLASSES, SIZE = 3, 16
NAMES = tuple("abc")
REDUCTIONS = ("all-reduce", "reduce-scatter")
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH = Batch(
    jnp.asarray(RNG.uniform(size=(8, SIZE, SIZE, 3)), jnp.float32),
    jnp.asarray(RNG.integers(0, CLASSES, 8)),
    jnp.repeat(jnp.arange(2), 4),
    jax.random.key(7),
)
SMALL = dataclasses.replace(IN_MEMORY, steps=10, image_size=SIZE)
SGD = dataclasses.replace(SMALL, optimizer="sgd", learning_rate=0.1, weight_decay=0.0)


def program(method="erm", preset=SGD):
    own = METHODS[method]
    return Program(own, own.defaults, preset, NAMES, num_domains=2)


def fresh(program):
    return begin(program, KEY, one_device())[0]


def take_step(program, state, batch=BATCH):
    _, frozen = begin(program, KEY, one_device())
    return compile_step(program, one_device())(Numbers({}, {}), frozen, state, batch)


def test_erm_step_is_plain_sgd_on_the_mean_loss():
    model, erm = make_classifier("patchnet", CLASSES), program()

    @jax.jit
    def by_hand(params, velocity, rate):
        def loss(params):
            logits, _ = model.apply({"params": params}, BATCH.images, train=True)
            return jnp.mean(
                optax.softmax_cross_entropy_with_integer_labels(logits, BATCH.labels)
            )

        value, grads = jax.value_and_grad(loss)(params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
        return jax.tree.map(lambda w, v: w - rate * v, params, velocity), velocity, value

    state = fresh(erm)
    params = jax.tree.map(jnp.copy, state.params)
    velocity = optax.tree.zeros_like(params)
    rate = learning_rate_schedule(SGD)
    for step in range(4):
        params, velocity, value = by_hand(params, velocity, rate(step))
        state, evaluation = take_step(erm, state)
        assert_close(evaluation.losses.mean(), value)
    assert_close(state.params, params)
    assert state.step == 4


@pytest.mark.parametrize(
    ("method", "model"),
    [(name, "patchnet") for name in ("erm", "asam", "sagm", "disam+gsam")]
    + [("disam", "resnet")],
)
def test_every_method_trains_every_model_with_one_state_tree(method, model):
    preset = dataclasses.replace(SGD, model=model)
    own = program(method, preset)
    state = fresh(own)
    before = jax.tree.structure(state)
    state, evaluation = take_step(own, state)
    assert jax.tree.structure(state) == before
    assert evaluation.losses.shape == (2,)
    rho = METHODS[method].defaults.rho
    if method in ("sam", "gsam", "disam", "disam+gsam"):
        assert_close(evaluation.perturbation_norm, rho)
    assert (evaluation.perturbation_norm == 0) == (method == "erm")


def test_only_the_method_differs_between_methods():
    some = ("erm", "asam", "sagm", "disam+gsam")
    first = [take_step(program(m), fresh(program(m)))[1].losses for m in some]
    for losses in first[1:]:
        assert_close(losses, first[0])


def test_batch_norm_statistics_move_once_per_step():
    preset = dataclasses.replace(SGD, model="resnet")

    def moved(method):
        own = program(method, preset)
        return take_step(own, fresh(own))[0].batch_stats

    assert_close(moved("disam"), moved("erm"))  # a second time they move by a tenth


def test_scores_leave_the_filling_out_and_keep_parts_apart():
    count = CHUNK + 9
    logits = RNG.normal(size=(count, CLASSES)).astype(np.float32)
    labels = RNG.integers(0, CLASSES, count)
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]  # each names itself
    shapes = []

    def predict(images):
        shapes.append(images.shape)
        return logits[images[:, 0, 0, 0]]

    cuts = {"a": slice(0, 50), "b": slice(50, 57), "c": slice(57, count)}
    parts = {name: in_chunks(images[cut], labels[cut]) for name, cut in cuts.items()}
    found = score(predict, parts)
    assert shapes == [(CHUNK, 1, 1, 1)] * 2
    right = logits.argmax(1) == labels
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    for name, cut in cuts.items():
        assert found[name].count == len(labels[cut])
        assert found[name].accuracy == pytest.approx(right[cut].mean())
        assert found[name].loss == pytest.approx(float(losses[cut].mean()), rel=1e-5)
    with pytest.raises(ValueError, match="no images to evaluate on in empty"):
        score(predict, {"empty": []})


def test_of_a_linear_tuning_the_backbone_is_no_part_of_the_state():
    own = program("disam", dataclasses.replace(SGD, tuning="linear"))
    whole = program("disam")
    assert fresh(own).params.keys() == {"head"}
    count = sum(leaf.size for leaf in jax.tree.leaves(fresh(own)))
    of_head = sum(leaf.size for leaf in jax.tree.leaves(fresh(own).params))
    assert count < 2 * of_head + 10  # the head, its momentum, counters
    _, frozen = begin(own, KEY, one_device())
    jax.tree.map(
        np.testing.assert_array_equal, frozen["backbone"], fresh(whole).params["backbone"]
    )
    before = np.asarray(fresh(own).params["head"]["kernel"])
    state, evaluation = take_step(own, fresh(own))
    assert_close(evaluation.perturbation_norm, 0.05)
    assert_close(evaluation.losses, take_step(whole, fresh(whole))[1].losses)
    state, _ = take_step(own, state)  # the warm-up's first rate is 0
    assert (state.params["head"]["kernel"] != before).any()


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_scale():
    preset = dataclasses.replace(SGD, model="resnet", batch_norm="frozen")
    own = program("disam", preset)
    first = jax.tree.map(np.asarray, fresh(own))
    state, _ = take_step(own, take_step(own, fresh(own))[0])
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, first.batch_stats)
    norm = ("backbone", "BatchNorm_0", "scale")
    ours, theirs = state.params, first.params
    for name in norm:
        ours, theirs = ours[name], theirs[name]
    assert (ours != theirs).any()


def test_absent_domains_of_a_merged_batch_take_part_in_nothing():
    """A batch of one domain alone gives the step of a run that has only that domain."""
    alone = BATCH._replace(domains=jnp.zeros(8, jnp.int32))
    for method in ("disam", "sam"):
        own = program(method)
        _, evaluation = take_step(own, fresh(own), alone)
        assert evaluation.losses[1] == 0.0
        np.testing.assert_allclose(evaluation.ascent_weights, [1.0, 0.0], atol=1e-7)


def test_a_penalty_joins_every_domain_s_loss():
    plain = program("disam")
    added = program("disam", dataclasses.replace(SGD, penalty="coral", penalty_weight=2.0))
    losses = [take_step(p, fresh(p))[1].losses for p in (plain, added)]
    difference = losses[1] - losses[0]
    assert difference[0] > 0.0
    assert abs(difference[0] - difference[1]) < BOUND * losses[1].max()


def test_bfloat16_computes_in_half_and_keeps_float32_parameters():
    own = program("disam", dataclasses.replace(SGD, dtype="bfloat16"))
    state, evaluation = take_step(own, fresh(own))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    whole = program("disam")
    _, exact = take_step(whole, fresh(whole))
    np.testing.assert_allclose(evaluation.losses, exact.losses, rtol=0.05)  # 2^-9 a layer
    assert (evaluation.losses != exact.losses).any()


def test_dropout_is_a_function_of_the_batch_s_key():
    own = program("erm", dataclasses.replace(SGD, dropout=0.5))
    losses = [
        take_step(own, fresh(own), BATCH._replace(key=jax.random.key(k)))[1].losses
        for k in (0, 0, 1)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert (losses[0] != losses[2]).any()


def test_merge_patches_keeps_each_patch_together():
    x = jnp.arange(2 * 4 * 4 * 1).reshape(2, 4, 4, 1)
    merged = merge_patches(x, 2)
    assert merged.shape == (2, 2, 2, 4)
    np.testing.assert_array_equal(merged[1, 0, 1], x[1, 0:2, 2:4].ravel())


def test_default_model_has_the_documented_size():
    params = fresh(program(preset=dataclasses.replace(IN_MEMORY, steps=1))).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 131_691


@pytest.mark.parametrize(("method", "passes"), [("erm", 1), ("sam", 2), ("disam", 2)])
def test_a_pass_gathers_weights_that_lie_in_parts_and_moves_no_activation(method, passes):
    own, layout = program(method), all_devices(4, "sharded")
    state, frozen = begin(own, KEY, layout)
    lowered = compile_step(own, layout).lower(Numbers({}, {}), frozen, state, BATCH)
    found = collectives(lowered.compile().as_text())
    leaves = jax.tree.leaves(state.params)
    parts = [leaf.nbytes for leaf in leaves if not leaf.sharding.is_fully_replicated]
    assert len(parts) > 1
    assert found.pop("all-gather")["bytes"] == passes * sum(parts)
    reduced = sum(found.pop(k, {"bytes": 0})["bytes"] for k in REDUCTIONS)
    numbers = 256  # bytes a pass: losses and counts of the domains, norms
    assert reduced <= passes * (sum(leaf.nbytes for leaf in leaves) + numbers)
    assert not found
