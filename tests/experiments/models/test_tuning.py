import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.devices import one_device
from experiments.methods.penalties import PENALTIES
from experiments.methods.registry import METHODS
from experiments.models.clip.kind import OF_CLIP
from experiments.models.tuning import Tuning, among_classes
from experiments.training.pattern import Numbers
from experiments.training.program import begin, shapes
from experiments.training.step import compile_step, train_step
from tests.experiments.models.clip.programs import BATCH, NAMES, program
from tests.float32 import assert_close
from tests.slow import slow_but

# Weights of the image tower: patches, class token and positions; of its block four products
# with their biases and two norms; two more norms; and the projection.
TOWER = 192 * 64 + 64 + 5 * 64 + (12 * 64 + 9) * 64 + 2 * 128 + 2 * 128 + 64 * 16
TRAINED = {  # of a CLIP, with how many numbers each is
    "linear": {"head": 3 * 16},
    "finetune": {"backbone": TOWER},
    "clipood": {"backbone": TOWER},
    "lora": {"lora": 2 * (64 + 3 * 64) + 2 * (64 + 64)},
    "coop": {"context": 2 * 64},
}
KEY = jax.random.key(0)


ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), BATCH)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@functools.cache
def stepped(tuning):
    """(before, frozen as they came, after a step of DISAM, frozen then, what it saw)."""
    own = program(tuning)
    state, frozen = begin(own, KEY, one_device())
    before = jax.tree.map(np.array, (state, frozen))
    step = compile_step(own, one_device())
    after, seen = step(Numbers({}, {}), frozen, state, BATCH)
    return *before, after, frozen, seen


def test_every_tuning_of_clip_is_looked_at_here():
    assert {*TRAINED, "zero_shot"} == OF_CLIP.keys()


@pytest.mark.parametrize("tuning", slow_but({"coop"}, TRAINED))
def test_what_is_trained_and_what_is_frozen_are_two_trees(tuning):
    before, frozen, after, frozen_after, _ = stepped(tuning)
    assert {name: count(tree) for name, tree in before.params.items()} == TRAINED[tuning]
    assert not before.params.keys() & frozen.keys()
    jax.tree.map(np.testing.assert_array_equal, frozen_after, frozen)
    moved = jax.tree.map(lambda a, b: (a != b).any(), after.params, before.params)
    assert any(jax.tree.leaves(moved))
    # Adam's two moments, DISAM's nothing, and counters.
    assert count(before.opt_state) < 2 * count(before.params) + 10


@pytest.mark.parametrize("tuning", TRAINED)
def test_rho_is_a_length_in_what_is_trained(tuning):
    seen = stepped(tuning)[-1]
    assert_close(seen.perturbation_norm, METHODS["disam"].defaults.rho)
    assert (seen.perturbed_losses != seen.losses).all()


def test_every_tuning_begins_as_the_model_but_for_its_loss_and_its_prompts():
    losses = {tuning: stepped(tuning)[-1].losses for tuning in TRAINED}
    for tuning in ("lora", "linear"):
        assert_close(losses[tuning], losses["finetune"])
    assert (losses["clipood"] > losses["finetune"]).all()  # a margin is asked for
    assert (losses["coop"] != losses["finetune"]).all()


def step_shapes(own):
    """What a step makes, without a compiler."""
    state, frozen = shapes(own)
    made, seen = jax.eval_shape(functools.partial(train_step, own), frozen, state, ABSTRACT)
    assert seen.losses.shape == (2,)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )


@pytest.mark.parametrize("method", ["erm", "sam", "disam+gsam", "asam", "dgsam"])
def test_methods_of_every_kind_step_with_prompts(method):
    step_shapes(program("coop", method))


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TRAINED)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_steps_with_every_tuning(method, tuning):
    if method == "sam_on" and TRAINED[tuning] != {"backbone": TOWER}:
        with pytest.raises(ValueError, match="no parameter's name holds 'norm'"):
            step_shapes(program(tuning, method))
    else:
        step_shapes(program(tuning, method))


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TRAINED)
@pytest.mark.parametrize(
    "changes",
    [{"penalty": name} for name in PENALTIES]
    + [
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
        {"dtype": "bfloat16", "perturbed_dtype": "float32"},
        {"scope": "domain"},
        {"scope": "micro_batch", "micro_batches": 2},
        {"micro_batches": 4},
        {"bma": 0.5},
        {"optimizer": "sgd"},
    ],
    ids=str,
)
def test_every_way_to_train_takes_every_tuning(tuning, changes):
    step_shapes(program(tuning, **changes))


@pytest.mark.parametrize("tuning", slow_but({"coop"}, ["coop", "clipood"]))
def test_training_on_some_classes_is_that_of_a_model_with_only_those(tuning):
    """Labels 0 and 2 of three: nothing of the class between them is looked at."""
    labels = jnp.asarray([0, 2, 2, 0, 2, 0, 0, 2])
    some = program(tuning, "erm", seen=(0, 2))
    only = dataclasses.replace(program(tuning, "erm"), classes=(NAMES[0], NAMES[2]))
    found = []
    for own, batch in (
        (some, BATCH._replace(labels=labels)),
        (only, BATCH._replace(labels=labels // 2)),
    ):
        state, frozen = begin(own, KEY, one_device())
        found.append(jax.jit(functools.partial(train_step, own))(frozen, state, batch))
    assert_close(found[0][1].losses, found[1][1].losses)
    assert_close(found[0][0].params, found[1][0].params)


def test_classes_are_told_by_their_place():
    params = {"head": np.arange(6).reshape(3, 2), "scale": 1}
    some = Tuning(()).weights(params, (0, 2))
    np.testing.assert_array_equal(some["head"], [[0, 1], [4, 5]])
    assert some["scale"] == 1 and Tuning(()).weights(params) is params
    labels = jnp.asarray([2, 0, 2])
    np.testing.assert_array_equal(among_classes(labels, (0, 2)), [1, 0, 1])
    np.testing.assert_array_equal(among_classes(labels, None), labels)
