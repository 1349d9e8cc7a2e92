"""What the two towers are trained on: pictures and names that belong together are close."""

import jax
import jax.numpy as jnp
import optax

from experiments.models.clip.classifier import unit


def contrastive_loss(
    images: jax.Array, texts: jax.Array, scale: jax.Array, names: jax.Array
) -> jax.Array:
    """InfoNCE of both directions, all pairs of one name being right.

    Args:
      images: features [B, D].
      texts: features [B, D], one text for each image.
      scale: logarithm of what cosines are multiplied by.
      names: int [B], equal where the names are equal.

    Returns:
      The mean cross-entropy, the right answers of a row sharing it alike.
    """
    logits = jnp.exp(scale) * unit(images) @ unit(texts).T
    same = (names[:, None] == names[None]).astype(logits.dtype)
    targets = same / same.sum(axis=1, keepdims=True)
    rows = optax.softmax_cross_entropy(logits, targets)
    columns = optax.softmax_cross_entropy(logits.T, targets)
    return (rows.mean() + columns.mean()) / 2
