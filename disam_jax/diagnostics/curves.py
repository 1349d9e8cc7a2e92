"""Curves: the domain losses over time, and what the paper reads off them."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from disam_jax import trees


def convergence_degree(losses: ArrayLike, best: ArrayLike | None = None) -> jax.Array:
    """How far each domain has converged, C_i = best_i - losses_i: 0 where it is best.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> losses = jnp.array([[3.0, 2.0], [1.0, 1.5]])  # two steps, two domains
      >>> print(dj.diagnostics.convergence_degree(losses))
      [[-2.  -0.5]
       [ 0.   0. ]]

    Args:
      losses: [T, M], the domain losses over time.
      best: [M], each domain's lowest loss L_i*; None takes the lowest met.

    Returns:
      [T, M], in at least float32; the larger, the better converged.

    Raises:
      ValueError: the losses are not [T, M].

    References:
      Zhang et al., ICLR 2024, section 3.2.
    """
    losses = _curves(losses)
    return (jnp.min(losses, axis=0) if best is None else jnp.asarray(best)) - losses


def scaled_losses(losses: ArrayLike) -> jax.Array:
    """Each domain's losses scaled to [0, 1] over time, so that curves can be compared.

    scaled_i = (losses_i - min_t losses_i) / max_t (losses_i - min_t losses_i)

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> losses = jnp.array([[3.0, 2.0], [2.0, 2.0], [1.0, 2.0]])
      >>> print(dj.diagnostics.scaled_losses(losses))
      [[1.  0. ]
       [0.5 0. ]
       [0.  0. ]]

    Args:
      losses: [T, M], the domain losses over time.

    Returns:
      [T, M], in at least float32; 0 where a domain's loss never changes.

    Raises:
      ValueError: the losses are not [T, M].

    References:
      Zhang et al., ICLR 2024, Fig. 1b and appendix C.5.
    """
    losses = _curves(losses)
    above = losses - jnp.min(losses, axis=0)
    return trees.safe_divide(above, jnp.max(above, axis=0))


def loss_spread(losses: ArrayLike) -> jax.Array:
    """The standard deviation of the domain losses at every time: how uneven they are.

    spread = sqrt(mean_i (losses_i - mean_i losses_i)**2)

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> print(dj.diagnostics.loss_spread(jnp.array([[3.0, 1.0], [1.0, 1.0]])))
      [1. 0.]

    Args:
      losses: [T, M], the domain losses over time.

    Returns:
      [T], in at least float32: the square root of `disam_jax.domain_variance` with
      uniform shares.

    Raises:
      ValueError: the losses are not [T, M].

    References:
      Zhang et al., ICLR 2024, Eq. 6.
    """
    return jnp.std(_curves(losses), axis=1)


def _curves(losses: ArrayLike) -> jax.Array:
    losses = jnp.asarray(losses)
    losses = losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
    if losses.ndim != 2:
        raise ValueError(
            f"losses must have shape [T, M], times and domains; got {losses.shape}. "
            "One domain is losses[:, None]."
        )
    return losses
