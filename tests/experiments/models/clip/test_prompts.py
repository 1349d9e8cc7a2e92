import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from experiments.models.clip import Clip, Sizes, load_clip
from experiments.models.clip.classifier import unit
from experiments.models.clip.prompts import (
    POSITIONS,
    Prompts,
    class_prompts,
    prompt_lengths,
    with_context,
)
from tests.experiments.models.clip.recorded import DATA
from tests.float32 import assert_close

RECORDED = np.load(DATA / "coop.npz")
NAMES = tuple(RECORDED["names"].tolist())
CONTEXT = RECORDED["context"]
SIZES = Sizes(64, 1, 16, 2, 64, 2, 77, 49408, 16)


@pytest.fixture(scope="module")
def clip():
    """The model that CoOp's own classes were recorded on, its image tower aside."""
    text = traverse_util.unflatten_dict(
        {
            tuple(name.split("/")[1:]): RECORDED[name]
            for name in RECORDED.files
            if name.startswith("text/")
        }
    )
    table = np.zeros((SIZES.vocabulary, SIZES.text_width), np.float32)
    table[RECORDED["rows"]] = RECORDED["vectors"]
    text["token_embed"] = {"embedding": table}
    return Clip({"text": text, "scale": RECORDED["scale"]}, SIZES, "quick_gelu")


@pytest.fixture(scope="module")
def head_of(clip):
    """(context, position, names, classes) -> the head that the prompts make."""
    others = {name: clip.weights[name] for name in ("text", "scale")} | {"backbone": {}}

    @functools.partial(jax.jit, static_argnums=(1, 2, 3))
    def head(context, position="end", names=NAMES, classes=None):
        tuning = Prompts(
            tower=clip.text_tower, position=position, lengths=prompt_lengths(clip, names)
        )
        prompts = class_prompts(clip, names, context.shape[-2], position)
        params = {**others, "prompts": prompts, "context": context}
        return tuning.weights(params, classes)["head"]

    return head


def filled_up(clip, context, position, names):
    """The head of prompts that are computed each by itself and up to 77 tokens."""
    prompts = class_prompts(clip, names, context.shape[-2], position)
    longest = prompts["order"].shape[1]
    order = jnp.pad(prompts["order"], ((0, 0), (0, 77 - longest)))
    vectors = with_context({**prompts, "order": order}, context)
    end = context.shape[-2] + np.array(prompt_lengths(clip, names)) - 1
    arguments = {"params": clip.weights["text"]}, vectors, end
    return clip.text_tower.apply(*arguments, method="encode")


@pytest.mark.parametrize(
    "position",
    ["middle", *(pytest.param(p, marks=pytest.mark.slow) for p in ("end", "front"))],
)
def test_the_loss_and_its_gradient_are_coop_s(head_of, position):
    """Of CoOp's own classes in PyTorch, in float32; see `tests.float32` for the bound."""

    def loss(context):
        cosines = unit(RECORDED["features"]) @ unit(head_of(context, position)).T
        logits = jnp.exp(RECORDED["scale"]) * cosines
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, RECORDED["labels"]
        ).mean()

    value, gradient = jax.value_and_grad(loss)(CONTEXT)
    assert_close(value, RECORDED[f"loss/{position}"])
    assert_close(gradient, RECORDED[f"gradient/{position}"])


LIKE = ("dog", "The Eiffel Tower dog alarm clock alarm clock", "alarm clock", "The Tower")


@pytest.mark.parametrize("each", [False, True], ids=["shared", "of every class"])
@pytest.mark.parametrize("position", POSITIONS)
def test_what_is_computed_once_or_not_at_all_changes_no_feature(
    clip, head_of, position, each
):
    """Lengths of 4 to 11: two groups, whose classes do not stand one after another."""
    context = np.stack([CONTEXT, -CONTEXT, 2 * CONTEXT, CONTEXT[::-1]])
    context = context if each else CONTEXT
    expected = filled_up(clip, context, position, LIKE)
    assert_close(head_of(context, position, LIKE), expected)
    assert_close(head_of(context, position, LIKE, (0, 1, 3)), expected[np.array([0, 1, 3])])


@pytest.mark.parametrize("position", POSITIONS)
def test_what_stands_behind_the_last_end_is_cut(clip, position):
    prompts = class_prompts(clip, NAMES, len(CONTEXT), position)
    longest = 6  # start, The, Eiffel, Tower, full stop and end
    assert prompts["order"].shape == (3, len(CONTEXT) + longest)
    assert prompt_lengths(clip, NAMES) == (4, 5, longest)


def test_prompts_are_computed_for_the_tokens_that_are_their_own(clip, head_of):
    """Of 24 tokens 21 are the same in all: the context and what all texts begin with.

    No short name is filled up to a long one. The operations of the lowered programs grow
    with the tokens; a twentieth is left to what does not.
    """
    context = np.zeros((20, 64), np.float32)

    def operations(names):
        return head_of.lower(context, "end", names).cost_analysis()["flops"]

    def whole(names):
        compute = jax.jit(functools.partial(filled_up, clip, position="end", names=names))
        return compute.lower(context).cost_analysis()["flops"]

    short = operations(("dog",) * 64)
    assert short < whole(("dog",) * 64) * 24 / 77 * (3 * 64 + 21) / (24 * 64) * 1.05
    long = " ".join(["dog"] * 40)
    assert operations(("dog",) * 64 + (long,)) < 1.05 * (short + operations((long,)))


def test_vectors_stand_where_the_position_says(clip):
    """Every vector is a number here: the context is 1, 2, 3, 4 and tokens are 100 * id."""
    clip = dataclasses.replace(clip, weights={"text": {"token_embed": {}}})
    table = 100 * np.arange(SIZES.vocabulary, dtype=np.float32)[:, None]
    clip.weights["text"]["token_embed"]["embedding"] = table
    start, dog, stop, end = 49406, 1929, 269, 49407
    for position, ids in {
        "end": [start, 1, 2, 3, dog, stop, end],
        "middle": [start, 1, dog, 2, 3, stop, end],
        "front": [start, dog, 1, 2, 3, stop, end],
    }.items():
        prompts = class_prompts(clip, ["dog"], 3, position)
        context = np.array([[1.0], [2.0], [3.0]])
        expected = [x if x < 4 else 100 * x for x in ids]
        (found,) = with_context(prompts, context)
        np.testing.assert_array_equal(found[:, 0], expected)
        assert prompt_lengths(clip, ["dog"]) == (7 - 3,)


def test_every_class_may_have_vectors_of_its_own(head_of):
    each = np.broadcast_to(CONTEXT, (3, *CONTEXT.shape)).copy()
    shared = head_of(each)
    assert_close(shared, head_of(CONTEXT))
    each[1] *= -1
    moved = head_of(each)
    np.testing.assert_array_equal(moved[::2], shared[::2])
    assert (moved[1] != shared[1]).any()


def test_what_does_not_fit_is_refused(clip):
    class_prompts(clip, NAMES, 77 - 6)
    with pytest.raises(ValueError, match=r"72 vectors.*has 78 tokens.*77.*--context"):
        class_prompts(clip, NAMES, 77 - 5)
    with pytest.raises(ValueError, match="unknown position 'start'; there are: end, mid"):
        class_prompts(clip, NAMES, 4, "start")


def test_a_smaller_vocabulary_spells_names_out():
    """There a name is more tokens, and it still stands whole and in its place."""
    clip = load_clip(DATA / "open_clip.pth", "gelu")
    (row,) = clip.tokenizer(["owl."])
    prompts = class_prompts(clip, ["owl"], 2, "middle")
    (order,) = prompts["order"]
    tokens = row[: row.argmax() + 1]
    name = len(tokens) - 3
    assert name > 1
    expected = [2, 0, *range(3, 3 + name), 1, 3 + name, 4 + name]
    np.testing.assert_array_equal(order, expected)
