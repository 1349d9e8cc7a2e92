import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.run import weights_fingerprint
from experiments.files import file_sha256
from experiments.models.clip import KNOWN_FILES, Clip, Sizes, load_clip, random_clip
from experiments.models.clip.towers import ACTIVATIONS
from experiments.models.clip.weights import from_names
from tests.data.clip import made
from tests.experiments.models.clip.recorded import (
    DATA,
    RECORDED,
    assert_features_are_those,
    state,
)

FILES = {
    "traced.pt": "tiny/openai/quick_gelu",  # OpenAI's class, halves and sizes in it
    "scripted.pt": "tiny/open_clip/quick_gelu",
    "open_clip.pth": "tiny/open_clip/gelu",
    "hugging_face/model.safetensors": "tiny/hugging_face/quick_gelu",
    "hugging_face": "tiny/hugging_face/gelu",  # its config.json says so
}


@pytest.fixture(scope="module")
def tiny():
    sizes, weights = from_names(state("tiny/openai/quick_gelu"))
    return Clip(weights, sizes, "quick_gelu")


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_features_of_its_model(name):
    activation = FILES[name].split("/")[-1]
    clip = load_clip(DATA / name, None if name == "hugging_face" else activation)
    assert clip.activation == activation
    assert_features_are_those(clip, FILES[name])


def test_the_wrong_activation_differs(tiny):
    right = RECORDED["tiny/openai/quick_gelu/image"]
    wrong = Clip(tiny.weights, tiny.sizes, "gelu").image_features(made.images(16))
    assert 1e-3 < np.abs(wrong - right).max() < 0.1  # so nobody would see it


def test_the_activation_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"traced\.pt.*quick_gelu.*gelu.*hidden_act"):
        load_clip(str(DATA / "traced.pt"))
    with pytest.raises(ValueError, match="unknown activation 'relu'"):
        load_clip(DATA / "traced.pt", "relu")
    with pytest.raises(ValueError, match=r"'quick_gelu', but .*config\.json.*'gelu'"):
        load_clip(DATA / "hugging_face", "quick_gelu")


def test_the_activation_of_a_known_file_is_known(monkeypatch):
    digest = file_sha256(DATA / "traced.pt")
    monkeypatch.setitem(KNOWN_FILES, digest, "quick_gelu")
    assert load_clip(DATA / "traced.pt").activation == "quick_gelu"
    with pytest.raises(ValueError, match="is known to have 'quick_gelu'"):
        load_clip(DATA / "traced.pt", "gelu")
    assert all(len(known) == 64 for known in KNOWN_FILES)
    assert set(KNOWN_FILES.values()) <= set(ACTIVATIONS)


@pytest.mark.parametrize(
    ("tower", "field", "value", "message"),
    [
        ("text_config", "hidden_act", "quick_gelu", "two activations: gelu, quick_gelu"),
        (
            "vision_config",
            "num_attention_heads",
            4,
            "4 heads in vision_config; a CLIP of its width has 1",
        ),
    ],
)
def test_a_config_of_another_model_is_refused(tmp_path, tower, field, value, message):
    folder = shutil.copytree(DATA / "hugging_face", tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    config[tower][field] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_clip(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_clip(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"text_config": 3}'])
def test_a_config_that_is_none_is_refused_by_its_path(tmp_path, text):
    folder = shutil.copytree(DATA / "hugging_face", tmp_path / "folder")
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"folder/config\.json is not a CLIP's config"):
        load_clip(folder)
    (folder / "config.json").write_text('{"text_config": null}')
    assert load_clip(folder).activation == "quick_gelu"  # as what a config leaves out


def test_weights_that_were_written_anew_are_others(tmp_path):
    folder = shutil.copytree(DATA / "hugging_face", tmp_path / "folder")
    first = weights_fingerprint(str(folder))
    assert len(first) == 16
    (folder / "README.md").write_text("is not read")
    assert weights_fingerprint(str(folder)) == first
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    assert weights_fingerprint(str(folder)) not in ("", first)
    assert weights_fingerprint(str(tmp_path / "none")) == ""


def test_texts_are_cut_after_the_last_end_token(tiny):
    tokens = tiny.tokenizer(made.TEXTS)
    assert tokens.shape == (3, 12) and tokens[2, -1] == tiny.tokenizer.end
    short = tiny.text_features(made.TEXTS[:2])  # of 2 and 5 tokens, so cut after the fifth
    whole = RECORDED["tiny/openai/quick_gelu/text"][:2]
    np.testing.assert_allclose(short, whole, rtol=0, atol=1e-5)
    assert tiny.text_features([]).shape == (0, 16)


def test_the_same_shapes_are_traced_once(tiny, monkeypatch):
    traced = []

    def counted(x):
        traced.append(x.shape)
        return jax.nn.gelu(x)

    monkeypatch.setitem(ACTIVATIONS, "counted", counted)
    clip = Clip(tiny.weights, tiny.sizes, "counted")
    for _ in range(3):
        clip.image_features(made.images(16))
        clip.text_features(["a", "b"])
    assert len(traced) == 2  # one block in each tower


def test_features_that_were_traced_first_are_computed_all_the_same():
    clip = load_clip(DATA / "open_clip.pth", "gelu")
    shape = jax.eval_shape(lambda: clip.text_features(["owl"]))
    assert clip.text_features(["owl"]).shape == shape.shape == (1, 16)


def test_images_that_do_not_fit_are_refused(tiny):
    with pytest.raises(ValueError, match=r"\(1, 24, 24, 3\).*\[N, 16, 16, 3\].*resized"):
        tiny.image_features(np.zeros((1, 24, 24, 3), np.float32))
    with pytest.raises(ValueError, match="uint8: normalise them"):
        tiny.image_features(np.zeros((1, 16, 16, 3), np.uint8))
    assert tiny.image_features(np.zeros((0, 16, 16, 3), np.float32)).shape == (0, 16)
    with pytest.raises(ValueError, match="image_size is 20: a multiple of 8"):
        tiny.resized(20)


def test_another_size_of_images_resizes_the_positions_alone(tiny):
    larger = tiny.resized(32)
    assert larger.sizes.image_size == 32 and larger.text_tower.sizes == larger.sizes
    old, new = (c.weights["image"]["pos_embed"] for c in (tiny, larger))
    assert new.shape == (17, 64)
    np.testing.assert_array_equal(new[0], old[0])  # the class token's
    # A cubic of weights that sum to one keeps the mean where the grid is symmetric.
    np.testing.assert_allclose(new[1:].mean(0), old[1:].mean(0), atol=1e-5)
    changed = {
        k for k, v in larger.weights["image"].items() if v is not tiny.weights["image"][k]
    }
    assert changed == {"pos_embed"} and larger.weights["text"] is tiny.weights["text"]
    assert larger.image_features(made.images(32)).shape == (3, 16)


@pytest.mark.slow
def test_random_weights_are_numpy_float32_of_the_sizes_asked_for():
    sizes = Sizes(64, 1, 8, 2, 128, 1, 12, 520, 16)
    clip = random_clip(sizes, "gelu", jax.random.key(0))
    leaves = jax.tree.leaves(clip.weights)
    assert all(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in leaves)
    assert clip.weights["text"]["block0"]["attn"]["qkv"]["kernel"].shape == (128, 384)
    np.testing.assert_allclose(clip.weights["scale"], np.log(1 / 0.07), rtol=1e-6)
    with pytest.raises(ValueError, match="unknown activation"):
        random_clip(sizes, "relu", jax.random.key(0))
    with pytest.raises(ValueError, match="text_depth is 0"):
        Sizes(64, 1, 8, 2, 128, 0, 12, 520, 16)


def test_low_precision_is_that_of_the_arithmetic(tiny):
    low = Clip(tiny.weights, tiny.sizes, "quick_gelu", jnp.bfloat16)
    found = low.image_features(made.images(16))
    assert found.dtype == jnp.bfloat16
    exact = RECORDED["tiny/openai/quick_gelu/image"]
    # A few roundings of 2^-9, of features up to 4.
    assert 1e-3 < np.abs(found.astype(np.float32) - exact).max() < 0.15
