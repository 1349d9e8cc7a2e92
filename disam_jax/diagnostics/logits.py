"""Logits whose scale says nothing."""

import jax
import jax.numpy as jnp

from disam_jax import trees


def normalized_logits(logits: jax.Array) -> jax.Array:
    """Logits that have mean 0 and length 1: sharpness measured of them is no confidence.

    normalized = z / norm(z) with z = logits - mean(logits), along the last axis

    The cross entropy of a network that fits its data falls as its logits grow, and its
    sharpness with it, while not one prediction changes. Of these it does neither.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> def loss_fn(w, x, labels):
      ...     logits = dj.diagnostics.normalized_logits(x @ w)
      ...     return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
      >>> w, x, labels = jnp.array([[1.0, -1.0]]), jnp.ones((1, 1)), jnp.array([0])
      >>> print(loss_fn(w, x, labels), loss_fn(10 * w, x, labels))
      0.218 0.218

    Args:
      logits: [..., classes].

    Returns:
      Logits in the same shape; those that are all equal become 0.

    References:
      Andriushchenko et al., ICML 2023, whose code takes 1e-10 for a shorter length.
    """
    wide = trees.at_least_float32(logits)  # of float16 the squares would overflow
    centered = wide - jnp.mean(wide, axis=-1, keepdims=True)
    length = trees.sqrt(jnp.sum(centered**2, axis=-1, keepdims=True))
    return trees.safe_divide(centered, length).astype(jnp.result_type(logits))
