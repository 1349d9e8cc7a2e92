"""Sources: the Optax transformation around a step, for every method alike.

A step looks at the domain losses from some points, w + eps, and makes a gradient of what it
saw. How the batch is taken there (whole, in pieces, over devices), the loss scale, the
dtypes, the records and the checks are here, so that a method need not know of them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.domains import LossFn, as_domain_loss_fn
from disam_jax.evaluation import Evaluation, evaluation_of
from disam_jax.keywords import check_keywords
from disam_jax.objectives import ObjectiveFn, weighted_mean
from disam_jax.parameters import check_params, from_real, to_real
from disam_jax.passes import (
    AxisName,
    Look,
    Pass,
    PassAt,
    at_once,
    check_micro_batches,
    in_micro_batches,
    over_devices,
    scaled,
)
from disam_jax.precision import realized_perturbation
from disam_jax.trees import Tree

GIVEN_GRADIENTS = (
    "updates must be None: this transformation takes its gradients itself, at w and at "
    "w + eps. It stands first in a chain, before what changes gradients or makes steps of "
    "them, and nothing that has gradients of its own (optax.MultiSteps, TrainState, "
    "nnx.Optimizer) goes around it: call tx.update(None, state, params, loss_fn=loss_fn), "
    "or take the gradients with disam_jax.value_and_grad(loss_fn, method) and give them to "
    "an optimizer without the method."
)
MISSING_PIECES = (
    "micro_batches is missing: give this method its domains as pieces, tx.update(None, "
    "state, params, loss_fn=loss_fn, micro_batches=batch) with arrays [K, ...] and "
    "loss_fn(params, piece)."
)


class SharpnessState(NamedTuple):
    """State of a source of gradients.

    Attributes:
      count: int32 scalar, the steps done; scheduled objectives and combinations read it.
      memory: what the step keeps; for `sharpness_aware` a `Memory`.
      evaluation: None, but between `update(..., record=True)` and `pop_evaluation`.
    """

    count: chex.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    memory: Any
    evaluation: Evaluation | None = None


@dataclasses.dataclass(frozen=True)
class Points:
    """Where a step can look from: w and any w + eps, each a `Pass` over the batch.

    Attributes:
      params: w, as real arrays; of a complex leaf both coordinates.
      num_pieces: K, with micro-batches; None without.
      unroll: of a `jax.lax.scan` over them.
    """

    params: Tree
    num_pieces: int | None
    unroll: int | bool
    _plain: PassAt
    _ascent: PassAt | None
    _perturbed: PassAt | None
    _piece: Callable[[chex.Array, bool], PassAt]
    _domain_weights: chex.Array | None
    _axis_name: AxisName | None
    _compute_dtype: Any
    _record: bool

    def at(self, eps: Tree | None = None) -> Pass:
        """The pass of `loss_fn` at w, or at w + eps."""
        return self._plain(self._moved(eps))

    def at_ascent(self, eps: Tree | None = None) -> Pass:
        """The pass whose gradient eps climbs: of `ascent_loss_fn`, if there is one."""
        return (self._ascent or self._plain)(self._moved(eps))

    def at_perturbed(self, eps: Tree) -> Pass:
        """The pass at w + eps that is descended: of `perturbed_loss_fn`, if given."""
        return (self._perturbed or self._plain)(self._moved(eps))

    def looks(
        self, ascent: ObjectiveFn, descent: ObjectiveFn, eps: Tree | None = None
    ) -> tuple[Look, Look]:
        """What is climbed and what is descended, seen from w or from w + eps.

        One pass serves both unless there is an `ascent_loss_fn` (or, at w + eps, a
        `perturbed_loss_fn`), and one way back if the objectives are the same too.
        """
        here = self.at() if eps is None else self.at_perturbed(eps)
        clean = here.look(descent)
        return self.climbed(ascent, descent, here, clean, eps), clean

    def climbed(
        self,
        ascent: ObjectiveFn,
        descent: ObjectiveFn,
        here: Pass,
        clean: Look,
        eps: Tree | None = None,
    ) -> Look:
        """What is climbed, given the pass `here` and its look `clean` at the descent."""
        another = self._ascent or (self._perturbed if eps is not None else None)
        if another is not None:
            return self.at_ascent(eps).look(ascent)
        return clean if ascent is descent else here.look(ascent)

    def as_clean(self, start: Look) -> Look:
        """What was climbed, where it stands for the look at w: no other is made there.

        Of `loss_fn` nothing is then known at w if something else was climbed.
        """
        if self._ascent is None:
            return start
        return start._replace(losses=jnp.nan * start.losses)

    def at_piece(self, index: chex.Array, eps: Tree | None = None) -> Pass:
        """The pass over one micro-batch alone, at w or w + eps; `index` may be traced."""
        return self._piece(index, eps is not None)(self._moved(eps))

    def by_piece(self, eps: Tree | None = None) -> "Pieces":
        """Every micro-batch's own losses and gradient at w + eps, one after another."""

        def visit(_: None, index: chex.Array) -> tuple[None, tuple[Tree, Any, Any]]:
            look = self.at_piece(index, eps).look(weighted_mean)
            loss = weighted_mean(look.losses, look.domain_weights)
            return None, (look.gradient, loss, look.aux)

        if self.num_pieces is None:
            raise ValueError(MISSING_PIECES)
        _, (gradients, losses, aux) = jax.lax.scan(
            visit, None, jnp.arange(self.num_pieces), unroll=self.unroll
        )
        shares = self.piece_shares()
        return Pieces(gradients, losses, shares / jnp.sum(shares), aux)

    def piece_shares(self) -> chex.Array:
        """How much of the batch each micro-batch is, [K], >= 0, of any sum."""
        if self._domain_weights is None:
            return jnp.ones(self.num_pieces)
        here = jnp.sum(jnp.asarray(self._domain_weights), axis=1)
        return here if self._axis_name is None else jax.lax.psum(here, self._axis_name)

    def zero(self) -> Tree:
        """No displacement, in the dtypes of one."""
        return trees.zeros_like(trees.at_least_float32(self.params))

    def evaluation(
        self, clean: Look, perturbed: Look, eps: Tree, ascent: Look | None = None
    ) -> Evaluation | None:
        """What is recorded of a step that looked at w and at w + eps, if anything is.

        Args:
          clean: at w.
          perturbed: at w + eps.
          eps: the displacement.
          ascent: what was climbed, where it is another look than `clean`.

        Returns:
          The evaluation, or None where nothing is recorded.
        """
        if not self._record:
            return None
        seen = evaluation_of(clean, perturbed, eps, ascent)
        if self._compute_dtype is None:
            return seen
        realized = realized_perturbation(self.params, eps, self._compute_dtype)
        return seen._replace(realized=realized)

    def evaluation_at(self, look: Look) -> Evaluation | None:
        """What is recorded of a step that looked at one point, w, alone."""
        return self.evaluation(look, look, self.zero())

    def _moved(self, eps: Tree | None) -> Tree:
        if eps is None:
            return self.params
        wide = trees.at_least_float32(self.params)
        return trees.cast_like(jax.tree.map(jnp.add, wide, eps), self.params)


class Pieces(NamedTuple):
    """What the micro-batches show by themselves, as a function of which any objective is.

    Attributes:
      gradients: a tree of [K, ...], of each piece's loss.
      losses: [K].
      shares: [K], sum 1.
      aux: of the loss function, [K, ...].
    """

    gradients: Tree
    losses: chex.Array
    shares: chex.Array
    aux: Any

    def toward(self, objective: Callable[..., chex.Array]) -> Look:
        """The gradient of an objective of the pieces' losses; no pass is made for it."""
        weights = jax.grad(objective)(self.losses, self.shares)
        gradient = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), self.gradients)
        return Look(gradient, weights, self.losses, self.aux)


class Step(NamedTuple):
    """What a step makes of what it saw.

    Attributes:
      gradient: that is descended; it leaves in the parameters' dtypes.
      memory: for the next step, of the tree that `init` gave.
      evaluation: what is recorded, from `Points.evaluation`; None where nothing is.
    """

    gradient: Tree
    memory: Any
    evaluation: Evaluation | None


class StepFn(Protocol):
    """(points, memory, count) -> Step; `count` is the int32 number of steps done."""

    def __call__(self, points: Points, memory: Any, count: chex.Array) -> Step:
        """Takes the step."""
        ...


def gradient_source(
    init: Callable[[Tree], Any], step: StepFn
) -> optax.GradientTransformationExtraArgs:
    """Makes the transformation of a step that looks wherever it likes.

    For methods that the four choices of `sharpness_aware` do not hold. Their update takes
    all that `sharpness_aware`'s takes.

    Example:
      The gradient in the middle of the way that SAM climbs:

      >>> import disam_jax as dj, jax, jax.numpy as jnp, optax
      >>> def step(points, memory, count):
      ...     clean = points.at().look(dj.weighted_mean)
      ...     eps = jax.tree.map(lambda g: 0.25 * g, clean.gradient)
      ...     middle = points.at_perturbed(eps).look(dj.weighted_mean)
      ...     seen = points.evaluation(clean, middle, eps)
      ...     return dj.Step(middle.gradient, memory, seen)
      >>> tx = dj.gradient_source(lambda params: (), step)
      >>> params = jnp.array([1.0, 2.0])
      >>> grads, _ = tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)
      >>> print(grads)
      [3. 6.]

    Args:
      init: params -> the first memory, any tree of arrays.
      step: (points, memory, count) -> `Step`.

    Returns:
      An Optax transformation with extra arguments, to stand first in a chain.

    Raises:
      ValueError, TypeError: at `update`, as `sharpness_aware`.
    """

    def make_state(params: Tree) -> SharpnessState:
        check_params(params)
        return SharpnessState(jnp.zeros([], jnp.int32), init(to_real(params)))

    def update(
        updates: Any,
        state: SharpnessState,
        params: Tree | None = None,
        *,
        loss_fn: LossFn | None = None,
        ascent_loss_fn: LossFn | None = None,
        perturbed_loss_fn: LossFn | None = None,
        domain_weights: chex.Array | None = None,
        micro_batches: Tree | None = None,
        unroll: int | bool = 1,
        axis_name: AxisName | None = None,
        loss_scale: chex.Array | None = None,
        compute_dtype: Any = None,
        has_aux: bool = False,
        record: bool = False,
        **extra_args: Any,
    ) -> tuple[Tree, SharpnessState]:
        check_keywords(extra_args, update.__kwdefaults__ or ())
        if jax.tree.leaves(updates):
            raise ValueError(GIVEN_GRADIENTS)

        def on_devices(pass_at: PassAt) -> PassAt:
            if axis_name is not None:
                pass_at = over_devices(pass_at, axis_name)
            return pass_at if loss_scale is None else scaled(pass_at, loss_scale)

        def whole(loss_fn: LossFn | None) -> PassAt:
            evaluate = as_domain_loss_fn(loss_fn, has_aux, from_real)
            if micro_batches is None:
                return on_devices(at_once(evaluate, domain_weights))
            return on_devices(
                in_micro_batches(evaluate, domain_weights, micro_batches, unroll)
            )

        def piece(index: chex.Array, perturbed: bool) -> PassAt:
            parts = (micro_batches, domain_weights)
            data, weights = jax.tree.map(lambda x: jnp.asarray(x)[index], parts)
            own = perturbed_loss_fn if perturbed and perturbed_loss_fn else loss_fn
            evaluate = as_domain_loss_fn(own, has_aux, from_real)
            return on_devices(at_once(lambda params: evaluate(params, data), weights))

        plain = whole(loss_fn)
        if params is None:
            raise ValueError("params is missing: call tx.update(None, state, params, ...).")
        check_params(params)
        num_pieces = None
        if micro_batches is not None:
            num_pieces = check_micro_batches(micro_batches)
        points = Points(
            params=to_real(params),
            num_pieces=num_pieces,
            unroll=unroll,
            _plain=plain,
            _ascent=whole(ascent_loss_fn) if ascent_loss_fn else None,
            _perturbed=whole(perturbed_loss_fn) if perturbed_loss_fn else None,
            _piece=piece,
            _domain_weights=domain_weights,
            _axis_name=axis_name,
            _compute_dtype=compute_dtype,
            _record=record,
        )
        made = step(points, state.memory, state.count)
        count = jnp.asarray(optax.safe_increment(state.count))
        new_state = SharpnessState(count, made.memory, made.evaluation)
        return from_real(trees.cast_like(made.gradient, points.params)), new_state

    return optax.GradientTransformationExtraArgs(make_state, update)  # pyright: ignore[reportArgumentType]


def pop_evaluation(state: optax.OptState) -> tuple[Evaluation, optax.OptState]:
    """Takes the evaluation of `update(..., record=True)` out of an optimizer state.

    It is found however deep it lies (chain, inject_hyperparams, ...), and the state that
    comes back has the tree it had before the step.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = optax.chain(dj.sam(rho=0.5), optax.adam(1e-3))
      >>> params = jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(
      ...     None, tx.init(params), params, loss_fn=lambda w: w @ w, record=True
      ... )
      >>> evaluation, state = dj.pop_evaluation(state)
      >>> print(evaluation.losses, evaluation.perturbed_losses)
      [25.] [30.25]

    Args:
      state: an optimizer state that holds one evaluation.

    Returns:
      The evaluation, and the state without it.

    Raises:
      ValueError: the state holds no evaluation, or several.
    """
    found = [
        node.evaluation
        for node in jax.tree.leaves(state, is_leaf=_is_ours)
        if _is_ours(node) and node.evaluation is not None
    ]
    if len(found) != 1:
        raise ValueError(
            f"the state must hold one evaluation; found {len(found)}. Pass record=True to "
            "the update of a chain with one disam_jax transformation, and pop once."
        )
    return found[0], put_evaluation(state, None)


def put_evaluation(state: optax.OptState, evaluation: Evaluation | None) -> optax.OptState:
    """The reverse of `pop_evaluation`, for wrappers that look into it on its way."""
    return jax.tree.map(
        lambda node: node._replace(evaluation=evaluation) if _is_ours(node) else node,
        state,
        is_leaf=_is_ours,
    )


def holds_method(state: optax.OptState) -> bool:
    """Whether a method's state is anywhere in an optimizer's."""
    return any(map(_is_ours, jax.tree.leaves(state, is_leaf=_is_ours)))


def _is_ours(node: Any) -> bool:
    return isinstance(node, SharpnessState)
