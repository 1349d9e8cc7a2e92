"""The transformer block that ViT and CLIP share; the norm stands before each part."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]

exact_gelu: Activation = functools.partial(nn.gelu, approximate=False)


def quick_gelu(x: jax.Array) -> jax.Array:
    """OpenAI's stand-in for GELU; up to 0.02 off it, so neither replaces the other."""
    return x * nn.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Self-attention.

    Attributes:
      heads: number of them.
      dtype: of the arithmetic.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """[B, T, C] -> [B, T, C]; `mask` [.., T, T] is true where a token may look."""
        b, t, c = x.shape
        qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, t, 3, self.heads, c // self.heads), 2, 0)
        y = nn.dot_product_attention(q, k, v, mask=mask).reshape(b, t, c)
        return nn.Dense(c, dtype=self.dtype, name="proj")(y)


class Block(nn.Module):
    """Attention and a two-layer network, each after a norm and with a shortcut.

    Attributes:
      heads: of the attention.
      epsilon: of the norms.
      activation: between the two layers.
      dtype: of the arithmetic.
    """

    heads: int
    epsilon: float
    activation: Activation
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """[B, T, C] -> [B, T, C]; all tokens see each other where there is no mask."""
        width = x.shape[-1]
        norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        y = norm(name="norm1")(x)
        x = x + Attention(self.heads, self.dtype, name="attn")(y, mask)
        y = nn.Dense(4 * width, dtype=self.dtype, name="fc1")(norm(name="norm2")(x))
        return x + nn.Dense(width, dtype=self.dtype, name="fc2")(self.activation(y))
