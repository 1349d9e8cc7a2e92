"""Steps: from what a method does with the losses to an Optax transformation.

A step evaluates the domain losses, `Losses`, where it likes, and makes a gradient of what
it saw. The checks, complex parameters and the memories of objectives are here, so that a
method need not know of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.evaluation import Evaluation
from disam_jax.losses import Losses, Report
from disam_jax.objectives import Objective, first_memory, objective_at, remembered
from disam_jax.passes.forward import LossGrad
from disam_jax.passes.options import (
    GIVEN_GRADIENTS,
    MISSING_LOSS_FN,
    OPTIONS,
    StepOptions,
    split_options,
)
from disam_jax.passes.parts import check_micro_batches
from disam_jax.trees import Tree


class Step(NamedTuple):
    """What a step makes of what it saw.

    Attributes:
      gradient: that is descended; it leaves in the parameters' dtypes.
      state: for the next step, of the tree that `init` gave.
      report: what it saw, from `Losses.evaluation`; None is nothing that is recorded, or
        remembered.
    """

    gradient: Tree
    state: Any
    report: Report | None


class StepFn(Protocol):
    """(loss, state, count) -> Step; `count` is the int32 number of steps done."""

    def __call__(self, loss: Losses, state: Any, count: jax.Array) -> Step:
        """Takes the step."""
        ...


class SharpnessState(NamedTuple):
    """State of a method.

    Attributes:
      count: int32 scalar, the steps done; scheduled hyperparameters read it.
      inner: what the step keeps; for `sharpness_aware` the perturbation's state.
      evaluation: None, but between `update(..., record=True)` and `pop_evaluation`.
      memories: of the ascent and the descent, see `Remembering`.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    inner: Any
    evaluation: Evaluation | None = None
    memories: tuple[Any, Any] = ((), ())


def method_from_step(
    init: Callable[[Tree], Any],
    step: StepFn,
    *,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Makes a method of a step that evaluates the losses wherever it likes.

    For methods that the four choices of `sharpness_aware` do not hold. Their update takes
    all of `StepOptions`.

    Example:
      The gradient in the middle of the way that SAM climbs:

      >>> import disam_jax as dj, jax, jax.numpy as jnp, optax
      >>> def step(loss, state, count):
      ...     clean = loss.at().value_and_grad(loss.ascent)
      ...     eps = jax.tree.map(lambda g: 0.25 * g, clean.gradient)
      ...     middle = loss.at(eps).value_and_grad(loss.descent)
      ...     return dj.Step(middle.gradient, state, loss.evaluation(clean, middle, eps))
      >>> tx = dj.method_from_step(lambda params: (), step)
      >>> params = jnp.array([1.0, 2.0])
      >>> grads, _ = tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)
      >>> print(grads)
      [3. 6.]

    Args:
      init: params -> the first state, any tree of arrays. It is given the parameters as
        real arrays in at least float32, as the step's gradients are.
      step: (loss, state, count) -> `Step`; `loss` is a `Losses`, whose `at(eps)` evaluates
        the domain losses there, `at(eps).value_and_grad(objective)` with the gradient.
      ascent: the objective that the step finds as `loss.ascent`; None is the weighted mean.
      descent: the one that it finds as `loss.descent`; None is the weighted mean.

    Returns:
      An Optax transformation with extra arguments, to stand first in a chain.

    Raises:
      ValueError, TypeError: at `update`, as `sharpness_aware`.
    """

    def first_state(params: Tree) -> SharpnessState:
        trees.check_params(params)
        wide = trees.at_least_float32(trees.to_real(params))
        memories = first_memory(ascent, wide), first_memory(descent, wide)
        return SharpnessState(jnp.zeros([], jnp.int32), init(wide), memories=memories)

    def update(
        updates: Any, state: SharpnessState, params: Tree | None = None, **options: Any
    ) -> tuple[Tree, SharpnessState]:
        """Takes a step; the options are those of `StepOptions`."""
        # What is of others in the chain is left to them, near misses refused.
        if options.keys() - OPTIONS:
            options, _ = split_options(options)
        own = StepOptions(**options)
        if jax.tree.leaves(updates):
            raise ValueError(GIVEN_GRADIENTS)
        if own.loss_fn is None:
            raise ValueError(MISSING_LOSS_FN)
        if params is None:
            raise ValueError("params is missing: call tx.update(None, state, params, ...).")
        trees.check_params(params)
        if own.micro_batches is not None:
            check_micro_batches(own.micro_batches)
        # The arithmetic is real: loss functions are given what they know, complex leaves.
        is_complex = trees.is_complex(params)
        if is_complex:
            own = own.bound(first=trees.from_real)
        # The objectives of this step: schedules and memories are looked up.
        count, (up, down) = state.count, state.memories

        def remember(climbed: LossGrad, descended: LossGrad) -> tuple[Any, Any]:
            kept = remembered(ascent, count, up, climbed)
            return kept, remembered(descent, count, down, descended)

        loss = Losses(
            trees.to_real(params),
            own,
            objective_at(ascent, count, up),
            objective_at(descent, count, down),
            remember,
        )
        # The method's own step.
        gradient, inner, report = step(loss, state.inner, count)
        evaluation, memories = report or Report(None, state.memories)
        count = jnp.asarray(optax.safe_increment(count))
        # Out in the parameters' dtypes.
        gradient = optax.tree.cast_like(gradient, loss.params)
        if is_complex:
            gradient = trees.from_real(gradient)
        return gradient, SharpnessState(count, inner, evaluation, memories)

    return optax.GradientTransformationExtraArgs(first_state, update)  # pyright: ignore[reportArgumentType]
