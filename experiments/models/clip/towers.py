"""CLIP's two towers: images and texts -> features in one space.

Radford et al., ICML 2021. The towers hold parameters of their own alone, so that either
can be trained, frozen or left out.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.transformer import Activation, Block, exact_gelu, quick_gelu

EPSILON = 1e-5  # of every norm
ACTIVATIONS: dict[str, Activation] = {"quick_gelu": quick_gelu, "gelu": exact_gelu}
HEAD = 64  # numbers in a head of the attention
# Of open_clip's models ViT-H alone has other heads in blocks of the usual shape.
IMAGE_HEADS = {1280: 80}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """All that the shapes of CLIP's weights say.

    Attributes:
      image_width: of the image tower's tokens.
      image_depth: number of its blocks.
      patch: side of a patch, in pixels.
      grid: patches along a side of the image.
      text_width: of the text tower's tokens.
      text_depth: number of its blocks.
      length: the most tokens in a text, first and last included.
      vocabulary: number of different tokens.
      embedding: numbers in a feature of either tower.
    """

    image_width: int
    image_depth: int
    patch: int
    grid: int
    text_width: int
    text_depth: int
    length: int
    vocabulary: int
    embedding: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}: at least 1")
        for name in ("image_width", "text_width"):
            if getattr(self, name) % HEAD:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: CLIP's heads have {HEAD} numbers, "
                    "so a width divides by it."
                )

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return self.patch * self.grid

    @property
    def image_heads(self) -> int:
        """Of each attention over patches."""
        return self.image_width // IMAGE_HEADS.get(self.image_width, HEAD)

    @property
    def text_heads(self) -> int:
        """Of each attention over tokens."""
        return self.text_width // HEAD


class ImageTower(nn.Module):
    """A ViT with a norm before its blocks and a projection after them.

    Attributes:
      sizes: of the model.
      activation: one of `ACTIVATIONS`.
      dtype: of the arithmetic.
    """

    sizes: Sizes
    activation: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3], normalised -> [B, embedding], not of length 1."""
        sizes, width = self.sizes, self.sizes.image_width
        patches = (sizes.patch, sizes.patch)
        x = nn.Conv(
            width,
            patches,
            patches,
            "VALID",
            use_bias=False,
            dtype=self.dtype,
            name="patch_embed",
        )(images)
        x = x.reshape(x.shape[0], x.shape[1] * x.shape[2], width)
        small = nn.initializers.normal(width**-0.5)
        token = self.param("cls_token", small, (width,), jnp.float32)
        shape = (1 + sizes.grid**2, width)
        position = self.param("pos_embed", small, shape, jnp.float32)
        first = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, width))
        x = jnp.concatenate([first, x], axis=1) + position.astype(x.dtype)
        x = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm_pre")(x)
        act = ACTIVATIONS[self.activation]
        for i in range(sizes.image_depth):
            x = Block(sizes.image_heads, EPSILON, act, self.dtype, name=f"block{i}")(x)
        x = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm_post")(x[:, 0])
        return nn.Dense(sizes.embedding, use_bias=False, dtype=self.dtype, name="proj")(x)


class TextTower(nn.Module):
    """A transformer whose tokens see those before them; the feature is the last one's.

    Attributes:
      sizes: of the model.
      activation: one of `ACTIVATIONS`.
      dtype: of the arithmetic.
    """

    sizes: Sizes
    activation: str
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts; `embed` and `encode` use them apart."""
        sizes, act = self.sizes, ACTIVATIONS[self.activation]
        self.token_embed = nn.Embed(
            sizes.vocabulary,
            sizes.text_width,
            embedding_init=nn.initializers.normal(0.02),
        )
        self.pos_embed = self.param(
            "pos_embed",
            nn.initializers.normal(0.01),
            (sizes.length, sizes.text_width),
            jnp.float32,
        )
        self.blocks = [
            Block(sizes.text_heads, EPSILON, act, self.dtype, name=f"block{i}")
            for i in range(sizes.text_depth)
        ]
        self.norm = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype)
        self.proj = nn.Dense(sizes.embedding, use_bias=False, dtype=self.dtype)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Tokens [B, T] -> vectors [B, T, C], float32 as the table is."""
        return self.token_embed(tokens)

    def encode(
        self, vectors: jax.Array, end: jax.Array, before: jax.Array | None = None
    ) -> jax.Array:
        """Features of texts whose tokens are given as vectors.

        No token sees those after it. So whatever stands behind the last end token may be
        cut off, and what all texts begin with is computed once for all: the features are
        the same.

        Args:
          vectors: [B, T, C].
          end: [B], where of its T vectors each text has its end token.
          before: [1, P, C], what stands before those of all texts, P + T being at most the
            model's length; nothing where it is left out.

        Returns:
          [B, embedding], not of length 1.
        """
        shared = 0 if before is None else before.shape[1]
        count = shared + vectors.shape[1]
        position = self.pos_embed[:count].astype(self.dtype)
        x = vectors.astype(self.dtype) + position[shared:]
        if before is not None:
            before = before.astype(self.dtype) + position[:shared]
        mask = jnp.tril(jnp.ones((count, count), bool))
        for block in self.blocks:
            x = block(x, mask[shared:], before)
            if before is not None:
                before = block(before, mask[:shared, :shared])
        last = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        return self.proj(self.norm(last))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """[B, T] -> [B, embedding]; the end token is the largest number of its text."""
        return self.encode(self.embed(tokens), tokens.argmax(-1))


def random_weights(sizes: Sizes, key: jax.Array) -> dict[str, Any]:
    """Weights drawn at random: {"image": tree, "text": tree, "scale": log scale}."""
    image, text = jax.random.split(key)
    images = jnp.zeros((1, sizes.image_size, sizes.image_size, 3))
    tokens = jnp.zeros((1, sizes.length), jnp.int32)
    return {
        "image": ImageTower(sizes, "gelu").init(image, images)["params"],
        "text": TextTower(sizes, "gelu").init(text, tokens)["params"],
        "scale": jnp.log(jnp.float32(1 / 0.07)),  # where the authors began
    }
