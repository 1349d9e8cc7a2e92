"""Polyak's step size for a sharpness-aware gradient, from what the step saw."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.evaluation import pop_evaluation, put_evaluation
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.trees import Tree


class PolyakState(NamedTuple):
    """State of `polyak_step`: by its kind it is told from a method, which gives gradients.

    Attributes:
      count: int32 scalar, the steps done.
      inner: of the method.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    inner: optax.OptState


def polyak_step(
    tx: optax.GradientTransformationExtraArgs,
    max_learning_rate: Hyperparameter = 1.0,
    f_min: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """A whole optimizer of a method: SGD whose learning rate is Polyak's, at w + eps.

    -gamma * g' with gamma = (L(w + eps) - f_min - <g', eps>) / norm(g')**2, held between 0
    and max_learning_rate. The bracket is the objective that is descended, at w by its
    tangent at w + eps, less the least that it can be. A zero gradient gives no step.

    It reads the record of the step, so that it serves any method and any eps. Published is
    `polyak_step(sam(rho))`, and `polyak_step(unnormalized_sam(rho))` for lambda = 0. With
    `optax.chain(sam(rho), optax.add_decayed_weights(5e-4))` within is the authors' weight
    decay, which gamma multiplies and does not know.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.polyak_step(dj.sam(rho=0.5)), jnp.array([0.0, 2.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [-0.   -0.75]

    Args:
      tx: a method of this package, or a chain that begins with one.
      max_learning_rate: >= 0, the largest gamma, the paper's gamma_b; a float, array or
        schedule.
      f_min: the least that the loss of a mini-batch can be, the paper's l*.

    Returns:
      The transformation; its update takes what `tx`'s takes. In micro-batches that climb
      each by themselves it stands within: `per_micro_batch(polyak_step(sam(rho)))`. A
      `Rule` descends no loss that a step could be told by: of one the step is NaN.

    Raises:
      ValueError: max_learning_rate or f_min is out of its range, or, at `update`, `tx`
        records no step or several.

    References:
      Sharpness-Aware Minimization with the Stochastic Polyak Scheduler, ICML 2026 (arXiv
      2606.01827). The authors' code takes all sums in float32; here they are in the dtype
      of the gradients, float32 at least. The names are those of `optax.polyak_sgd`.
    """
    largest = check_hyperparameter("max_learning_rate", max_learning_rate)
    least = check_number("f_min", f_min, at_least=-jnp.inf)

    def init(params: Tree) -> PolyakState:
        return PolyakState(jnp.zeros([], jnp.int32), tx.init(params))

    def update(
        updates: Any,
        state: PolyakState,
        params: Tree | None = None,
        *,
        record: bool = False,
        **extra_args: Any,
    ) -> tuple[Tree, PolyakState]:
        updates, after = tx.update(updates, state.inner, params, record=True, **extra_args)
        evaluation, after = pop_evaluation(after)
        gamma = jnp.clip(_polyak(evaluation, least), 0.0, at_step(largest, state.count))
        step = optax.tree.scale(-gamma, trees.at_least_float32(updates))
        inner = put_evaluation(after, evaluation) if record else after
        count = jnp.asarray(optax.safe_increment(state.count))
        return optax.tree.cast_like(step, updates), PolyakState(count, inner)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _polyak(seen: Any, f_min: float) -> jax.Array:
    if jnp.ndim(seen.perturbed_gradient_norm):
        raise ValueError(
            "polyak_step has one step size for one gradient; its method recorded "
            f"{len(seen.perturbed_gradient_norm)}. Put it within: "
            "per_micro_batch(polyak_step(method))."
        )
    bracket = seen.perturbed_objective - f_min - seen.perturbed_rise
    return trees.safe_divide(bracket, seen.perturbed_gradient_norm**2)
