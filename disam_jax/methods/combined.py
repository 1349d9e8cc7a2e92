"""Methods that differ from SAM in what is made of the two gradients."""

from typing import Any, NamedTuple

import chex
import jax
import optax
from jax.core import Tracer

from disam_jax import trees
from disam_jax.combinations import interpolate, renormalize
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_count,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.objectives import Objective, weighted_mean
from disam_jax.parameters import from_real
from disam_jax.perturbations import Mask, ascend
from disam_jax.sharpness import sharpness_aware
from disam_jax.sources import Points, SharpnessState, Step, gradient_source
from disam_jax.trees import Tree


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
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.
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
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.
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
        combine=interpolate(_sharpness_weight(gamma)),
        combine_with=combine_with,
    )


class DecoupledState(NamedTuple):
    """State of `wsam_decoupled`.

    Attributes:
      source: of the gradients.
      optimizer: of the optimizer that descends the plain one.
    """

    source: SharpnessState
    optimizer: optax.OptState


def wsam_decoupled(
    optimizer: optax.GradientTransformation,
    learning_rate: Hyperparameter,
    rho: Hyperparameter = 0.05,
    gamma: float = 0.9,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """WSAM, decoupled: the optimizer's step on grad, and the sharpness's beside it.

    update = optimizer(grad) - learning_rate * weight * (SAM's gradient - grad) with
    weight = gamma / (1 - gamma), so that the optimizer's moments see the plain gradient
    alone, as in decoupled weight decay. It is a whole optimizer: nothing that scales by a
    learning rate stands after it.

    When: an adaptive optimizer should not see the sharpness's gradient in its moments.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = dj.wsam_decoupled(optax.sgd(0.1), 0.1, rho=0.5, gamma=0.75)
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [-0.78 -1.04]

    Args:
      optimizer: what descends the plain gradient, with its learning rate.
      learning_rate: the same again, a float, array or schedule.
      rho: >= 0, the radius; a float, array or schedule.
      gamma: in [0, 1); the sharpness weighs gamma / (1 - gamma).
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation, a whole optimizer.

    Raises:
      ValueError: rho or the learning rate is negative or not finite, or gamma not in
        [0, 1).

    References:
      Yue et al., KDD 2023 (arXiv 2305.15817), the default form of the released code.
    """
    check_hyperparameter("learning_rate", learning_rate)
    weight = _sharpness_weight(gamma)
    perturbation = ascend(rho, mask=mask)
    ascent = weighted_mean if ascent is None else ascent
    descent = weighted_mean if descent is None else descent

    def step(points: Points, memory: Any, count: chex.Array) -> Step:
        descent_now = at_step(descent, count)
        start, clean = points.looks(at_step(ascent, count), descent_now)
        state = memory["perturbation"]
        eps, state = perturbation.update(start.gradient, state, points.params)
        perturbed = points.at_perturbed(eps).look(descent_now)
        sharpness = optax.tree.sub(perturbed.gradient, clean.gradient)
        kept = {"perturbation": state, "sharpness": sharpness}
        return Step(clean.gradient, kept, points.evaluation(clean, perturbed, eps, start))

    source: Any = gradient_source(
        lambda params: {
            "perturbation": perturbation.init(trees.at_least_float32(params)),
            "sharpness": (),
        },
        step,
    )

    def init(params: Tree) -> DecoupledState:
        return DecoupledState(source.init(params), optimizer.init(params))

    def update(
        updates: Any, state: DecoupledState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, DecoupledState]:
        grads, seen = source.update(updates, state.source, params, **extra_args)
        updates, base = optimizer.update(grads, state.optimizer, params)
        scale = weight * at_count(learning_rate, state.source.count)
        sharpness = from_real(seen.memory["sharpness"])
        updates = jax.tree.map(lambda u, s: u - scale * s, updates, sharpness)
        # The sharpness's gradient is this step's alone.
        seen = seen._replace(memory={**seen.memory, "sharpness": ()})
        return trees.cast_like(updates, params), DecoupledState(seen, base)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


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
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.
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


def _sharpness_weight(gamma: float) -> float:
    gamma = check_number("gamma", gamma)
    if not isinstance(gamma, Tracer) and gamma >= 1:
        raise ValueError(f"gamma must be below 1; got {gamma}. 1/2 is SAM.")
    return gamma / (1 - gamma)
