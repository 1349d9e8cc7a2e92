"""What a step sees: the domain losses at w and at any w + eps.

How the batch is taken there (whole, in micro-batches, over devices), the loss scale, the
dtypes and the records are here, so that a method need not know of them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.evaluation import Evaluation, evaluation_of, realized_perturbation
from disam_jax.objectives import ObjectiveFn, weighted_mean
from disam_jax.passes.forward import (
    DomainGradients,
    LossFn,
    LossGrad,
    Pass,
    at_once,
    domain_losses,
)
from disam_jax.passes.options import MISSING_MICRO_BATCHES, StepOptions
from disam_jax.passes.parts import (
    check_micro_batches,
    in_micro_batches,
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
        return here if options.loss_scale is None else scaled(here, options.loss_scale)

    def at_ascent(self, eps: Tree | None = None) -> Pass:
        """The pass whose gradient is climbed: of `ascent_loss_fn`, if there is one."""
        return self.at(eps, self.options.ascent_loss_fn or self.options.loss_fn)

    def ascent_alone(self) -> tuple[LossGrad, LossGrad]:
        """The ascent's gradient at w, which then is the clean one too: one way back."""
        clean = self.at_ascent().value_and_grad(self.ascent)
        if self.options.ascent_loss_fn is None:
            return clean, clean
        # Of loss_fn nothing is known at w: something else was evaluated there.
        return clean, clean._replace(losses=jnp.nan * clean.losses)

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

    @property
    def num_micro_batches(self) -> int:
        """K; a ValueError where the batch is whole."""
        if self.options.micro_batches is None:
            raise ValueError(MISSING_MICRO_BATCHES)
        return check_micro_batches(self.options.micro_batches)

    def of_micro_batch(self, index: jax.Array) -> "Losses":
        """The losses of one micro-batch alone; `index` may be traced."""
        parts = (self.options.micro_batches, self.options.domain_weights)
        own = jax.tree.map(lambda x: jnp.asarray(x)[index], parts)
        return dataclasses.replace(self, options=self.options.of_micro_batch(*own))

    def micro_batch_weights(self) -> jax.Array:
        """How much of the batch each micro-batch is, [K], >= 0, of any sum."""
        weights, axis_name = self.options.domain_weights, self.options.axis_name
        if weights is None:
            return jnp.ones(self.num_micro_batches)
        weights = jnp.sum(jnp.asarray(weights), axis=1)
        return weights if axis_name is None else jax.lax.psum(weights, axis_name)

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
