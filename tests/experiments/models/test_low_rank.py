import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from experiments.config.preset import Preset
from experiments.models.backbones import BACKBONES
from experiments.models.low_rank import LowRank, changed_kernels
from experiments.training.program import shapes
from tests.experiments.models.clip.programs import program
from tests.float32 import assert_close

KERNELS = {("block0", "attn", name, "kernel") for name in ("qkv", "proj")}
RNG = np.random.default_rng(0)


def backbone(width=8):
    def product(outputs):
        kernel = RNG.normal(size=(width, outputs)).astype(np.float32)
        return {"kernel": kernel, "bias": np.ones(outputs, np.float32)}

    attention = {"qkv": product(3 * width), "proj": product(width)}
    block = {"attn": attention, "fc1": product(4 * width), "norm1": {"scale": np.ones(8)}}
    return {"block0": block, "proj": product(width)}  # the last is none of an attention


def flat(tree):
    return traverse_util.flatten_dict(tree)


def test_the_products_of_attentions_are_changed_by_a_b_and_nothing_else_is():
    own, tuning = backbone(), LowRank(("lora",), ("backbone",), rank=2)
    lora = tuning.added({"backbone": own}, jax.random.key(0))["lora"]
    assert {path[:-1] for path in flat(lora)} == KERNELS
    lora = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), lora)
    whole = {"backbone": own, "lora": lora, "scale": np.float32(1.0)}
    found = tuning.weights(whole)
    assert found.keys() == {"backbone", "scale"}
    for path, leaf in flat(found["backbone"]).items():
        before = flat(own)[path]
        if path in KERNELS:
            a, b = (np.float64(flat(lora)[*path, name]) for name in "ab")
            assert (a.shape, b.shape) == ((8, 2), (2, before.shape[1]))
            assert_close(leaf, before + a @ b)
        else:
            np.testing.assert_array_equal(leaf, before)


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_it_begins_as_the_model_whatever_the_rank(rank):
    own, tuning = {"backbone": backbone()}, LowRank(("lora",), ("backbone",), rank=rank)
    added = tuning.added(own, jax.random.key(0))
    assert {leaf.shape[1] for path, leaf in flat(added).items() if path[-1] == "a"} == {
        rank
    }
    begun = tuning.weights({**own, **added})
    jax.tree.map(np.testing.assert_array_equal, begun, own)


def test_a_is_drawn_so_that_its_products_have_the_size_of_their_inputs():
    own = {"backbone": backbone(width=256)}
    a = flat(LowRank(("lora",), (), rank=64).added(own, jax.random.key(0)))
    several = [leaf for path, leaf in a.items() if path[-1] == "a"]
    for leaf in several:  # 16,384 numbers each: their deviation is known to 1 / 181
        np.testing.assert_allclose(leaf.std() * 256**0.5, 1, atol=0.03)
    assert (several[0] != several[1]).all()


def test_without_attention_there_is_nothing_to_change():
    with pytest.raises(ValueError, match="this model has none: take --tuning finetune"):
        changed_kernels({"conv": {"kernel": np.ones((3, 3, 3, 8))}})
    without = [name for name, made in BACKBONES.items() if not made.attention]
    assert {"resnet50", "patchnet"} <= set(without)
    for model in without:
        message = f"unknown tuning of {model} 'lora'; there are: finetune, linear"
        with pytest.raises(ValueError, match=message):
            Preset(model=model, tuning="lora")


def test_a_rank_is_at_least_one():
    with pytest.raises(ValueError, match="rank must be at least 1; got 0"):
        Preset(model="clip", tuning="lora", rank=0)


def test_a_vit_has_it_beside_its_head():
    own = program("lora", weights="scratch")
    preset = dataclasses.replace(own.preset, model="vit_s16", image_size=16)
    own = dataclasses.replace(own, preset=preset)
    state, frozen = shapes(own)
    assert state.params.keys() == {"lora", "head"} and frozen.keys() == {"backbone"}
    sizes = jax.tree.map(lambda leaf: leaf.size, state.params["lora"])
    # Twelve blocks of width 384; A and B for the 3 in qkv and for the projection.
    assert sum(jax.tree.leaves(sizes)) == 12 * 2 * (384 + 3 * 384 + 384 + 384)


def test_moving_a_alone_moves_no_weight_at_first():
    """So that at first only B has a gradient, and rho is a length in B alone."""
    own, tuning = {"backbone": backbone()}, LowRank(("lora",), ("backbone",), rank=2)
    added = tuning.added(own, jax.random.key(0))["lora"]

    def total(lora):
        moved = tuning.weights({**own, "lora": lora})["backbone"]
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(moved))

    for path, leaf in flat(jax.grad(total)(added)).items():
        assert (leaf != 0).any() == (path[-1] == "b")
