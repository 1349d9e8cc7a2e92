"""The same step as a gradient function, for where the optimizer's call is not ours."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from disam_jax.composed import ComposedLoss
from disam_jax.evaluation import Evaluation, holds_method, pop_evaluation
from disam_jax.passes.forward import LossFn
from disam_jax.passes.options import OPTIONS, StepOptions, check_keywords
from disam_jax.step import SharpnessState
from disam_jax.trees import Tree

# What is an array and may change from call to call is given at the call; the rest here.
AT_THE_CALL = ("domain_weights", "micro_batches", "loss_scale")
OF_THE_LOSS = "If it is loss_fn's own, name it in its signature: **kwargs would take slips."
SET = tuple(name for name in OPTIONS if name not in ("loss_fn", "record", *AT_THE_CALL))


def value_and_grad(
    loss_fn: LossFn,
    tx: optax.GradientTransformationExtraArgs,
    has_aux: bool = False,
    **options: Any,
) -> Callable[..., tuple[tuple[Evaluation, Tree], optax.OptState]]:
    """The same step as a gradient function, to be used before any optimizer.

    For Flax's `TrainState`, for gradient code of your own, and wherever the optimizer's
    `update` is not yours to call. For Flax NNX there is `disam_jax.nnx.Optimizer`.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> def loss_fn(params, batch):
      ...     return jnp.mean((batch - params) ** 2, axis=(1, 2))
      >>> tx = dj.disam(rho=0.05, lam=0.1)
      >>> grad_fn = dj.value_and_grad(loss_fn, tx)
      >>> params, batch = jnp.zeros(2), jnp.ones((3, 8, 2))
      >>> (evaluation, grads), state = grad_fn(params, tx.init(params), batch)
      >>> print(evaluation.losses, grads)
      [1. 1. 1.] [-1.035 -1.035]

    Args:
      loss_fn: (params, *args, **kwargs) -> losses [M] or a scalar, or (losses, aux). Of
        its keywords those that are nearly one of the call's stand in its signature.
      tx: `sam(...)`, `disam(...)`, or a chain that begins with one.
      has_aux: whether `loss_fn` returns an aux; it comes back as `evaluation.aux`.
      options: those of `StepOptions` that are no arrays: `ascent_loss_fn` and
        `perturbed_loss_fn`, with the arguments of `loss_fn`, `axis_name`, `compute_dtype`
        and `unroll`.

    Returns:
      (params, state, *args, domain_weights=None, micro_batches=None, loss_scale=None,
      **kwargs) -> ((evaluation, grads), state), where the first state is
      `tx.init(params)`. With micro-batches, `loss_fn` takes a micro-batch after `args`.

    Raises:
      ValueError: `tx` is not a method of this package or a chain that begins with one, or
        ends in an optimizer; at the call, as `sharpness_aware`'s update.
      TypeError: `loss_fn` is not a function; at the call, as `sharpness_aware`'s update.
    """
    _check_method(tx)
    if not callable(loss_fn):
        raise TypeError(
            f"loss_fn must be a function of the parameters; got {loss_fn!r}. The order is "
            "value_and_grad(loss_fn, method)."
        )

    wrong = options.keys() - SET
    if wrong:
        check_keywords(wrong, SET)
        raise TypeError(
            f"value_and_grad() takes of StepOptions {', '.join(SET)}; got "
            f"{', '.join(sorted(wrong))}. {', '.join(AT_THE_CALL)} go to the function that "
            "it returns."
        )

    def grad_fn(
        params: Tree,
        state: optax.OptState,
        *args: Any,
        domain_weights: jax.Array | None = None,
        micro_batches: Tree | None = None,
        loss_scale: jax.Array | None = None,
        **kwargs: Any,
    ) -> tuple[tuple[Evaluation, Tree], optax.OptState]:
        check_keywords(kwargs.keys() - _arguments_of(loss_fn), AT_THE_CALL, OF_THE_LOSS)
        own = StepOptions(
            loss_fn,
            domain_weights=domain_weights,
            micro_batches=micro_batches,
            loss_scale=loss_scale,
            has_aux=has_aux,
            record=True,
            **options,
        ).bound(*args, **kwargs)
        grads, state = optax.with_extra_args_support(tx).update(
            None,  # pyright: ignore[reportArgumentType]  Optax has no type for "ignored".
            state,
            params,
            **vars(own),
        )
        evaluation, state = pop_evaluation(state)
        return (evaluation, grads), state

    return grad_fn


def _arguments_of(loss_fn: LossFn) -> set[str]:
    if isinstance(loss_fn, ComposedLoss):
        both = loss_fn.outputs_fn, loss_fn.loss_of_outputs
        return set().union(*map(_arguments_of, both))
    try:
        return set(inspect.signature(loss_fn).parameters)
    except ValueError:  # some builtins have none
        return set()


def _check_method(tx: optax.GradientTransformation) -> None:
    """Refuses what gives no gradients: no method, or one with an optimizer after it."""
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(f"tx must be a method, disam_jax.sam(0.05) say; got {tx!r}.")
    for micro_batches in (None, np.ones((1, 1))):
        try:
            state, updates = _tried(tx, micro_batches)
        except Exception:  # a mask made for other parameters, or micro-batches are wanted
            continue
        if not holds_method(state):
            raise ValueError(
                "tx must be a method of this package, or a chain that begins with one; got "
                f"a transformation whose state is {state}."
            )
        if not isinstance(updates, Tracer) and np.asarray(updates).sum() <= 0:
            raise ValueError(
                "tx ends in an optimizer: what it gives for a gradient of ones is "
                f"{updates}, an update and no gradient. Give value_and_grad the method "
                "without the optimizer, and the gradients to the optimizer; or call "
                "tx.update(None, state, params, loss_fn=loss_fn)."
            )
        return


def _tried(tx: Any, micro_batches: Tree) -> tuple[Any, Any]:
    """The state, and what comes of a gradient of ones by two parameters."""
    params = np.ones(2, np.float32)
    state = jax.eval_shape(tx.init, params)
    if isinstance(state, SharpnessState) or not holds_method(state):
        return state, params  # by itself a method gives the gradient; that takes no trial
    with jax.ensure_compile_time_eval():
        updates, _ = tx.update(
            None,
            tx.init(params),
            params,
            loss_fn=lambda params, *micro_batch: jnp.sum(params),
            micro_batches=micro_batches,
        )
    return state, updates
