"""One pass per step: the perturbation comes from what is remembered, not from w.

eps = perturbation(direction)
g' = the gradients at w + eps
direction = remember(g' of the ascent objective), for the next step
"""

from typing import NamedTuple

import jax
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree


class OnePassState(NamedTuple):
    """What is kept from step to step.

    Attributes:
      perturbation: the perturbation's state.
      remember: the state of what makes the direction.
      direction: that the next perturbation is made of, zeros at first.
    """

    perturbation: optax.OptState
    remember: optax.OptState
    direction: Tree


def one_pass(
    perturbation: optax.GradientTransformation,
    *,
    remember: optax.GradientTransformation | None = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The gradient at w + eps, where eps is made of the steps before: one pass per step.

    The parameters stay w throughout, so they are what is evaluated and saved. Nothing is
    known of the losses at w: the evaluation has those at w + eps for both, and BatchNorm
    statistics come from there. With an ascent objective other than the descent's, another
    backward pass over the same residuals.

    Example:
      The first step's direction is 0, the second's the gradient of the first:

      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.one_pass(dj.ascend(rho=0.5)), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6. 8.]
      [6.6 8.8]

    Args:
      perturbation: direction -> eps, an Optax transformation.
      remember: gradient at w + eps -> the next step's direction, an Optax transformation;
        None is that gradient, `optax.trace(0.9)` the momentum of SGD.
      ascent: whose gradient is remembered; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation; its state holds the direction, as large as the parameters.

    Raises:
      ValueError, TypeError: at `update`, as `sharpness_aware`.

    References:
      The form of Becker et al., Momentum-SAM, 2024 (arXiv 2401.12033), Algorithm 1, with
      any memory and any ascent objective; their sign is -1, see `momentum_sam`.
    """
    remember = optax.identity() if remember is None else remember

    def init(params: Tree) -> OnePassState:
        return OnePassState(
            perturbation.init(params), remember.init(params), trees.zeros_like(params)
        )

    def step(loss: Losses, state: OnePassState, count: jax.Array) -> Step:
        eps, moved = perturbation.update(state.direction, state.perturbation, loss.params)
        ascent_grad, perturbed = loss.ascent_and_descent(eps)
        direction, kept = remember.update(ascent_grad.gradient, state.remember, loss.params)
        return Step(
            perturbed.gradient,
            OnePassState(moved, kept, direction),
            loss.evaluation(perturbed, perturbed, eps, ascent_grad),
        )

    return method_from_step(init, step, ascent=ascent, descent=descent)


def momentum_sam(
    rho: Hyperparameter = 0.3,
    decay: float = 0.9,
    *,
    mask: Mask = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum SAM: the gradient at w - rho * v / norm(v), v the momentum. One pass.

    v <- decay * v + gradient, from 0. The perturbation goes ahead along the descent, as
    Nesterov's; in sharp directions momentum overshoots, so that this climbs.

    When: a second pass cannot be had and SGD with momentum is the optimizer.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.momentum_sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6. 8.]
      [5.4 7.2]

    Args:
      rho: >= 0, the radius; a float, array or schedule. About ten times SAM's.
      decay: in [0, 1], of the momentum; SGD's, to be the authors' method.
      mask, descent: as in `sam`.

    Returns:
      The transformation; its state holds the momentum, as large as the parameters.

    Raises:
      ValueError: rho is negative or not finite, or decay out of [0, 1].

    References:
      Becker et al., Momentum-SAM: Sharpness Aware Minimization without Computational
      Overhead, 2024 (arXiv 2401.12033), Algorithm 1. The authors' code keeps w + eps in
      place of w and takes eps off before an evaluation; here the parameters are w, and the
      momentum is the method's own, without the optimizer's weight decay.
    """
    decay = check_number("decay", decay, at_most=1.0)
    ahead = optax.chain(ascend(rho, mask=mask), optax.scale(-1.0))
    return one_pass(ahead, remember=optax.trace(decay), descent=descent)


def noise_sam(
    rho: Hyperparameter = 0.05,
    *,
    seed: int = 0,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The gradient at w + rho * n / norm(n) with Gaussian noise n. One pass.

    A control for the methods that ask the gradient where to go.

    When: a control: what does not beat it does not need its gradient.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.noise_sam(rho=0.5, seed=2), jnp.array([3.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [7.]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      seed: of the noise; with the step count it gives each step's.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      The random baseline of Foret et al., ICLR 2021, and of many since. Random SAM of Liu
      et al., NeurIPS 2022, is another method: noise first, then an ascent, two passes.
    """
    radius = check_hyperparameter("rho", rho)

    def step(loss: Losses, state: tuple[()], count: jax.Array) -> Step:
        key = jax.random.fold_in(jax.random.key(seed), count)
        noise = trees.drawn_like(jax.random.normal, key, loss.no_eps())
        eps = trees.with_norm(noise, at_step(radius, count))
        perturbed = loss.at(eps).value_and_grad(loss.descent)
        return Step(perturbed.gradient, state, loss.evaluation(perturbed, perturbed, eps))

    return method_from_step(lambda params: (), step, descent=descent)


def one_pass_by_domain(
    perturbation: optax.GradientTransformation,
    *,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`one_pass` with the domains as micro-batches: another ascent objective costs nothing.

    The gradient g_i of each domain at w + eps is taken from its own examples, which costs
    one gradient of the batch in all. Then any number of objectives may be had of them:
    the descent sum_i d_i * g_i, and sum_i b_i * g_i, along which the next step's eps lies,
    where d and b are the gradients of the objectives by the domain losses seen here.

    Example:
      The first step's direction is 0, the second's that of the first:

      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx = dj.one_pass_by_domain(dj.ascend(0.5), ascent=dj.variance_penalized(0.1))
      >>> params = jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(
      ...         None, state, params,
      ...         loss_fn=lambda w, center: jnp.sum((w - center) ** 2),
      ...         micro_batches=jnp.array([[1.0, 0.0], [-1.0, 0.0]]),
      ...     )
      ...     print(grads.round(2))
      [6. 8.]
      [6.41 8.91]

    Args:
      perturbation: direction -> eps, an Optax transformation.
      ascent: whose gradient is the next step's direction; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation. Its update needs `micro_batches`, the domains as micro-batches
      [K, ...]; the evaluation's losses [K] are theirs. K gradients are held at once, and a
      model's live BatchNorm normalizes domain by domain.

    Raises:
      ValueError: at `update`, `micro_batches` is missing or has no common first axis.

    References:
      Not published; DISAM's Eq. 7 (Zhang et al., ICLR 2024) at the point before.
    """

    def init(params: Tree) -> OnePassState:
        zeros = trees.zeros_like(params)
        return OnePassState(perturbation.init(params), optax.EmptyState(), zeros)

    def step(loss: Losses, state: OnePassState, count: jax.Array) -> Step:
        eps, moved = perturbation.update(state.direction, state.perturbation, loss.params)
        domains = loss.of_each_micro_batch(eps)
        ascent_grad = domains.toward(loss.ascent)
        perturbed = domains.toward(loss.descent)
        return Step(
            perturbed.gradient,
            state._replace(perturbation=moved, direction=ascent_grad.gradient),
            loss.evaluation(perturbed, perturbed, eps, ascent_grad),
        )

    return method_from_step(init, step, ascent=ascent, descent=descent)
