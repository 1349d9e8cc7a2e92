"""A CLIP with its weights: images and texts -> features."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.fields import check_known
from experiments.files import file_sha256
from experiments.models.clip.tokens import Tokenizer
from experiments.models.clip.towers import (
    ACTIVATIONS,
    ImageTower,
    Sizes,
    TextTower,
    random_weights,
)
from experiments.models.clip.weights import Tree, from_names
from experiments.models.vit import resize_positions
from experiments.models.weight_files import read_weights

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the input, for pixels in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)

# Activations of files that are known, by the file's SHA-256.
KNOWN_FILES = {  # OpenAI's, by the addresses that its package downloads them from
    # ViT-B-32.pt, ViT-B-16.pt, ViT-L-14.pt, ViT-L-14-336px.pt
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "quick_gelu",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "quick_gelu",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "quick_gelu",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "quick_gelu",
}
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
TOWER_CONFIGS = ("vision_config", "text_config")


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP with its weights.

    Attributes:
      weights: {"image": tree, "text": tree, "scale": the logarithm of what cosines are
        multiplied by}, NumPy float32.
      sizes: of the towers.
      activation: `quick_gelu` or `gelu`.
      dtype: of the arithmetic.
    """

    weights: Tree
    sizes: Sizes
    activation: str
    dtype: Any = jnp.float32

    @property
    def image_tower(self) -> ImageTower:
        """The module of the parameters `weights["image"]`."""
        return ImageTower(self.sizes, self.activation, self.dtype)

    @property
    def text_tower(self) -> TextTower:
        """The module of the parameters `weights["text"]`."""
        return TextTower(self.sizes, self.activation, self.dtype)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Texts -> tokens; CLIP's own, cut short where the table of tokens is smaller."""
        return Tokenizer(self.sizes.vocabulary, self.sizes.length)

    def image_features(self, images: Any) -> jax.Array:
        """Features of images, not of length 1.

        Args:
          images: [N, H, W, 3], float, normalised by `MEAN` and `STD`.

        Returns:
          [N, D].

        Raises:
          ValueError: the images are whole numbers, or of another size than the model's.
        """
        side = self.sizes.image_size
        if np.shape(images)[1:] != (side, side, 3):
            raise ValueError(
                f"images has shape {np.shape(images)}: the model takes [N, {side}, {side}, "
                "3]; for another size, take clip.resized(size)."
            )
        images = jnp.asarray(images)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images has dtype {images.dtype}: normalise them first.")
        return _features(self.image_tower, self._on_device["image"], images)

    def text_features(self, texts: Sequence[str]) -> jax.Array:
        """Features [K, D] of texts, not of length 1; read up to the last end token."""
        tokens = self.tokenizer(texts)
        tokens = jnp.asarray(tokens[:, : tokens.argmax(-1).max(initial=0) + 1])
        return _features(self.text_tower, self._on_device["text"], tokens)

    def resized(self, image_size: int) -> "Clip":
        """The model for another size of images, its positions resized bicubically.

        Raises:
          ValueError: the size does not divide into patches.
        """
        patch = self.sizes.patch
        if image_size < patch or image_size % patch:
            raise ValueError(f"image_size is {image_size}: a multiple of {patch}, a patch.")
        sizes = dataclasses.replace(self.sizes, grid=image_size // patch)
        image = dict(self.weights["image"])
        positions = resize_positions(image["pos_embed"][None], 1 + sizes.grid**2)
        weights = {**self.weights, "image": {**image, "pos_embed": positions[0]}}
        return dataclasses.replace(self, sizes=sizes, weights=weights)

    @functools.cached_property
    def _on_device(self) -> Tree:
        with jax.ensure_compile_time_eval():  # kept, also where a trace asks for it first
            return jax.device_put({name: self.weights[name] for name in ("image", "text")})


def load_clip(
    path: str | Path, activation: str | None = None, dtype: Any = jnp.float32
) -> Clip:
    """A CLIP from a file of weights, or from a folder as Hugging Face ships them.

    Args:
      path: a `.safetensors`, PyTorch or TorchScript file by the names of OpenAI, open_clip
        or Hugging Face; or a folder with `config.json` and `model.safetensors`.
      activation: `quick_gelu` or `gelu`, which no file of weights tells. None where the
        file is one of `KNOWN_FILES` or the folder's config.json says it.
      dtype: of the arithmetic; the weights are float32.

    Returns:
      The model.

    Raises:
      ValueError: there are no such weights, they are not a CLIP's, or the activation is not
        known or another one.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, activation, dtype)
    state = read_weights(path)
    activation = _agreed(activation, KNOWN_FILES.get(file_sha256(path)), path)
    sizes, weights = from_names(state)
    return Clip(weights, sizes, activation, dtype)


def files_of(path: Path) -> list[Path]:
    """What `load_clip` reads: the file, or of a folder its config.json and its weights."""
    if not path.is_dir():
        return [path]
    return [path / "config.json", *(path / name for name in FOLDER_FILES)]


def random_clip(
    sizes: Sizes, activation: str, key: jax.Array, dtype: Any = jnp.float32
) -> Clip:
    """A CLIP with weights drawn at random, to be trained."""
    check_known("activation", activation, tuple(ACTIVATIONS))
    drawn = jax.jit(random_weights, static_argnums=0)(sizes, key)
    return Clip(jax.tree.map(np.asarray, drawn), sizes, activation, dtype)


@functools.partial(jax.jit, static_argnums=0)  # compiled once for models of one kind
def _features(tower: nn.Module, params: Tree, inputs: jax.Array) -> jax.Array:
    return tower.apply({"params": params}, inputs)  # pyright: ignore[reportReturnType]


def _agreed(asked: str | None, stated: str | None, path: Path) -> str:
    """The activation that is asked for, or known."""
    if asked is None and stated is None:
        raise ValueError(
            f"activation is None, and {path} does not tell it. Give activation="
            "'quick_gelu' for OpenAI's weights and models named -quickgelu, or 'gelu' for "
            "most of open_clip's own (LAION, DataComp); Hugging Face's config.json says "
            "hidden_act."
        )
    activation = asked or stated or ""
    check_known("activation", activation, tuple(ACTIVATIONS))
    if stated not in (None, activation):
        raise ValueError(
            f"activation is {asked!r}, but {path} is known to have {stated!r}."
        )
    return activation


def _from_folder(folder: Path, activation: str | None, dtype: Any) -> Clip:
    files = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    config = folder / "config.json"
    if not files or not config.is_file():
        raise ValueError(
            f"the folder {folder} holds no config.json, or no {' or '.join(FOLDER_FILES)}."
        )
    try:
        said = json.loads(config.read_text())
        # What a config leaves out has the value of CLIP's first.
        told = {name: dict(said.get(name) or {}) for name in TOWER_CONFIGS}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{config} is not a CLIP's config: {error}.") from None
    activations = {own.get("hidden_act", "quick_gelu") for own in told.values()}
    if len(activations) > 1:
        raise ValueError(
            f"{config} says two activations: {', '.join(sorted(activations))}."
        )
    activation = _agreed(activation, activations.pop(), config)
    sizes, weights = from_names(read_weights(files[0]))
    for tower, heads in zip(
        TOWER_CONFIGS, (sizes.image_heads, sizes.text_heads), strict=True
    ):
        found = told[tower].get("num_attention_heads", heads)
        if found != heads:
            raise ValueError(
                f"{config} says {found} heads in {tower}; a CLIP of its width has {heads}, "
                "one for every 64."
            )
    return Clip(weights, sizes, activation, dtype)
