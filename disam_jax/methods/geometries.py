"""Methods that differ from SAM in eps alone: the norm of its ball, and its radius."""

import optax

from disam_jax.hyperparameters import Hyperparameter
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend, ascend_by_loss
from disam_jax.perturbations.directions import keep_outliers
from disam_jax.perturbations.masks import Mask
from disam_jax.perturbations.matrices import ascend_nuclear, ascend_spectral
from disam_jax.perturbations.sized import ascend_by_fisher
from disam_jax.sharpness import sharpness_aware


def nuclear_sam(
    rho: Hyperparameter = 0.05,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM in the nuclear ball: every matrix moves by rho along its top singular vectors.

    eps = rho * u1 @ v1.T, of rank one; vectors move by rho * g / norm(g).

    Slots: `ascend_nuclear(rho)`.

    When: the networks are made of matrices, and each should move by the same length in the
    one direction in which its map is steepest.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.nuclear_sam(rho=0.5), jnp.array([[3.0, 0.0], [0.0, 4.0]])
      >>> loss_fn = lambda w: jnp.sum(w**2)
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0].round(4) + 0.0)
      [[6. 0.]
       [0. 9.]]

    Args:
      rho: >= 0, the radius of each matrix; a float, array or schedule.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Pethick et al., nuSAM, TMLR 2025; see `ascend_nuclear`.
    """
    return sharpness_aware(ascend_nuclear(rho, mask=mask), ascent=ascent, descent=descent)


def spectral_sam(
    rho: Hyperparameter = 0.01,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM in the spectral ball, Muon's geometry: every singular value of eps is rho.

    eps = rho * U @ V.T for a gradient with the singular vectors U and V; vectors move by
    rho * g / norm(g).

    Slots: `ascend_spectral(rho)`.

    When: the optimizer is Muon, or one radius should serve networks of several widths.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.spectral_sam(rho=0.5), jnp.array([[3.0, 0.0], [0.0, 4.0]])
      >>> loss_fn = lambda w: jnp.sum(w**2)
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0].round(4))
      [[7. 0.]
       [0. 9.]]

    Args:
      rho: >= 0, the radius of each matrix, as a map; a float, array or schedule. Far
        smaller than SAM's: its length is rho times the root of the rank.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Pethick et al., TMLR 2025, with the spectral norm; see `ascend_spectral`.
    """
    return sharpness_aware(ascend_spectral(rho, mask=mask), ascent=ascent, descent=descent)


def le_sam(
    sigma: Hyperparameter = 0.05,
    rho_max: Hyperparameter = 0.1,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """LE-SAM: climbs until the loss has risen by sigma, and at most rho_max far.

    eps = min(sigma / norm(grad), rho_max) * grad / norm(grad).

    Slots: `ascend_by_loss(sigma, rho_max)`. With a large sigma it is SAM of rho_max.

    When: the gradient's length changes over the training, and the loss's rise should not.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.le_sam(sigma=0.5, rho_max=1.0), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.06 8.08]

    Args:
      sigma: >= 0, by how much the loss rises; a float, array or schedule.
      rho_max: >= 0, the largest radius; a float, array or schedule. No defaults of the
        paper could be verified: both are the scale of SAM's rho here.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: sigma or rho_max is negative or not finite.

    References:
      LE-SAM, ICML 2026 (arXiv 2605.10183); see `ascend_by_loss`.
    """
    perturb = ascend_by_loss(sigma, rho_max, mask=mask)
    return sharpness_aware(perturb, ascent=ascent, descent=descent)


def fisher_sam(
    rho: Hyperparameter = 0.05,
    eta: Hyperparameter = 0.2,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Fisher SAM: eps is measured by how much the predictions change.

    eps = rho * f * grad / sqrt(sum(f * grad**2)) with f = 1 / (1 + eta * grad**2).

    Slots: `ascend_by_fisher(rho, eta)`. eta = 0 gives SAM.

    When: a few parameters have most of the gradient, and the others should move too.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.fisher_sam(rho=0.5, eta=0.0), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.6 8.8]

    Args:
      rho: >= 0, the radius in that geometry; a float, array or schedule.
      eta: >= 0, how much the Fisher information counts; a float, array or schedule.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho or eta is negative or not finite.

    References:
      Kim et al., ICML 2022 (arXiv 2206.04920); see `ascend_by_fisher`.
    """
    perturb = ascend_by_fisher(rho, eta, mask=mask)
    return sharpness_aware(perturb, ascent=ascent, descent=descent)


def zsharp(
    rho: Hyperparameter = 0.05,
    quantile: float = 0.95,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """ZSharp: eps climbs only where a matrix's gradient has its outliers; norm(eps) = rho.

    Slots: `optax.chain(keep_outliers(quantile), ascend(rho))`.

    When: most entries of the gradient are noise around its few large ones.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.zsharp(rho=0.5, quantile=0.5), jnp.array([[1.0, 2.0, 9.0]])
      >>> loss_fn = lambda w: jnp.sum(w**2)
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0])
      [[ 2.  4. 19.]]

    Args:
      rho: >= 0, the radius, over all leaves together; a float, array or schedule.
      quantile: in [0, 1], below which the entries of a matrix do not move.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, or quantile out of [0, 1].

    References:
      Yun, OPT workshop at NeurIPS 2025 (arXiv 2505.02369). The released code gives *each*
      matrix the length rho, so that eps is rho times the root of their number, as
      `ascend` within each leaf; the paper, followed here, normalizes once.
    """
    perturb = optax.chain(keep_outliers(quantile), ascend(rho, mask=mask))
    return sharpness_aware(perturb, ascent=ascent, descent=descent)
