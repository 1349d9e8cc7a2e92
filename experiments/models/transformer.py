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
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, before: jax.Array | None = None
    ) -> jax.Array:
        """[B, T, C] -> [B, T, C].

        Args:
          x: the tokens.
          mask: [.., T, P + T], true where a token may look.
          before: [1, P, C], tokens in front of those of all B rows, which are looked at and
            do not look; none where it is left out.
        """
        b, t, c = x.shape
        project = nn.Dense(3 * c, dtype=self.dtype, name="qkv")

        def heads(x: jax.Array) -> jax.Array:
            return project(x).reshape(*x.shape[:2], 3, self.heads, c // self.heads)

        q, k, v = jnp.moveaxis(heads(x), 2, 0)
        if before is not None:
            _, *shared = jnp.moveaxis(jnp.repeat(heads(before), b, axis=0), 2, 0)
            k, v = (
                jnp.concatenate(both, axis=1) for both in zip(shared, (k, v), strict=True)
            )
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
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, before: jax.Array | None = None
    ) -> jax.Array:
        """[B, T, C] -> [B, T, C]; see `Attention`. Without a mask all see each other."""
        width = x.shape[-1]
        norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        norm1 = norm(name="norm1")
        attention = Attention(self.heads, self.dtype, name="attn")
        x = x + attention(norm1(x), mask, None if before is None else norm1(before))
        y = nn.Dense(4 * width, dtype=self.dtype, name="fc1")(norm(name="norm2")(x))
        return x + nn.Dense(width, dtype=self.dtype, name="fc2")(self.activation(y))
