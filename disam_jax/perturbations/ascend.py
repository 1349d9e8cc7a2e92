"""The ascent gradient -> the displacement eps, as Optax transformations.

A perturbation's `update(ascent_grad, state, params)` returns the displacement that is
*added* to the parameters. Any Optax transformation will do, for instance
`optax.scale(rho)` for unnormalized SAM; `perturbation` makes one from a formula.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from disam_jax import trees
from disam_jax.hyperparameters import (
    Hyperparameter,
    Number,
    at_step,
    check_hyperparameter,
)
from disam_jax.perturbations.masks import Mask, only_where
from disam_jax.trees import Tree

Rule = Callable[[Tree, Tree, jax.Array], Tree]

FINE = 1e-3  # most numbers in half precision lie further apart than a smaller rho moves


class PerturbationState(NamedTuple):
    """State of a perturbation.

    Attributes:
      count: int32 scalar, the steps done; schedules read it.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def perturbation(
    rule: Rule, *, mask: Mask = None, rho: Hyperparameter | None = None
) -> optax.GradientTransformation:
    """Makes an Optax transformation of a rule (ascent_grad, params, count) -> eps.

    The rule sees leaves in at least float32 and, with a mask, only the leaves whose mask
    is True: the others do not move and do not count in any norm.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> sign_ascent = perturbation(
      ...     lambda grad, params, count: jax.tree.map(lambda g: 0.1 * jnp.sign(g), grad)
      ... )
      >>> params = {"kernel": jnp.array([1.0, 2.0])}
      >>> grad = {"kernel": jnp.array([-3.0, 4.0])}
      >>> eps, _ = sign_ascent.update(grad, sign_ascent.init(params), params)
      >>> print(eps["kernel"])
      [-0.1  0.1]

    Args:
      rule: (ascent_grad, params, count) -> eps, three trees of one structure and the
        int32 step count.
      mask: a tree of bools (or a prefix of one), or a function from the parameters to
        such a tree, by `optax.partition`; None perturbs all.
      rho: the radius, where the rule has one. A number below 1e-3 is warned of at `update`
        where the parameters are in half precision and may lose it; a schedule or a traced
        number cannot be looked at.

    Returns:
      The transformation; its state counts the steps.

    Raises:
      ValueError: at `update`, the parameters are missing.
      TypeError: at `init`, a mask leaf is not a bool.
    """
    number = isinstance(rho, float | np.number | jax.Array) and not isinstance(rho, Tracer)
    fine = number and 0 < float(rho) < FINE  # pyright: ignore[reportArgumentType]

    def init(params: Tree) -> PerturbationState:
        del params
        return PerturbationState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: Tree,
        state: PerturbationState,
        params: Tree | None = None,
    ) -> tuple[Tree, PerturbationState]:
        if params is None:
            raise ValueError("A perturbation needs params: update(grad, state, params).")
        if fine:
            _warn_of_rounding(rho, params)
        grad, wide = trees.at_least_float32(trees.to_real((updates, params)))
        eps = optax.tree.cast_like(rule(grad, wide, state.count), grad)
        if trees.is_complex(params):
            eps = trees.from_real(eps)
        return eps, PerturbationState(jnp.asarray(optax.safe_increment(state.count)))

    tx = optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
    return tx if mask is None else only_where(mask, tx)


def _warn_of_rounding(rho: Number, params: Tree) -> None:
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(params)}
    half = sorted(dtype.name for dtype in dtypes if dtype.itemsize < 4)
    if half:
        warnings.warn(
            f"rho={float(rho):g} over parameters in {', '.join(half)}: w + eps may round "
            "to w, and nothing is left of the perturbation. Keep the parameters in float32 "
            "and let the loss function cast them, or take a larger rho; "
            "disam_jax.realized_perturbation(params, eps, dtype) tells what is left.",
            stacklevel=2,
        )


def ascend(
    rho: Hyperparameter = 0.05, *, mask: Mask = None
) -> optax.GradientTransformation:
    """SAM's perturbation, eps = rho * grad / norm(grad).

    The norm is over all (unmasked) leaves together, so that norm(eps) = rho. A zero
    gradient gives eps = 0, and so does one whose norm float32 cannot square: below 1e-19 or
    above 1.8e19.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([3.0, 4.0])
      >>> tx = ascend(rho=0.5)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [0.3 0.4]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Foret et al., Sharpness-Aware Minimization, ICLR 2021, Eq. 2 with p = 2. Released
      codes add 1e-12 to the norm; here only a zero is special, so that tiny gradients
      still move by rho.
    """
    radius = check_hyperparameter("rho", rho)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        del params
        rho = at_step(radius, count)
        return optax.tree.scale(trees.safe_divide(rho, trees.norm(grad)), grad)

    return perturbation(rule, mask=mask, rho=radius)


def ascend_unnormalized(
    rho: Hyperparameter = 0.05, *, mask: Mask = None
) -> optax.GradientTransformation:
    """Unnormalized SAM's perturbation, eps = rho * grad.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([3.0, 4.0])
      >>> tx = ascend_unnormalized(rho=0.5)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [1.5 2. ]

    Args:
      rho: >= 0, in units of a learning rate; a float, array or schedule.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Andriushchenko and Flammarion, Towards Understanding Sharpness-Aware Minimization,
      ICML 2022, Eq. 4.
    """
    radius = check_hyperparameter("rho", rho)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        del params
        return optax.tree.scale(at_step(radius, count), grad)

    return perturbation(rule, mask=mask)


def ascend_and_match(
    rho: Hyperparameter = 0.05, alpha: Hyperparameter = 1e-3, *, mask: Mask = None
) -> optax.GradientTransformation:
    """SAGM's perturbation, eps = (rho / norm(grad) - alpha) * grad.

    SAM's ascent less a descent step of length alpha, which makes the gradients at both
    points agree. alpha = 0 gives `ascend`; a zero gradient gives eps = 0.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([3.0, 4.0])
      >>> tx = ascend_and_match(rho=0.5, alpha=0.05)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [0.15 0.2 ]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      alpha: >= 0, the step back, in units of a learning rate.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho or alpha is negative or not finite.

    References:
      Wang et al., Sharpness-Aware Gradient Matching for Domain Generalization, CVPR 2023;
      the form of the authors' code.
    """
    radius = check_hyperparameter("rho", rho)
    step_back = check_hyperparameter("alpha", alpha)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        del params
        rho, alpha = at_step(radius, count), at_step(step_back, count)
        scale = trees.safe_divide(rho, trees.norm(grad)) - alpha
        return optax.tree.scale(scale, grad)

    return perturbation(rule, mask=mask, rho=radius)


def ascend_by_loss(
    sigma: Hyperparameter = 0.05, rho_max: Hyperparameter = 0.1, *, mask: Mask = None
) -> optax.GradientTransformation:
    """LE-SAM's perturbation, eps = min(sigma / norm(grad), rho_max) * grad / norm(grad).

    Its length is where the loss has risen by sigma, to first order, so that the ball is one
    of the loss and not of the parameters: steep places are left sooner. rho_max holds it
    where the gradient fades. A zero gradient gives eps = 0.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([3.0, 4.0])
      >>> tx = ascend_by_loss(sigma=0.5, rho_max=1.0)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [0.06 0.08]

    Args:
      sigma: >= 0, by how much the loss rises; a float, array or schedule. The paper lets it
        fall to 0 as a cosine: `optax.cosine_decay_schedule(sigma, steps)`.
      rho_max: >= 0, the largest radius; a float, array or schedule.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: sigma or rho_max is negative or not finite.

    References:
      LE-SAM, ICML 2026 (arXiv 2605.10183). The paper divides by norm(grad) + delta; here
      only a zero is special, and rho_max bounds what a small norm makes of sigma.
    """
    rise = check_hyperparameter("sigma", sigma)
    largest = check_hyperparameter("rho_max", rho_max)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        del params
        norm = trees.norm(grad)
        at_most = jnp.minimum(at_step(rise, count), at_step(largest, count) * norm)
        return trees.with_norm(grad, trees.safe_divide(at_most, norm))

    return perturbation(rule, mask=mask, rho=largest)
