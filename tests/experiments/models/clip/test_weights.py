import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from experiments.models.clip import Sizes, load_clip, to_openai_names
from experiments.models.clip.weights import from_names
from tests.data.clip import made
from tests.experiments.models.clip.recorded import (
    MODELS,
    assert_features_are_those,
    state,
)

OPENAI, HUGGING_FACE = "tiny/openai/quick_gelu", "tiny/hugging_face/quick_gelu"


@pytest.mark.parametrize("model", [name for name in MODELS if name.startswith("wide")])
def test_features_are_those_of_the_original_classes(model, tmp_path):
    file = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(state(model), file)
    _, _, activation = model.split("/")
    assert_features_are_those(load_clip(file, activation), model)


def test_sizes_are_read_off_the_shapes():
    expected = Sizes(
        image_width=made.TINY["width"],
        image_depth=made.TINY["depth"],
        patch=made.TINY["patch"],
        grid=made.TINY["size"] // made.TINY["patch"],
        text_width=made.TINY["width"],
        text_depth=made.TINY["depth"],
        length=made.TINY["length"],
        vocabulary=made.TINY["vocabulary"],
        embedding=made.TINY["embed"],
    )
    assert from_names(state(OPENAI))[0] == expected
    assert from_names(state(HUGGING_FACE))[0] == expected


def test_openai_s_names_are_written_as_they_are_read():
    tensors = state(OPENAI)
    written = to_openai_names(from_names(tensors)[1])
    assert written.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(written[name], array.astype(np.float32), strict=True)
        assert written[name].flags.c_contiguous  # safetensors writes memory as it lies


def test_hugging_face_s_weights_can_be_written_by_openai_s_names():
    _, weights = from_names(state(HUGGING_FACE))
    _, again = from_names(to_openai_names(weights))
    ours, theirs = (traverse_util.flatten_dict(tree) for tree in (weights, again))
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        np.testing.assert_array_equal(theirs[path], array, strict=True)


def test_what_is_no_weight_is_left_out():
    more = {
        "input_resolution": np.array(16),
        "context_length": np.array(12),
        "vocab_size": np.array(520),
        "attn_mask": np.zeros((12, 12), np.float32),
        "visual.transformer.resblocks.0.attn_mask": np.zeros((12, 12), np.float32),
        "text_model.embeddings.position_ids": np.arange(12)[None],
    }
    from_names({**state(OPENAI), **more})


def test_the_scale_may_be_an_array_of_one():
    tensors = state(OPENAI)
    scale = np.reshape(tensors["logit_scale"], (1,))
    found = from_names({**tensors, "logit_scale": scale})[1]["scale"]
    assert found.shape == () and found == np.float32(tensors["logit_scale"])


def without(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


@pytest.mark.parametrize("model", [OPENAI, HUGGING_FACE])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"visual.extra": np.zeros(3)}, "visual.extra: not of this model"),
        (lambda s: s | {"logit_bias": np.zeros(())}, "logit_bias: not of this model"),
        (without("logit_scale"), "scale: missing"),
        (lambda s: s | {"logit_scale": np.zeros(2)}, r"logit_scale: shape \(2,\)"),
    ],
)
def test_weights_that_do_not_fit_are_listed(model, change, message):
    with pytest.raises(ValueError, match=message):
        from_names(change(state(model)))


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (OPENAI, without("visual.conv1.weight"), "no visual.conv1 or vision_model"),
        (OPENAI, without("ln_final.bias"), "text/norm/bias: missing"),
        (OPENAI, without("visual.transformer.resblocks.0.mlp.c_fc.weight"), "fc1/kernel"),
        (
            OPENAI,
            lambda s: s | {"visual.positional_embedding": np.zeros((4, 64))},
            r"visual.positional_embedding: shape \(4, 64\)",
        ),
        (
            OPENAI,
            lambda s: s | {"positional_embedding": np.zeros((12, 32))},
            r"positional_embedding: shape \(12, 32\)",
        ),
        (
            OPENAI,
            lambda s: s | {"visual.conv1.weight": np.zeros((64, 3))},
            r"visual.conv1.weight has shape \(64, 3\): expected 4 axes",
        ),
        (
            OPENAI,
            lambda s: s | {"visual.conv1.weight": np.zeros((60, 3, 8, 8))},
            "image_width is 60",
        ),
        (
            HUGGING_FACE,
            without("text_model.encoder.layers.0.self_attn.k_proj.weight"),
            "self_attn.q_proj.weight: not of this model.*qkv/kernel: missing",
        ),
    ],
)
def test_the_tensor_at_fault_is_named(model, change, message):
    with pytest.raises(ValueError, match=message):
        from_names(change(state(model)))
