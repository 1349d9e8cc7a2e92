"""Combinations: the gradients at w and at w + eps -> the gradient that is descended.

A combination is a function `(grad, perturbed_grad) -> gradient` on two trees of one
structure. Which objective `grad` belongs to is `sharpness_aware`'s `combine_with`.
"""

from collections.abc import Callable

import jax

from disam_jax import trees
from disam_jax.hyperparameters import (
    Hyperparameter,
    Number,
    Scheduled,
    at_step,
    check_hyperparameter,
    follow_schedule,
)
from disam_jax.trees import Tree

Combination = Callable[[Tree, Tree], Tree] | Scheduled


def combination_at(combine: Combination | None, count: jax.Array) -> Callable[..., Tree]:
    """The combination as it is at step `count`; None is `take_perturbed`."""
    return take_perturbed if combine is None else at_step(combine, count)


def take_perturbed(grad: Tree, perturbed_grad: Tree) -> Tree:
    """SAM's choice: the gradient at w + eps alone.

    Example:
      >>> print(take_perturbed(1.0, 3.0))
      3.0

    Args:
      grad: the gradient at w; not used, and then not computed either.
      perturbed_grad: the gradient at w + eps.

    Returns:
      `perturbed_grad`.

    References:
      Foret et al., Sharpness-Aware Minimization, ICLR 2021, Eq. 3.
    """
    del grad
    return perturbed_grad


def average(grad: Tree, perturbed_grad: Tree) -> Tree:
    """SAGM's choice: (grad + perturbed_grad) / 2.

    Example:
      >>> print(average(1.0, 3.0))
      2.0

    Args:
      grad: the gradient at w.
      perturbed_grad: the gradient at w + eps.

    Returns:
      Their mean, leaf by leaf.

    References:
      Wang et al., Sharpness-Aware Gradient Matching for Domain Generalization, CVPR 2023.
      The objective is the sum of both losses; the authors' code takes half of it, as here.
    """
    return jax.tree.map(lambda g, p: (g + p) / 2, grad, perturbed_grad)


def subtract_orthogonal(alpha: Hyperparameter) -> Combination:
    """GSAM's choice: perturbed_grad - alpha * (grad's part orthogonal to perturbed_grad).

    The orthogonal part is grad - (<grad, p> / <p, p>) p with p = perturbed_grad: moving
    against it lowers the sharpness and, to first order, leaves the perturbed loss as it
    is. alpha = 0 gives SAM. A zero p has all of grad orthogonal to it.

    Example:
      >>> import jax.numpy as jnp
      >>> combine = subtract_orthogonal(alpha=0.5)
      >>> print(combine(jnp.array([1.0, 4.0]), jnp.array([2.0, 0.0])))
      [ 2. -2.]

    Args:
      alpha: >= 0, a float, array or schedule.

    Returns:
      The combination.

    Raises:
      ValueError: alpha is negative or not finite.

    References:
      Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, ICLR
      2022, Algorithm 1. One projection over all leaves together, as in the authors' code.
    """

    def make(alpha: Number) -> Callable[..., Tree]:
        def combine(grad: Tree, perturbed_grad: Tree) -> Tree:
            apart = trees.orthogonal(grad, perturbed_grad)
            return jax.tree.map(lambda p, o: p - alpha * o, perturbed_grad, apart)

        return combine

    return follow_schedule(make, check_hyperparameter("alpha", alpha))


def interpolate(alpha: Hyperparameter) -> Combination:
    """(1 - alpha) * grad + alpha * perturbed_grad, the gradient of a weighted sharpness.

    alpha = 0 is the plain gradient, 1/2 `average`, 1 SAM's; above 1 it extrapolates.

    Example:
      >>> print(interpolate(alpha=0.25)(1.0, 3.0))
      1.5

    Args:
      alpha: >= 0, a float, array or schedule.

    Returns:
      The combination.

    Raises:
      ValueError: alpha is negative or not finite.

    References:
      Zhao et al., Penalizing Gradient Norm for Efficiently Improving Generalization in Deep
      Learning, ICML 2022: to first order the descent of L + alpha * rho * norm(grad L).
    """

    def make(alpha: Number) -> Callable[..., Tree]:
        return lambda grad, perturbed_grad: jax.tree.map(
            lambda g, p: (1 - alpha) * g + alpha * p, grad, perturbed_grad
        )

    return follow_schedule(make, check_hyperparameter("alpha", alpha))


def renormalize(grad: Tree, perturbed_grad: Tree) -> Tree:
    """Stable SAM's choice: perturbed_grad with the length of grad.

    Example:
      >>> import jax.numpy as jnp
      >>> print(renormalize(jnp.array([2.0, 0.0]), jnp.array([0.0, 5.0])))
      [0. 2.]

    Args:
      grad: the gradient at w.
      perturbed_grad: the gradient at w + eps; zeros stay zeros.

    Returns:
      The scaled gradient.

    References:
      Tan et al., Stabilizing Sharpness-aware Minimization Through A Simple Renormalization
      Strategy, JMLR 2025.
    """
    return trees.with_norm(perturbed_grad, trees.norm(grad))
