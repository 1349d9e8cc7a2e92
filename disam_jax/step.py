"""Steps: from what a method does with the losses to an Optax transformation.

A step evaluates the domain losses at some points, w and any w + eps, and makes a gradient
of what it saw. How the batch is taken there (whole, in micro-batches, over devices), the
loss scale, the dtypes, the records and the checks are here, so that a method need not know
of them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.evaluation import Evaluation, evaluation_of, realized_perturbation
from disam_jax.objectives import (
    Objective,
    ObjectiveFn,
    check_part,
    first_memory,
    objective_at,
    remembered,
    weighted_mean,
)
from disam_jax.passes.forward import (
    DomainGradients,
    LossFn,
    LossGrad,
    Pass,
    at_once,
    domain_losses,
)
from disam_jax.passes.options import (
    GIVEN_GRADIENTS,
    MISSING_LOSS_FN,
    MISSING_MICRO_BATCHES,
    OPTIONS,
    StepOptions,
    split_options,
)
from disam_jax.passes.parts import (
    check_micro_batches,
    in_micro_batches,
    micro_batch_weights,
    over_devices,
    scaled,
)
from disam_jax.rules import Rule
from disam_jax.trees import Tree

Chosen = ObjectiveFn | Rule


class Report(NamedTuple):
    """What a step tells of what it saw, from `Losses.evaluation`.

    Attributes:
      evaluation: what is recorded; None where nothing is.
      memories: of the two objectives, after the step.
    """

    evaluation: Evaluation | None
    memories: tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class Losses:
    """The domain losses as a function of where they are evaluated: w, or any w + eps.

    Attributes:
      params: w, as real arrays; of a complex leaf both coordinates.
      options: of the step.
      ascent: the objective that is climbed at this step, or a rule.
      descent: the one that is descended.
      remember: (what was climbed, what was descended) -> their memories after the step.
    """

    params: Tree
    options: StepOptions
    ascent: Chosen = weighted_mean
    descent: Chosen = weighted_mean
    remember: Callable[..., tuple[Any, Any]] = lambda climbed, descended: ((), ())

    def at(self, eps: Tree | None = None, loss_fn: LossFn | None = None) -> Pass:
        """The pass of `loss_fn` at w, or of `perturbed_loss_fn`, if given, at w + eps.

        Args:
          eps: the displacement; None is none.
          loss_fn: what is evaluated in their place.
        """
        options, params = self.options, self.params
        # w + eps, added in float32 and rounded to the parameters' dtype.
        if eps is not None:
            wide = trees.at_least_float32(params)
            params = optax.tree.cast_like(optax.tree.add(wide, eps), params)
            loss_fn = loss_fn or options.perturbed_loss_fn
        # The gradient by parameters that vary over the axis is this device's own.
        if options.axis_name is not None:
            params = trees.vary(params, options.axis_name)
        evaluate = functools.partial(
            domain_losses, loss_fn or options.loss_fn, options.has_aux
        )
        weights, micro_batches = options.domain_weights, options.micro_batches
        # l and its pullback, of the whole batch or of one micro-batch after another.
        if micro_batches is None:
            here = at_once(evaluate, params, weights)
        else:
            here = in_micro_batches(
                evaluate, params, weights, micro_batches, options.unroll
            )
        # Those of all devices' batches, and in the range that float16 holds.
        if options.axis_name is not None:
            here = over_devices(here, options.axis_name)
        if options.loss_scale is not None:
            here = scaled(here, options.loss_scale)
        rules = isinstance(self.ascent, Rule) or isinstance(self.descent, Rule)
        return here._replace(beside_rule=rules)

    def at_ascent(self, eps: Tree | None = None) -> Pass:
        """The pass whose gradient is climbed: of `ascent_loss_fn`, if there is one."""
        return self.at(eps, self.options.ascent_loss_fn or self.options.loss_fn)

    def ascent_alone(self) -> tuple[LossGrad, LossGrad]:
        """The ascent's gradient at w, which then is the clean one too: one way back."""
        ascent_loss_fn = self.options.ascent_loss_fn
        clean = self.at(loss_fn=ascent_loss_fn).value_and_grad(self.ascent)
        if ascent_loss_fn is None:
            return clean, clean
        # Of loss_fn nothing is known at w: something else was evaluated there.
        return clean, clean._replace(losses=trees.unknown(clean.losses))

    def ascent_and_descent(self, eps: Tree | None = None) -> tuple[LossGrad, LossGrad]:
        """The ascent's gradient and the descent's, at w or at w + eps."""
        here = self.at(eps)
        clean = here.value_and_grad(self.descent)
        return self.ascent_beside(clean, here, eps), clean

    def ascent_beside(
        self, clean: LossGrad, here: Pass, eps: Tree | None = None
    ) -> LossGrad:
        """The ascent's gradient beside `clean`, the descent's, which the pass `here` gave.

        That pass serves both unless there is an `ascent_loss_fn` (or, at w + eps, a
        `perturbed_loss_fn`), and one way back does if the objectives are the same too.
        """
        options = self.options
        if options.ascent_loss_fn or (eps is not None and options.perturbed_loss_fn):
            return self.at_ascent(eps).value_and_grad(self.ascent)
        same = self.ascent == self.descent
        return clean if same else here.value_and_grad(self.ascent)

    def of_each_micro_batch(self, eps: Tree | None = None) -> DomainGradients:
        """Every micro-batch's loss and gradient; a ValueError where the batch is whole."""
        own = self.at(eps).own
        if own is None:
            raise ValueError(MISSING_MICRO_BATCHES)
        return own(1.0)

    def of_micro_batch(self, index: jax.Array) -> "Losses":
        """The losses of one micro-batch alone; `index` may be traced."""
        parts = (self.options.micro_batches, self.options.domain_weights)
        own = jax.tree.map(lambda x: jnp.asarray(x)[index], parts)
        return dataclasses.replace(self, options=self.options.of_micro_batch(*own))

    def micro_batch_weights(self) -> jax.Array:
        """How much of the batch each micro-batch is, [K]; of a whole one a ValueError."""
        options = self.options
        if options.micro_batches is None:
            raise ValueError(MISSING_MICRO_BATCHES)
        given = options.micro_batches, options.domain_weights, options.axis_name
        return micro_batch_weights(*given)

    def no_eps(self) -> Tree:
        """No displacement, in the dtypes of one."""
        return trees.zeros_like(trees.at_least_float32(self.params))

    def evaluation(
        self,
        clean: LossGrad,
        perturbed: LossGrad | None = None,
        eps: Tree | None = None,
        ascent: LossGrad | None = None,
    ) -> Report:
        """What a step tells of what it saw.

        Args:
          clean: what was seen at w.
          perturbed: what was seen at w + eps; None is `clean`, of a step at one point.
          eps: the displacement; None is none.
          ascent: what was climbed; None is `clean`.
        """
        perturbed, ascent = perturbed or clean, ascent or clean
        memories = self.remember(ascent, perturbed)
        if not self.options.record:
            return Report(None, memories)
        eps = self.no_eps() if eps is None else eps
        evaluation = evaluation_of(clean, perturbed, eps, ascent)
        # What was descended, of the losses there; of a rule there is no such number.
        if isinstance(self.descent, Rule):
            value = trees.unknown(jnp.sum(perturbed.losses))
        else:
            shares = perturbed.cotangent if perturbed.weights is None else perturbed.weights
            value = self.descent(perturbed.losses, shares)
        evaluation = evaluation._replace(perturbed_objective=value)
        dtype = self.options.compute_dtype
        if dtype is not None:
            realized = realized_perturbation(self.params, eps, dtype)
            evaluation = evaluation._replace(realized=realized)
        return Report(evaluation, memories)


class _AtW(dict[str, Callable[[Losses], tuple[LossGrad, LossGrad]]]):
    def __missing__(self, name: str) -> NoReturn:
        raise ValueError(f"combine_with must be 'ascent' or 'descent'; got {name!r}.")


# combine_with -> the ascent's gradient at w, and the one there that is combined.
AT_W = _AtW(ascent=Losses.ascent_alone, descent=Losses.ascent_and_descent)


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
      TypeError: `ascent` or `descent` is no function, or a maker that was not called.
      ValueError, TypeError: at `update`, as `sharpness_aware`.
    """
    check_part("ascent", ascent)
    check_part("descent", descent)

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
