"""Methods that differ from SAM in eps alone: its geometry, and what moves."""

import optax

from disam_jax.hyperparameters import Hyperparameter
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend, ascend_unnormalized
from disam_jax.perturbations.masks import Mask, normalization_layers
from disam_jax.perturbations.sized import (
    Size,
    ascend_adaptively,
    ascend_by_sign,
    each_layer,
    each_weight,
)
from disam_jax.sharpness import sharpness_aware


def asam(
    rho: Hyperparameter = 0.5,
    eta: float = 0.01,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """ASAM as its authors released it: T = |w| + eta for weights and 1 for biases.

    eps = rho * T**2 * grad / norm(T * grad). `sam(rho, adaptive=True)` is the form without
    eta, which scales biases too.

    Slots: `ascend_adaptively(rho, size=each_weight(eta))`.

    When: layers differ in scale, or weights are rescaled (weight normalization, no
    BatchNorm).

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.asam(rho=0.5, eta=0.0), jnp.array([[3.0, 4.0]])
      >>> grads, _ = tx.update(None, tx.init(params), params, loss_fn=lambda w: jnp.sum(w))
      >>> print(grads)
      [[1. 1.]]

    Args:
      rho: >= 0, the radius in units of the weights' size; the authors take 0.5 to 2.
      eta: >= 0, what is added to a weight's size.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho or eta is negative or not finite.

    References:
      Kwon et al., ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning
      of Deep Neural Networks, ICML 2021 (arXiv 2102.11600), Eq. 6. A weight is a leaf of
      two axes or more, where the authors' code looks for "weight" in its name.
    """
    perturb = ascend_adaptively(rho, size=each_weight(eta), mask=mask)
    return sharpness_aware(perturb, ascent=ascent, descent=descent)


def layerwise_sam(
    rho: Hyperparameter = 0.05,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM with a radius relative to each layer: T = the norm of the leaf, all leaves alike.

    eps = rho * T**2 * grad / norm(T * grad).

    Slots: `ascend_adaptively(rho, size=each_layer)`.

    When: layers differ in scale, and within a layer all weights should move alike.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx = dj.layerwise_sam(rho=0.5)
      >>> params = {"a": jnp.array([2.0]), "b": jnp.array([0.0])}
      >>> loss_fn = lambda w: (w["a"][0] + w["b"][0]) ** 2
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0]["a"])
      [6.]

    Args:
      rho: >= 0, the radius in units of the layers' norms; a float, array or schedule.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Mueller et al., Normalization Layers Are All That Sharpness-Aware Minimization Needs,
      NeurIPS 2023 (arXiv 2306.04226), Table 10. LookSAM's layer-wise form divides by the
      layer's gradient norm and is another; its normalizer could not be verified.
    """
    perturb = ascend_adaptively(rho, size=each_layer, mask=mask)
    return sharpness_aware(perturb, ascent=ascent, descent=descent)


def linf_sam(
    rho: Hyperparameter = 0.01,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM in the l-inf ball: every parameter moves by rho along the gradient's sign.

    Slots: `ascend_by_sign(rho)`.

    When: a radius per parameter is wanted; with sign-based optimizers.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.linf_sam(rho=0.5), jnp.array([3.0, -4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [ 7. -9.]

    Args:
      rho: >= 0, by how much each parameter moves; a float, array or schedule.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Foret et al., Sharpness-Aware Minimization, ICLR 2021, Eq. 2 with p = inf.
    """
    perturb = ascend_by_sign(rho, mask=mask)
    return sharpness_aware(perturb, ascent=ascent, descent=descent)


def sam_on(
    rho: Hyperparameter = 0.5,
    *,
    size: Size | None = None,
    mask: Mask = normalization_layers,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM-ON: only the normalization layers are perturbed; all parameters are descended.

    norm(eps) = rho within those layers.

    Slots: `ascend(rho, mask=normalization_layers)`, or with a size `ascend_adaptively`.

    When: a model with normalization layers; the ascent's second pass then moves few
    parameters.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx = dj.sam_on(rho=0.5)
      >>> params = {"norm": jnp.array([2.0]), "kernel": jnp.array([3.0])}
      >>> loss_fn = lambda w: (w["norm"] * w["kernel"])[0]
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0])
      {'kernel': Array([2.5], dtype=float32), 'norm': Array([3.], dtype=float32)}

    Args:
      rho: >= 0, the radius; a float, array or schedule. Larger than for all layers.
      size: None for SAM's geometry; `each_element` for ASAM's.
      mask: which parameters are perturbed, by default those with "norm" or "bn" in their
        name.
      ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite; at `update`, no parameter has such a name.

    References:
      Mueller et al., Normalization Layers Are All That Sharpness-Aware Minimization Needs,
      NeurIPS 2023 (arXiv 2306.04226).
    """
    if size is None:
        perturb = ascend(rho, mask=mask)
    else:
        perturb = ascend_adaptively(rho, size=size, mask=mask)
    return sharpness_aware(perturb, ascent=ascent, descent=descent)


def unnormalized_sam(
    rho: Hyperparameter = 0.05,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Unnormalized SAM: the gradient at w + rho * grad.

    Slots: `ascend_unnormalized(rho)`.

    When: the ascent should fade where the gradient does, near a minimum; theory.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.unnormalized_sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [12. 16.]

    Args:
      rho: >= 0, in units of a learning rate; a float, array or schedule.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Andriushchenko and Flammarion, Towards Understanding Sharpness-Aware Minimization,
      ICML 2022 (arXiv 2206.06232), Eq. 4.
    """
    perturb = ascend_unnormalized(rho, mask=mask)
    return sharpness_aware(perturb, ascent=ascent, descent=descent)
