"""Directions: what a perturbation's length is put on, made of more than one gradient.

They stand before the geometry in a chain: `optax.chain(away_from_mean(), ascend(0.05))`.
Optax's own transformations are directions too: `optax.ema` averages over steps,
`optax.centralize` takes each leaf's mean away.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import check_number
from disam_jax.trees import Tree


class AwayFromMeanState(NamedTuple):
    """State of `away_from_mean`.

    Attributes:
      count: int32 scalar, the steps done.
      mean: of the gradients seen, exponentially weighted.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Tree


def away_from_mean(sigma: float = 1.0, decay: float = 0.9) -> optax.GradientTransformation:
    """Friendly SAM's direction, grad - sigma * mean, where mean is of the steps before.

    mean <- decay * mean + (1 - decay) * grad, from the first gradient on, at which the
    direction is that gradient. What is left is the noise of the mini-batch.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, params = away_from_mean(sigma=1.0, decay=0.5), jnp.zeros(2)
      >>> first, state = tx.update(jnp.array([1.0, 0.0]), tx.init(params))
      >>> second, state = tx.update(jnp.array([1.0, 2.0]), state)
      >>> print(first, second, state.mean)
      [1. 0.] [0. 2.] [1. 1.]

    Args:
      sigma: >= 0, how much of the mean is taken away; 0 gives SAM.
      decay: in [0, 1].

    Returns:
      The transformation; its state is as large as the parameters.

    Raises:
      ValueError: sigma or decay is out of its range.

    References:
      Li et al., Friendly Sharpness-Aware Minimization, CVPR 2024, Eq. 8. The paper takes
      the mean with the new gradient in it, the authors' code, followed here, the one
      before; for sigma = 1 the directions are the same.
    """
    sigma = check_number("sigma", sigma)
    decay = check_number("decay", decay, at_most=1.0)

    def init(params: Tree) -> AwayFromMeanState:
        mean = optax.tree.zeros_like(trees.at_least_float32(params))
        return AwayFromMeanState(jnp.zeros([], jnp.int32), mean)

    def update(
        updates: Tree, state: AwayFromMeanState, params: Tree | None = None
    ) -> tuple[Tree, AwayFromMeanState]:
        del params
        first = state.count == 0
        away = jax.tree.map(lambda g, m: g - sigma * m, updates, state.mean)
        mean = jax.tree.map(
            lambda g, m: jnp.where(first, g, decay * m + (1 - decay) * g),
            updates,
            state.mean,
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        mean = optax.tree.cast_like(mean, state.mean)
        return away, AwayFromMeanState(count, mean)  # the first mean is 0

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def keep_outliers(quantile: float = 0.95) -> optax.GradientTransformation:
    """ZSharp's direction: of every matrix the entries that lie farthest from its mean.

    An entry stays where the absolute value of its z-score, within its leaf, is above that
    quantile of the leaf's; the others are 0. Leaves of one axis (biases, scales) stay as
    they are, and so does one whose entries are all as far from their mean.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, params = keep_outliers(0.5), jnp.zeros((1, 4))
      >>> print(tx.update(jnp.array([[1.0, -3.0, 2.0, 9.0]]), tx.init(params))[0])
      [[ 0. -3.  0.  9.]]

    Args:
      quantile: in [0, 1], of a leaf's z-scores.

    Returns:
      The transformation; it keeps no state.

    Raises:
      ValueError: quantile is out of its range.

    References:
      Yun, Sharpness-Aware Minimization with Z-Score Gradient Filtering, OPT workshop at
      NeurIPS 2025 (arXiv 2505.02369).
    """
    quantile = check_number("quantile", quantile, at_most=1.0)

    def filtered(grad: jax.Array) -> jax.Array:
        if grad.ndim < 2 or not grad.size:
            return grad
        away = jnp.abs(grad - jnp.mean(grad))  # the z-scores, but for the deviation
        kept = away > jnp.quantile(trees.everywhere(away), quantile)
        return jnp.where(kept | ~jnp.any(kept), grad, 0)

    return optax.stateless(lambda updates, params: jax.tree.map(filtered, updates))
