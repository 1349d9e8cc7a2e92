"""The four that the rest is measured against: SAM, GSAM, SAGM and DISAM."""

import optax

from disam_jax.combinations import average, subtract_orthogonal
from disam_jax.hyperparameters import Hyperparameter
from disam_jax.objectives import Objective, variance_penalized
from disam_jax.perturbations.ascend import ascend, ascend_and_match
from disam_jax.perturbations.masks import Mask
from disam_jax.perturbations.sized import ascend_adaptively
from disam_jax.sharpness import sharpness_aware


def sam(
    rho: Hyperparameter = 0.05,
    *,
    adaptive: bool = False,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM: the gradient at w + rho * grad / norm(grad). With adaptive=True, ASAM.

    rho = 0 gives ERM.

    When: the baseline that the others are measured against; one radius to tune.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      adaptive: whether the radius is measured relative to each parameter's size; rho is
        then about ten times larger.
      mask: which parameters are perturbed; None is all. Only the normalization layers:
        SAM-ON. Only the last layer: last-layer SAM.
      ascent: the objective that is climbed; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Foret et al., Sharpness-Aware Minimization, ICLR 2021, Eq. 2 and 3. Adaptive: Kwon
      et al., ASAM, ICML 2021; see `ascend_adaptively` for the differences.
    """
    perturb = ascend_adaptively if adaptive else ascend
    return sharpness_aware(perturb(rho, mask=mask), ascent=ascent, descent=descent)


def gsam(
    rho: Hyperparameter,
    alpha: Hyperparameter,
    *,
    adaptive: bool = False,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine_with: str = "ascent",
) -> optax.GradientTransformationExtraArgs:
    """GSAM: SAM's gradient less alpha * (the part of grad orthogonal to it).

    alpha = 0 gives SAM.

    When: SAM lowers the perturbed loss and the sharpness does not follow; one more
    weight to tune.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> loss_fn = lambda w: w[0] ** 2 + 3 * w[1] ** 2
      >>> tx, params = dj.gsam(rho=0.5, alpha=0.2), jnp.array([3.0, 4.0])
      >>> grads, _ = tx.update(None, tx.init(params), params, loss_fn=loss_fn)
      >>> print(grads)
      [ 6.16  26.929]

    Args:
      rho: >= 0, the radius; a float, array or schedule. The paper lets it follow the
        learning rate: `follow_learning_rate` makes that schedule.
      alpha: >= 0, a float, array or schedule; for ImageNet the paper has 0.01 (ResNet-50)
        and 0.4 (ViT-B/16).
      adaptive: as in `sam`.
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean. With
        `variance_penalized(lam)`: DISAM+GSAM.
      descent: the objective that is descended; None is the weighted mean.
      combine_with: `"ascent"` (the papers' listing) or `"descent"` (the pure form).

    Returns:
      The transformation.

    Raises:
      ValueError: rho or alpha is negative or not finite, or `combine_with` is unknown.

    References:
      Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, ICLR
      2022, Algorithm 1.
    """
    perturb = ascend_adaptively if adaptive else ascend
    return sharpness_aware(
        perturb(rho, mask=mask),
        ascent=ascent,
        descent=descent,
        combine=subtract_orthogonal(alpha),
        combine_with=combine_with,
    )


def sagm(
    rho: Hyperparameter = 0.05,
    alpha: Hyperparameter = 1e-3,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine_with: str = "ascent",
) -> optax.GradientTransformationExtraArgs:
    """SAGM: the mean of the gradients at w and at w + (rho / norm(grad) - alpha) * grad.

    When: the gradients at both points disagree; published for domain generalization,
    with half of the descent on the plain loss.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.sagm(rho=0.5, alpha=0.05), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6. 8.]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      alpha: >= 0, the step back; a float, array or schedule. The authors use 1e-3 (PACS,
        VLCS, TerraIncognita) and 5e-4 (OfficeHome, DomainNet).
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean. With
        `variance_penalized(lam)`: DISAM+SAGM.
      descent: the objective that is descended; None is the weighted mean.
      combine_with: `"ascent"` (the papers' listing) or `"descent"` (the pure form).

    Returns:
      The transformation.

    Raises:
      ValueError: rho or alpha is negative or not finite, or `combine_with` is unknown.

    References:
      Wang et al., Sharpness-Aware Gradient Matching for Domain Generalization, CVPR 2023.
      The authors' code fixes rho at 0.05, whatever it is set to; here it is used.
    """
    return sharpness_aware(
        ascend_and_match(rho, alpha, mask=mask),
        ascent=ascent,
        descent=descent,
        combine=average,
        combine_with=combine_with,
    )


def disam(
    rho: Hyperparameter = 0.05,
    lam: Hyperparameter = 0.1,
    *,
    variance: str = "uniform",
    adaptive: bool = False,
    mask: Mask = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """DISAM: SAM whose perturbation climbs weighted_mean - lam * variance of the losses.

    A domain whose loss is above the average is climbed less, so that all domains converge
    alike; the descent is of the plain loss. lam = 0, one domain or equal losses give SAM,
    and the cost is SAM's.

    When: several source domains converge at different speeds; SAM's cost.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.disam(rho=0.1, lam=0.2), jnp.array([1.0, 0.0])
      >>> loss_fn = lambda w: jnp.stack([3 * w[0] ** 2, (w[1] - 1) ** 2])
      >>> grads, _ = tx.update(None, tx.init(params), params, loss_fn=loss_fn)
      >>> print(grads)
      [ 3.237 -1.061]

    Args:
      rho: >= 0, the radius; a float, array or schedule. The paper's default is 0.05.
      lam: >= 0, the weight of the variance; a float, array or schedule. The paper's
        default is 0.1, stable within [0.1, 0.7].
      variance: `"uniform"` (the paper: every domain counts alike) or `"count_weighted"`
        (the released code: a domain counts by its examples in the batch).
      adaptive: as in `sam`.
      mask, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho or lam is negative or not finite, or `variance` is unknown.

    References:
      Zhang et al., Domain-Inspired Sharpness-Aware Minimization Under Domain Shifts, ICLR
      2024 (arXiv 2405.18861), Eq. 6 to 8 and Algorithm 1.
    """
    ascent = variance_penalized(lam, variance)
    return sam(rho, adaptive=adaptive, mask=mask, ascent=ascent, descent=descent)
