"""Loss scaling: float16 training where an overflow in either pass skips the whole step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax.evaluation import Evaluation, pop_evaluation, put_evaluation
from disam_jax.hyperparameters import check_integer
from disam_jax.trees import Tree


class LossScaleState(NamedTuple):
    """State of `scale_loss`.

    Attributes:
      scale: float32 scalar, of the coming step.
      good_steps: int32 scalar, finite steps since the scale changed.
      skipped: int32 scalar, steps that were skipped so far.
      inner: of the chain.
    """

    scale: jax.Array
    good_steps: jax.Array
    skipped: jax.Array
    inner: optax.OptState


def scale_loss(
    tx: optax.GradientTransformationExtraArgs,
    scale: float = 2.0**15,
    *,
    growth_interval: int = 2000,
) -> optax.GradientTransformationExtraArgs:
    """Scales the way back of both passes, and skips a step in which either overflowed.

    Float16 holds nothing above 65504 or below 6e-8. The cotangent is multiplied by the
    scale and the gradients, in float32, divided by it, before any norm is taken. When the
    gradient at w or at w + eps is not finite, the parameters and the whole inner state
    (momentum, counts, the perturbation's state) stay as they are and the scale is halved;
    after growth_interval good steps it is doubled.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = dj.scale_loss(optax.chain(dj.sam(rho=0.5), optax.sgd(0.1)), scale=1024.0)
      >>> params = jnp.array([3.0, 4.0])
      >>> step = lambda loss_fn, state: tx.update(None, state, params, loss_fn=loss_fn)
      >>> updates, state = step(lambda w: w @ w, tx.init(params))
      >>> print(updates, state.scale)
      [-0.66 -0.88] 1024.0
      >>> updates, state = step(lambda w: jnp.exp(100 * w) @ w, state)
      >>> print(updates, state.scale, state.skipped)
      [0. 0.] 512.0 1

    Args:
      tx: a method of this package, or a chain that begins with one; it is to be the whole
        optimizer, so that all of it stays behind in a skipped step.
      scale: > 0, of the first step.
      growth_interval: >= 1, good steps until the scale is doubled.

    Returns:
      The transformation; its update takes what `tx`'s takes, but for `loss_scale`.

    Raises:
      ValueError: scale is not positive and finite, or growth_interval < 1; at `update`, a
        `loss_scale` is given.

    References:
      Micikevicius et al., Mixed Precision Training, ICLR 2018. Factors and interval are
      those of `flax.training.dynamic_scale`, which sees one gradient alone.
    """
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be positive and finite; got {scale}.")
    check_integer("growth_interval", growth_interval)

    def init(params: Tree) -> LossScaleState:
        zero = jnp.zeros([], jnp.int32)
        return LossScaleState(jnp.float32(scale), zero, zero, tx.init(params))

    def update(
        updates: Any,
        state: LossScaleState,
        params: Tree | None = None,
        *,
        record: bool = False,
        loss_scale: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, LossScaleState]:
        if loss_scale is not None:
            raise ValueError(
                f"scale_loss finds the scale by itself; got loss_scale={loss_scale}. Leave "
                "it out, or give it to the method without scale_loss."
            )
        updates, after = tx.update(
            updates, state.inner, params, loss_scale=state.scale, record=True, **extra_args
        )
        evaluation, after = pop_evaluation(after)
        good = _is_finite(evaluation)
        updates = jax.tree.map(lambda u: jnp.where(good, u, jnp.zeros_like(u)), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state.inner)
        good_steps = jnp.where(good, state.good_steps + 1, 0)
        grown = good_steps >= growth_interval
        factor = jnp.where(good, jnp.where(grown, 2.0, 1.0), 0.5)
        new_state = LossScaleState(
            scale=jnp.clip(state.scale * factor, 1.0, 2.0**24),
            good_steps=jnp.where(grown, 0, good_steps),
            skipped=state.skipped + jnp.where(good, 0, 1),
            inner=put_evaluation(inner, evaluation) if record else inner,
        )
        return updates, new_state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _is_finite(evaluation: Evaluation) -> jax.Array:
    """Whether both passes' gradients and eps are: a norm is as finite as its entries."""
    norms = (
        evaluation.gradient_norm,
        evaluation.perturbation_norm,
        evaluation.perturbed_gradient_norm,
    )
    return jnp.all(jnp.isfinite(jnp.stack([jnp.max(norm) for norm in norms])))
