"""Methods that differ from SAM in what is made of the two gradients."""

import optax
from jax.core import Tracer

from disam_jax.combinations import interpolate, renormalize
from disam_jax.hyperparameters import Hyperparameter, check_number
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.sharpness import sharpness_aware


def gradient_norm_penalty(
    rho: Hyperparameter = 0.1,
    alpha: Hyperparameter = 0.8,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine_with: str = "descent",
) -> optax.GradientTransformationExtraArgs:
    """The gradient-norm penalty: (1 - alpha) * grad + alpha * SAM's gradient.

    To first order the gradient of L + alpha * rho * norm(grad L). alpha = 1 gives SAM.

    Slots: `ascend(rho)`, combine `interpolate(alpha)`.

    When: SAM's step is too far from the plain one; alpha goes from one to the other.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.gradient_norm_penalty(0.5, alpha=0.5), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.3 8.4]

    Args:
      rho: >= 0, the radius, the paper's r; a float, array or schedule.
      alpha: >= 0, the penalty's weight over rho; a float, array or schedule.
      mask, ascent, descent: as in `sam`.
      combine_with: whose gradient at w is mixed in, `"ascent"` or `"descent"`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho or alpha is negative or not finite, or `combine_with` is unknown.

    References:
      Zhao et al., Penalizing Gradient Norm for Efficiently Improving Generalization in Deep
      Learning, ICML 2022 (arXiv 2202.03599). The released code's default mixes in the unit
      gradient in place of the gradient; this is the paper's formula.
    """
    return sharpness_aware(
        ascend(rho, mask=mask),
        ascent=ascent,
        descent=descent,
        combine=interpolate(alpha),
        combine_with=combine_with,
    )


def wsam(
    rho: Hyperparameter = 0.05,
    gamma: float = 0.9,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine_with: str = "descent",
) -> optax.GradientTransformationExtraArgs:
    """WSAM, coupled: grad + gamma / (1 - gamma) * (SAM's gradient - grad).

    The sharpness weighs gamma / (1 - gamma): gamma = 1/2 gives SAM, above it extrapolates,
    9 times at 0.9.

    Slots: `ascend(rho)`, combine `interpolate(gamma / (1 - gamma))`.

    When: SAM's regularization is too weak: gamma above 1/2 extrapolates.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.wsam(rho=0.5, gamma=0.75), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [ 7.8 10.4]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      gamma: in [0, 1).
      mask, ascent, descent: as in `sam`.
      combine_with: whose gradient at w is mixed in, `"ascent"` or `"descent"`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, gamma not in [0, 1), or `combine_with` is
        unknown.

    References:
      Yue et al., Sharpness-Aware Minimization Revisited: Weighted Sharpness as a
      Regularization Term, KDD 2023 (arXiv 2305.15817). The released code clips the two
      gradients apart; clip after this transformation.
    """
    return sharpness_aware(
        ascend(rho, mask=mask),
        ascent=ascent,
        descent=descent,
        combine=interpolate(sharpness_weight(gamma)),
        combine_with=combine_with,
    )


def stable_sam(
    rho: Hyperparameter = 0.05,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine_with: str = "descent",
) -> optax.GradientTransformationExtraArgs:
    """Stable SAM: SAM's gradient with the length of the gradient at w.

    Slots: `ascend(rho)`, combine `renormalize`.

    When: SAM needs a smaller learning rate than ERM, with SGD; Adam makes little of it.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.stable_sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6. 8.]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      mask, ascent, descent: as in `sam`.
      combine_with: whose gradient at w lends its length, `"ascent"` or `"descent"`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, or `combine_with` is unknown.

    References:
      Tan et al., Stabilizing Sharpness-aware Minimization Through A Simple Renormalization
      Strategy, JMLR 2025 (arXiv 2401.07250).
    """
    return sharpness_aware(
        ascend(rho, mask=mask),
        ascent=ascent,
        descent=descent,
        combine=renormalize,
        combine_with=combine_with,
    )


def sharpness_weight(gamma: float) -> float:
    """WSAM's weight of the sharpness, gamma / (1 - gamma)."""
    gamma = check_number("gamma", gamma)
    if not isinstance(gamma, Tracer) and gamma >= 1:
        raise ValueError(f"gamma must be below 1; got {gamma}. 1/2 is SAM.")
    return gamma / (1 - gamma)
