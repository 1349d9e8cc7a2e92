import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.batches import Batch
from experiments.config import Preset
from experiments.methods import METHODS
from experiments.models import PatchNet, merge_patches
from experiments.training import accuracies, learning_rate_schedule, make_program

CLASSES, SIZE = 3, 16
RNG = np.random.default_rng(0)
BATCH = Batch(
    jnp.asarray(RNG.normal(size=(2, 4, SIZE, SIZE, 3)), jnp.float32),
    jnp.asarray(RNG.integers(0, CLASSES, (2, 4))),
)
SGD = Preset(
    steps=10, image_size=SIZE, optimizer="sgd", learning_rate=0.1, weight_decay=0.0
)


def program(method="erm", preset=SGD):
    return make_program(method, METHODS[method].defaults, preset, CLASSES)


def fresh(program):
    return program.init(jax.random.key(0), (SIZE, SIZE, 3))


def test_erm_step_is_plain_sgd_on_the_mean_loss():
    model, erm = PatchNet(num_classes=CLASSES), program()

    @jax.jit
    def by_hand(params, velocity, rate):
        def loss(params):
            logits = model.apply(
                {"params": params}, BATCH.images.reshape(-1, SIZE, SIZE, 3), train=True
            )
            return jnp.mean(
                optax.softmax_cross_entropy_with_integer_labels(
                    logits, BATCH.labels.ravel()
                )
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
        state, evaluation = erm.train_step(state, BATCH)
        np.testing.assert_allclose(evaluation.losses.mean(), value, rtol=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert state.step == 4


@pytest.mark.parametrize(
    ("method", "model"),
    [*((method, "patchnet") for method in METHODS), ("disam", "resnet")],
)
def test_every_method_trains_every_model_with_one_state_tree(method, model):
    preset = Preset(steps=10, image_size=SIZE, model=model)
    own = program(method, preset)
    state = fresh(own)
    before = jax.tree.structure(state)
    state, evaluation = own.train_step(state, BATCH)
    assert jax.tree.structure(state) == before
    assert evaluation.losses.shape == (2,)
    rho = METHODS[method].defaults.rho
    if method in ("sam", "gsam", "disam", "disam+gsam"):
        assert evaluation.perturbation_norm == pytest.approx(rho, rel=1e-5)
    assert (evaluation.perturbation_norm == 0) == (method == "erm")


def test_only_the_method_differs_between_methods():
    first = [program(m).train_step(fresh(program(m)), BATCH)[1].losses for m in METHODS]
    for losses in first[1:]:
        np.testing.assert_array_equal(losses, first[0])


def test_batch_norm_statistics_move_once_per_step():
    preset = Preset(steps=10, image_size=SIZE, model="resnet")

    def moved(method):
        own = program(method, preset)
        return own.train_step(fresh(own), BATCH)[0].batch_stats

    erm, disam = (jax.tree.leaves(moved(method)) for method in ("erm", "disam"))
    for ours, theirs in zip(disam, erm, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_learning_rate_warms_up_and_ends_at_zero():
    rate = learning_rate_schedule(Preset(steps=100, learning_rate=0.4))
    assert [float(rate(t)) for t in (0, 5, 100)] == pytest.approx([0.0, 0.4, 0.0])
    middle = 0.2 * (1 + np.cos(np.pi * 45 / 95))
    assert float(rate(50)) == pytest.approx(middle, rel=1e-5)


def test_accuracies_leave_the_filling_out():
    own = program()
    state = fresh(own)
    images = RNG.integers(0, 256, (23, SIZE, SIZE, 3), dtype=np.uint8)
    answers = np.asarray(own.predict(state, images)).argmax(-1)
    wrong = (answers + 1) % CLASSES
    mixed = np.where(np.arange(23) < 5, wrong, answers)
    parts = [(images[:10], answers[:10]), (images[10:], wrong[10:]), (images, mixed)]
    found = accuracies(own, state, parts, chunk=16)
    assert found == pytest.approx([1.0, 0.0, 18 / 23])


def test_merge_patches_keeps_each_patch_together():
    x = jnp.arange(2 * 4 * 4 * 1).reshape(2, 4, 4, 1)
    merged = merge_patches(x, 2)
    assert merged.shape == (2, 2, 2, 4)
    np.testing.assert_array_equal(merged[1, 0, 1], x[1, 0:2, 2:4].ravel())


def test_default_model_has_the_documented_size():
    params = program(preset=Preset(steps=1)).init(jax.random.key(0), (32, 32, 3)).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 131_691
