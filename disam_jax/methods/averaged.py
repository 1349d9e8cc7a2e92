"""Methods whose eps climbs what is made of the gradients of several steps."""

import optax

from disam_jax.hyperparameters import ABOVE_ZERO, Hyperparameter, check_number
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.directions import away_from_mean
from disam_jax.perturbations.masks import Mask
from disam_jax.sharpness import sharpness_aware


def friendly_sam(
    rho: Hyperparameter = 0.05,
    sigma: float = 1.0,
    decay: float = 0.9,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Friendly SAM: eps climbs the mini-batch's noise, grad - sigma * mean of the steps.

    Slots: `optax.chain(away_from_mean(sigma, decay), ascend(rho))`. sigma = 0 gives SAM.

    When: batches are small and noisy, and the full gradient's part of the ascent hurts.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.friendly_sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      sigma: >= 0, how much of the mean is taken away.
      decay: in [0, 1], of the mean; the paper's lambda.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation; its state holds the mean, as large as the parameters.

    Raises:
      ValueError: rho, sigma or decay is out of its range.

    References:
      Li et al., Friendly Sharpness-Aware Minimization, CVPR 2024 (arXiv 2403.12350), in the
      form of the authors' code; see `away_from_mean`.
    """
    perturb = optax.chain(away_from_mean(sigma, decay), ascend(rho, mask=mask))
    return sharpness_aware(perturb, ascent=ascent, descent=descent)


def vasso(
    rho: Hyperparameter = 0.05,
    theta: float = 0.9,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """VaSSO: eps climbs a mean of the gradients, d <- (1 - theta) * d + theta * grad.

    Slots: `optax.chain(optax.ema(1 - theta), ascend(rho))`. theta = 1 gives SAM.

    When: batches are small and noisy, and the ascent direction should be steadier.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.vasso(rho=0.5, theta=0.4), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      theta: in (0, 1], the weight of the new gradient.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation; its state holds d, as large as the parameters.

    Raises:
      ValueError: rho is negative or not finite, or theta out of (0, 1].

    References:
      Li and Giannakis, Enhancing Sharpness-Aware Optimization Through Variance Suppression,
      NeurIPS 2023 (arXiv 2309.15639). d starts at 0, in the authors' code at the first
      gradient, which then weighs 1 / theta times as much.
    """
    theta = check_number("theta", theta, at_least=ABOVE_ZERO, at_most=1.0)
    perturb = optax.chain(optax.ema(1 - theta, debias=False), ascend(rho, mask=mask))
    return sharpness_aware(perturb, ascent=ascent, descent=descent)
