"""Flax NNX: an optimizer that takes the loss function, of models that change when called.

Flax is not among this package's dependencies; it is imported where this module is asked
for, as `disam_jax.nnx`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

try:
    from flax import nnx
except ImportError as _error:
    raise ImportError(
        "disam_jax.nnx trains models of Flax NNX, and Flax is not installed: "
        "pip install 'flax>=0.12.8'. Nothing else in disam_jax needs it."
    ) from _error

from disam_jax.composed import ComposedLoss
from disam_jax.evaluation import Evaluation, holds_method, pop_evaluation
from disam_jax.passes.forward import LossFn, domain_losses
from disam_jax.passes.options import LOSS_FNS, StepOptions, split_options
from disam_jax.passes.parts import mean_from, micro_batch_weights
from disam_jax.trees import Tree


class Optimizer(nnx.Optimizer[Any]):
    """`nnx.Optimizer` for a method: its `update` takes the loss function, not gradients.

    `wrt` says both what is perturbed and what is trained. What else of the model changes
    when it is called (BatchNorm's statistics, the counts of random streams) comes from the
    pass at w, once per step; both passes start from one model, and have one dropout mask.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> from flax import nnx
      >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
      >>> tx = optax.chain(dj.disam(rho=0.05, lam=0.1), optax.sgd(0.1))
      >>> optimizer = dj.nnx.Optimizer(model, tx, wrt=nnx.Param)
      >>> def loss_fn(model, x, y):
      ...     return jnp.mean((model(x) - y) ** 2, axis=(1, 2))
      >>> x, y = jnp.ones((3, 8, 2)), jnp.zeros((3, 8, 1))  # 3 domains of 8 examples
      >>> evaluation = optimizer.update(model, loss_fn, x, y)
      >>> print(evaluation.losses.shape, evaluation.perturbation_norm)
      (3,) 0.05

    Args:
      model: an NNX module.
      tx: a method, or a chain that begins with one: `chain(disam(0.05, 0.1), adamw(1e-3))`.
      wrt: which of the model's variables, `nnx.Param` or `nnx.LoRAParam` say.
      options: of `nnx.Optimizer`.

    Raises:
      ValueError: there is no method in `tx`, or one within `optax.MultiSteps`.
    """

    def __init__(
        self,
        model: Any,
        tx: optax.GradientTransformationExtraArgs,
        *,
        wrt: Any,
        **options: Any,
    ):
        super().__init__(model, tx, wrt=wrt, **options)
        if not holds_method(self.opt_state):
            raise ValueError(
                "tx must begin with a method of this package, as in "
                "optax.chain(disam_jax.sam(0.05), optax.adamw(1e-3)), and holds none; "
                "disam_jax.erm() is the one that perturbs nothing."
            )
        parts = jax.tree.leaves(self.opt_state, is_leaf=_adds_up)
        if any(_adds_up(part) and holds_method(part.inner_opt_state) for part in parts):
            raise ValueError(
                "a method of tx is within optax.MultiSteps, which adds up gradients of w, "
                "and it asks for those at w + eps of the whole batch: give the chain alone "
                "and its parts as update(..., micro_batches=...)."
            )

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        model: Any,
        loss_fn: Callable[..., Any],
        /,
        *batch: Any,
        has_aux: bool = False,
        **options: Any,
    ) -> Evaluation:
        """Takes a step: changes the model and this optimizer.

        Args:
          model: the one that this optimizer was made for.
          loss_fn: (model, *batch) -> losses [M] or a scalar, or (losses, aux). It is free
            to change the model that it is given, which is a copy.
          batch: the further arguments of `loss_fn`.
          has_aux: whether `loss_fn` returns an aux; it comes back as `evaluation.aux`.
          options: the others of `StepOptions`, whose loss functions take the model too,
            and what others in the chain take; a record is always made. With
            `micro_batches`, `loss_fn` takes one of them after `batch`; all start from one
            model (`nnx.reseed` in `loss_fn` gives each a dropout mask of its own), and the
            mean of what they make of it is kept, where each counts by its part of
            `domain_weights`, as in the loss.

        Returns:
          What the step saw.

        Raises:
          TypeError: `loss_fn` is no function.
          ValueError, TypeError: as the method's own update.
        """
        if not callable(loss_fn):
            raise TypeError(
                "loss_fn must be a function (model, *batch) -> losses, for the gradients "
                f"are taken here, at w and at w + eps; got {type(loss_fn).__name__}."
            )
        graph, params, rest = nnx.split(model, self.wrt, ..., graph=self.graph)
        params, rest = nnx.as_pure((params, rest))
        own, others = split_options(options)
        given = own | {"loss_fn": loss_fn, "has_aux": has_aux, "record": True}
        of_params = functools.partial(_of_params, graph, rest, self.wrt)
        own = _pure(StepOptions(**given), of_params).bound(*batch)
        updates, state = self.tx.update(
            None,  # pyright: ignore[reportArgumentType]  Optax has no type for "ignored".
            nnx.as_pure(self.opt_state),
            params,
            **vars(own),
            **others,
        )
        evaluation, state = pop_evaluation(state)
        aux, changed = evaluation.aux
        rest = _after(rest, changed, own, evaluation)
        nnx.update(model, optax.apply_updates(params, updates), rest)
        nnx.update(self.opt_state, nnx.state(state, graph=self.graph))
        self.step[...] += 1
        return evaluation._replace(aux=aux)


def _adds_up(state: Any) -> bool:
    return isinstance(state, optax.MultiStepsState)


def _of_params(graph: Any, rest: Tree, wrt: Any, evaluate: Callable[..., Any]) -> LossFn:
    """What evaluates a model, (model, *batch) -> (output, aux), as a pure function.

    Its aux is (aux, what the pass changed or made of what is not trained): what is frozen
    is not held once more for each micro-batch.
    """

    def evaluate_at(params: Tree, *batch: Any) -> Any:
        model = nnx.merge(graph, params, rest)  # a fresh one, which the pass may change
        output, aux = evaluate(model, *batch)
        after = nnx.state(model, nnx.Not(wrt))
        before, values = map(dict, map(nnx.to_flat_state, (rest, nnx.as_pure(after))))
        changed = [
            (path, variable)
            for path, variable in nnx.to_flat_state(after)
            if values[path] is not before.get(path)
        ]
        return output, (aux, nnx.from_flat_state(changed))

    return evaluate_at


def _pure(options: StepOptions, of_params: Callable[..., LossFn]) -> StepOptions:
    """The options with each loss function of a model as one of the parameters."""

    def pure(fn: Any) -> Any:
        if isinstance(fn, ComposedLoss):
            return dataclasses.replace(fn, outputs_fn=of_params(fn.outputs), has_aux=True)
        return of_params(functools.partial(domain_losses, fn, options.has_aux))

    fns = {name: getattr(options, name) for name in LOSS_FNS}
    fns = {name: pure(fn) for name, fn in fns.items() if fn is not None}
    return dataclasses.replace(options, has_aux=True, **fns)


def _after(
    rest: nnx.State, changed: nnx.State, own: StepOptions, evaluation: Evaluation
) -> nnx.State:
    """What a step leaves of what the pass at w changed of `rest`, or made.

    Where the pass at w overflowed nothing of it is kept: `scale_loss` skips such a step.
    """
    weights = None
    if own.micro_batches is not None:
        seen = own.micro_batches, own.domain_weights, own.axis_name
        weights = micro_batch_weights(*seen)
    good = jnp.all(jnp.isfinite(evaluation.gradient_norm))
    begun = {k: x for k, x in nnx.to_flat_state(rest) if isinstance(x, jax.Array)}

    def of(path: Any, left: Tree) -> Tree:
        return jax.tree.map(
            functools.partial(_taken_in, begun.get(path), weights, good), left
        )

    return nnx.from_flat_state(
        [(path, of(path, x)) for path, x in nnx.to_flat_state(changed)]
    )


def _taken_in(
    before: jax.Array | None, weights: jax.Array | None, good: jax.Array, left: jax.Array
) -> jax.Array:
    """One array; before is None of what the pass made, weights where the batch is whole."""
    if not jnp.issubdtype(left.dtype, jnp.inexact):  # counts and keys, which move alike
        return left if weights is None else left[0]
    if weights is not None:
        begun = jnp.zeros_like(left[0]) if before is None else before
        left = mean_from(begun, left, weights)
    return left if before is None else jnp.where(good, left, before)
