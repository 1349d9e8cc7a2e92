"""The transformer block that ViT and CLIP share; the norm stands before each part."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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
        if before is None:
            y = nn.dot_product_attention(q, k, v, mask=mask)
        else:
            _, first_k, first_v = jnp.moveaxis(heads(before)[0], 1, 0)
            y = attend_after(first_k, first_v, q, k, v, mask)
        return nn.Dense(c, dtype=self.dtype, name="proj")(y.reshape(b, t, c))


def attend_after(
    first_k: jax.Array,
    first_v: jax.Array,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
) -> jax.Array:
    """Attention to tokens in front that all rows share, and to a row's own.

    softmax(q [first_k, k]^T / sqrt(D)) [first_v, v], where what is shared is repeated for
    no row.

    Args:
      first_k: [P, H, D].
      first_v: the same.
      q: [B, T, H, D].
      k: the same.
      v: the same.
      mask: [.., T, P + T], true where a token may look; all see each other without one.

    Returns:
      [B, T, H, D].
    """
    scores = jnp.concatenate(
        [jnp.einsum("bthd,phd->bhtp", q, first_k), jnp.einsum("bthd,bshd->bhts", q, k)],
        axis=-1,
    )
    weights = nn.softmax(scores / np.sqrt(q.shape[-1]).astype(q.dtype), where=mask)
    first, own = jnp.split(weights, [len(first_k)], axis=-1)
    return jnp.einsum("bhtp,phd->bthd", first, first_v) + jnp.einsum(
        "bhts,bshd->bthd", own, v
    )


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
