"""bSAM: a variational mean whose perturbation and step share a precision."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    ABOVE_ZERO,
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.objectives import Objective
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree


class BSAMState(NamedTuple):
    """State of `bsam`.

    Attributes:
      mean: of the gradients, the paper's g_m.
      precision: of each parameter, the paper's s.
    """

    mean: Tree
    precision: Tree


def bsam(
    num_examples: float,
    rho: Hyperparameter = 0.05,
    *,
    weight_decay: Hyperparameter = 5e-4,
    decay: tuple[float, float] = (0.9, 0.999),
    damping: float = 0.1,
    first_precision: float = 1.0,
    seed: int = 0,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """bSAM: the weights are a Gaussian of precision N * s, and s scales eps and the step.

    g is the gradient at w + n / sqrt(N * s) with n standard normal, g' that at w + eps with
    eps = rho * g / s. Then mean <- b1 * mean + (1 - b1) * (g' + delta * w), mean / s is
    descended, and s <- b2 * s + (1 - b2) * (sqrt(s) * abs(g) + damping + delta).

    As s is both the geometry of eps and the optimizer's second moment, it stands before
    plain SGD: `optax.chain(bsam(N), optax.sgd(learning_rate))`.

    When: uncertainty of the weights is wanted beside their mean: N * s is its precision.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, math
      >>> tx, params = dj.bsam(math.inf, rho=0.5, weight_decay=0.0), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [1.2 1.6]

    Args:
      num_examples: > 0, N, of the training set; infinite is without noise.
      rho: >= 0, the radius, in units of g / s; a float, array or schedule.
      weight_decay: >= 0, delta, the prior's precision over N; the authors take 25 / N.
      decay: b1 and b2, each in [0, 1].
      damping: >= 0, what is added to the precision.
      first_precision: > 0, s before the first step.
      seed: of the noise; with the step count it gives each step's.
      ascent, descent: as in `sam`.

    Returns:
      The transformation; its state is twice as large as the parameters. The evaluation's
      losses at w are those at the noisy point.

    Raises:
      ValueError: a number is out of its range.

    References:
      Moellenhoff and Khan, SAM as an Optimal Relaxation of Bayes, ICLR 2023 (arXiv
      2210.01620), in the form of the authors' code, which is JAX. There eight parts of a
      batch climb each by itself: `per_micro_batch(bsam(N))`.
    """
    radius = check_hyperparameter("rho", rho)
    delta = check_hyperparameter("weight_decay", weight_decay)
    b1, b2 = (check_number("decay", value, at_most=1.0) for value in decay)
    check_number("damping", damping)
    first_precision = check_number("first_precision", first_precision, at_least=ABOVE_ZERO)
    if not (isinstance(num_examples, float) and num_examples == math.inf):
        num_examples = check_number("num_examples", num_examples, at_least=ABOVE_ZERO)
    if isinstance(num_examples, int):
        num_examples = float(num_examples)  # of more than an int32 holds

    def init(params: Tree) -> BSAMState:
        return BSAMState(
            trees.zeros_like(params), optax.tree.full_like(params, first_precision)
        )

    def step(loss: Losses, state: BSAMState, count: jax.Array) -> Step:
        s, wd = state.precision, at_step(delta, count)
        noise = _noise(s, num_examples, jax.random.fold_in(jax.random.key(seed), count))
        noisy = loss.at_ascent(noise).value_and_grad(loss.ascent)
        eps = jax.tree.map(lambda g, s: at_step(radius, count) * g / s, noisy.gradient, s)
        perturbed = loss.at(eps).value_and_grad(loss.descent)
        params = trees.at_least_float32(loss.params)
        decayed = jax.tree.map(lambda g, w: g + wd * w, perturbed.gradient, params)
        mean = optax.tree.update_moment(decayed, state.mean, b1, 1)
        direction = optax.tree.div(mean, s)
        root = jax.tree.map(
            lambda g, s: jnp.sqrt(s) * abs(g) + damping + wd, noisy.gradient, s
        )
        state = BSAMState(mean, optax.tree.update_moment(root, s, b2, 1))
        return Step(direction, state, loss.evaluation(noisy, perturbed, eps))

    return method_from_step(init, step, ascent=ascent, descent=descent)


def _noise(precision: Tree, num_examples: float, key: jax.Array) -> Tree:
    """A draw of the posterior, less its mean."""
    draws = trees.drawn_like(jax.random.normal, key, precision)
    return jax.tree.map(lambda n, s: n / jnp.sqrt(num_examples * s), draws, precision)
