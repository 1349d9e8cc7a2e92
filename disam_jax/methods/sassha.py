"""SASSHA: a step by the curvature at w + eps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    BELOW_ONE,
    Hyperparameter,
    check_integer,
    check_number,
)
from disam_jax.objectives import Objective
from disam_jax.passes.forward import LossGrad
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree
from disam_jax.when import either


class SASSHAState(NamedTuple):
    """State of `sassha`.

    Attributes:
      perturbation: of the perturbation.
      mean: of the gradients at w + eps.
      curvature: of the absolute diagonals of the Hessian there.
    """

    perturbation: optax.OptState
    mean: Tree
    curvature: Tree


def sassha(
    rho: Hyperparameter = 0.1,
    period: int = 10,
    *,
    power: float = 0.5,
    decay: tuple[float, float] = (0.9, 0.999),
    damping: float = 1e-4,
    seed: int = 0,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SASSHA: SAM's gradient over a power of the Hessian's diagonal, both at w + eps.

    At every period-th step D is the mean over steps of abs(z * H z), with H the Hessian of
    the descent at w + eps and z random signs. Then m / (D**power + damping) is descended,
    where m is the mean over steps of the gradients there. Both means are corrected for
    their start.

    As m and D are the optimizer's moments, it stands before plain SGD:
    `optax.chain(sassha(), optax.add_decayed_weights(0.1), optax.sgd(learning_rate))`.

    When: a second-order step is wanted that does not run into a sharp minimum; two
    gradients, and one more at every period-th step.

    Example:
      Of w @ w the Hessian is 2:

      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx = dj.sassha(rho=0.5, power=1.0, damping=0.0)
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [3.3 4.4]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      period: >= 1, steps from one look at the curvature to the next.
      power: >= 0, of the curvature.
      decay: of m and of D, each in [0, 1).
      damping: >= 0, what is added to the power of D.
      seed: of z; with the step count it gives each step's.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation; its state is twice as large as the parameters. The loss function
      must have a forward derivative.

    Raises:
      ValueError: a number is out of its range.

    References:
      Shin et al., SASSHA: Sharpness-aware Adaptive Second-order Optimization with Stable
      Hessian Approximation, ICML 2025, in the form of the authors' code. There D is
      corrected for its start by all steps, though it moves at every tenth: by
      1 - b2**11 at the eleventh, after two moves. Here it is by its moves.
    """
    check_integer("period", period)
    b1, b2 = (check_number("decay", value, at_most=BELOW_ONE) for value in decay)
    check_number("power", power)
    check_number("damping", damping)
    perturbation = ascend(rho, mask=mask)

    def init(params: Tree) -> SASSHAState:
        zeros = trees.zeros_like(params)
        return SASSHAState(perturbation.init(params), zeros, zeros)

    def step(loss: Losses, state: SASSHAState, count: jax.Array) -> Step:
        climbed, clean = loss.ascent_alone()
        eps, moved = perturbation.update(climbed.gradient, state.perturbation, loss.params)
        key = jax.random.fold_in(jax.random.key(seed), count)
        perturbed, curvature = either(
            count % period == 0,
            lambda: _with_curvature(loss, eps, key, state.curvature, b2),
            lambda: (loss.at(eps).value_and_grad(loss.descent), state.curvature),
        )
        t = count.astype(float)
        mean = optax.tree.update_moment(perturbed.gradient, state.mean, b1, 1)
        m = trees.scale(1 / (1 - b1 ** (t + 1)), mean)
        d = trees.scale(1 / (1 - b2 ** (t // period + 1)), curvature)
        gradient = jax.tree.map(lambda m, d: trees.safe_divide(m, d**power + damping), m, d)
        evaluation = loss.evaluation(clean, perturbed, eps, climbed)
        return Step(gradient, SASSHAState(moved, mean, curvature), evaluation)

    return method_from_step(init, step, ascent=ascent, descent=descent)


def _with_curvature(
    loss: Losses, eps: Tree, key: jax.Array, mean: Tree, decay: float
) -> tuple[LossGrad, Tree]:
    """What is seen at w + eps, and the mean with the Hessian's diagonal there."""

    def there(eps: Tree) -> tuple[Tree, LossGrad]:
        seen = loss.at(eps).value_and_grad(loss.descent)
        return seen.gradient, seen

    signs = trees.drawn_like(jax.random.rademacher, key, eps)
    _, product, seen = jax.jvp(there, (eps,), (signs,), has_aux=True)
    diagonal = jax.tree.map(lambda z, h: jnp.abs(z * h), signs, product)
    return seen, optax.tree.update_moment(diagonal, mean, decay, 1)
