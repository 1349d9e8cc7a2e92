import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from experiments.models.clip import Clip, Sizes, load_clip
from experiments.models.clip.classifier import unit
from experiments.models.clip.prompts import POSITIONS, Prompts, class_prompts, with_context
from tests.experiments.models.clip.recorded import DATA
from tests.float32 import assert_close

RECORDED = np.load(DATA / "coop.npz")
NAMES = RECORDED["names"].tolist()
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
def of_prompts(clip):
    """(prompts, context) -> the head that they make."""
    tuning = Prompts(tower=clip.text_tower)
    others = {name: clip.weights[name] for name in ("text", "scale")} | {"backbone": {}}

    @jax.jit
    def head(prompts, context):
        return tuning.weights({**others, "prompts": prompts, "context": context})["head"]

    return head


@pytest.mark.parametrize(
    "position",
    ["middle", *(pytest.param(p, marks=pytest.mark.slow) for p in ("end", "front"))],
)
def test_the_loss_and_its_gradient_are_coop_s(clip, of_prompts, position):
    """Of CoOp's own classes in PyTorch, in float32; see `tests.float32` for the bound."""
    prompts = class_prompts(clip, NAMES, len(CONTEXT), position)

    def loss(context):
        cosines = unit(RECORDED["features"]) @ unit(of_prompts(prompts, context)).T
        logits = jnp.exp(RECORDED["scale"]) * cosines
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, RECORDED["labels"]
        ).mean()

    value, gradient = jax.value_and_grad(loss)(CONTEXT)
    assert_close(value, RECORDED[f"loss/{position}"])
    assert_close(gradient, RECORDED[f"gradient/{position}"])


@pytest.mark.parametrize("position", POSITIONS)
def test_what_stands_behind_the_last_end_is_cut_and_changes_nothing(
    clip, of_prompts, position
):
    prompts = class_prompts(clip, NAMES, len(CONTEXT), position)
    count, longest = len(CONTEXT), 6  # start, The, Eiffel, Tower, full stop and end
    assert prompts["order"].shape == (3, count + longest)
    assert prompts["end"].max() == count + longest - 1
    whole = np.pad(prompts["order"], ((0, 0), (0, 77 - count - longest)))
    found = of_prompts(prompts, CONTEXT)
    assert_close(of_prompts({**prompts, "order": whole}, CONTEXT), found)


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
        assert prompts["end"] == [6]


def test_every_class_may_have_vectors_of_its_own(clip, of_prompts):
    prompts = class_prompts(clip, NAMES, len(CONTEXT))
    shared = of_prompts(prompts, CONTEXT)
    each = np.broadcast_to(CONTEXT, (3, *CONTEXT.shape)).copy()
    np.testing.assert_array_equal(of_prompts(prompts, each), shared)
    each[1] *= -1
    moved = of_prompts(prompts, each)
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
