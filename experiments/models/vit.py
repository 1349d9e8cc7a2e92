"""ViT-S/16 and ViT-B/16 as timm has them: images -> features [B, 384 or 768].

Dosovitskiy et al., ICLR 2021: patches of 16 x 16 pixels, a class token, a learned position
for each, blocks with the norm before; the feature is the class token after the last norm.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.models.transformer import Block, exact_gelu

PATCH = 16
EPSILON = 1e-6  # of the norms


class VisionTransformer(nn.Module):
    """A ViT without its classifier.

    Attributes:
      width: of the tokens.
      heads: of each attention.
      depth: number of blocks.
      batch_norm: there is none here; taken so that all backbones are made alike.
      dtype: of the arithmetic.
    """

    width: int
    heads: int
    depth: int = 12
    batch_norm: str = "frozen"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the features; training and evaluation are the same here."""
        del train
        patches = (PATCH, PATCH)
        x = nn.Conv(
            self.width, patches, patches, "VALID", dtype=self.dtype, name="patch_embed"
        )(x)
        x = x.reshape(x.shape[0], -1, self.width)
        small = nn.initializers.truncated_normal(0.02)
        token = self.param("cls_token", small, (1, 1, self.width), jnp.float32)
        shape = (1, 1 + x.shape[1], self.width)
        position = self.param("pos_embed", small, shape, jnp.float32)
        first = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, self.width))
        x = jnp.concatenate([first, x], axis=1) + position.astype(x.dtype)
        for i in range(self.depth):
            x = Block(self.heads, EPSILON, exact_gelu, self.dtype, name=f"block{i}")(x)
        return nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm")(x)[:, 0]


LAYERS = {"mlp.fc1": "fc1", "mlp.fc2": "fc2"}
TORCHVISION = {
    "ln_1": ("norm1",),
    "ln_2": ("norm2",),
    "self_attention.in_proj": ("attn", "qkv"),
    "self_attention.out_proj": ("attn", "proj"),
    "mlp.0": ("fc1",),
    "mlp.3": ("fc2",),
    "mlp.linear_1": ("fc1",),
    "mlp.linear_2": ("fc2",),
}


def vit_path(name: str) -> tuple[str, ...] | None:
    """Where a layer of timm's or torchvision's (without `.weight`) stands here."""
    first, _, rest = name.partition(".")
    if first in ("head", "heads", "fc_norm", "head_drop"):
        return None
    if name in ("cls_token", "class_token"):
        return ("cls_token",)
    if name in ("pos_embed", "encoder.pos_embedding"):
        return ("pos_embed",)
    if name in ("patch_embed.proj", "conv_proj"):
        return ("patch_embed",)
    if name in ("norm", "encoder.ln"):
        return ("norm",)
    if first == "encoder":  # torchvision: encoder.layers.encoder_layer_3.ln_1
        block, _, layer = rest.removeprefix("layers.encoder_layer_").partition(".")
        return (f"block{block}", *TORCHVISION[layer])
    block, _, layer = rest.partition(".")  # timm: blocks.3.attn.qkv
    return (f"block{block}", *LAYERS.get(layer, layer).split("."))


def resize_positions(positions: np.ndarray, tokens: int) -> np.ndarray:
    """Positions of another image size: the grid resized bicubically, the class token kept.

    Smoothed where the grid shrinks, as timm does.

    Args:
      positions: [1, 1 + n * n, C].
      tokens: 1 + m * m wanted.

    Returns:
      [1, tokens, C].

    Raises:
      ValueError: the positions are not those of one class token and a square grid.
    """
    width = positions.shape[-1]
    old, new = (round((count - 1) ** 0.5) for count in (positions.size // width, tokens))
    if positions.shape != (1, 1 + old * old, width):
        raise ValueError(
            f"the position embedding has shape {positions.shape}: expected one class token "
            "and a square grid of patches, [1, 1 + n * n, C]."
        )
    grid = positions[:, 1:].reshape(old, old, width)
    resized = jax.image.resize(grid, (new, new, width), "cubic", antialias=True)
    return np.concatenate([positions[:, :1], np.asarray(resized).reshape(1, -1, width)], 1)
