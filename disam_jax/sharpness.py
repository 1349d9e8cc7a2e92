"""The engine: two evaluations of the domain losses and four choices around them.

l, pull = vjp(loss_fn, w)            # one forward pass
g = pull(grad(ascent)(l, a))         # one backward pass: the objective only chooses
eps = perturbation(g)                # the cotangent in R^M
l', pull' = vjp(loss_fn, w + eps)
g' = pull'(grad(descent)(l', a))
update = combine(g, g')
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.combinations import Combination, take_perturbed
from disam_jax.domains import LossFn, as_domain_loss_fn
from disam_jax.hyperparameters import at_step
from disam_jax.objectives import Objective, weighted_mean
from disam_jax.passes import PassAt, Seen, at_once, in_micro_batches, over_devices, scaled
from disam_jax.precision import Realized, realized_perturbation
from disam_jax.trees import Tree


class Evaluation(NamedTuple):
    """What a step saw; nothing of it costs another forward or backward pass.

    Keeping it is not free with many parameters and a small batch: the cosine keeps
    the gradient at w through the second pass, and on a CPU the norm of eps writes eps out.

    `perturbed_losses - losses` is the sharpness of each domain at this radius.

    Attributes:
      losses: [M], the domain losses at w.
      perturbed_losses: [M], the domain losses at w + eps.
      aux: what the loss function returned beside the losses at w (BatchNorm statistics,
        say); the pass at w + eps changes none of it. In micro-batches it is stacked,
        [K, ...]; with an axis_name it is this device's.
      ascent_weights: [M], each domain's weight in the ascent gradient (the paper's beta);
        they sum to 1 for the objectives here and may be negative.
      gradient_norm: scalar, of the gradient at w that the combination takes.
      perturbation_norm: scalar, of eps; rho for SAM.
      perturbed_gradient_norm: scalar, of the gradient at w + eps.
      cosine: scalar in [-1, 1], between those two gradients.
      realized: how much of eps is left in `update`'s `compute_dtype`; None without one.
    """

    losses: chex.Array
    perturbed_losses: chex.Array
    aux: Any
    ascent_weights: chex.Array
    gradient_norm: chex.Array
    perturbation_norm: chex.Array
    perturbed_gradient_norm: chex.Array
    cosine: chex.Array
    realized: Realized | None = None


class SharpnessState(NamedTuple):
    """State of a sharpness-aware transformation.

    Attributes:
      count: int32 scalar, the steps done; scheduled objectives and combinations read it.
      perturbation: the perturbation's state.
      evaluation: None, but between `update(..., record=True)` and `pop_evaluation`.
    """

    count: chex.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    perturbation: optax.OptState
    evaluation: Evaluation | None = None


def sharpness_aware(
    perturbation: optax.GradientTransformation,
    *,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine: Combination | None = None,
    combine_with: str = "ascent",
) -> optax.GradientTransformationExtraArgs:
    """A source of gradients: combine(g, g') from the passes at w and at w + eps.

    g = grad(ascent(l(w), a)) is handed to the perturbation, eps = perturbation(g), and
    g' = grad(descent(l(w + eps), a)), where l are the domain losses and a their weights.
    `combine_with` says which gradient at w the combination takes:

    - `"ascent"`: g itself, the papers' listing;
    - `"descent"`: grad(descent(l(w), a)), so that the ascent objective acts on eps alone;
      one more backward pass over the same residuals, where the combination uses it and
      the objectives differ.

    The transformation stands first in a chain. What comes in as `updates` is ignored;
    what stands after it (clipping, weight decay, momentum) acts on the combined gradient.
    `update` takes, besides `(updates, state, params)`:

    - `loss_fn`: params -> losses [M] (a scalar is one domain), or (losses, aux);
    - `domain_weights=None`: [M], >= 0, scaled to sum 1; None is uniform. A domain of
      weight 0 is absent and takes part in nothing. Its loss may be anything whose
      derivative is finite (0 times NaN is NaN), as `domain_means` sees to;
    - `has_aux=False`: whether `loss_fn` returns an aux;
    - `record=False`: whether the new state holds the `Evaluation`, for `pop_evaluation`;
    - `perturbed_loss_fn=None`: what is evaluated at w + eps; None is `loss_fn`. The same
      model in float32, say, where bfloat16 rounds eps away, or on more examples;
    - `micro_batches=None`: a tree of arrays [K, ...]. `loss_fn` then takes (params,
      micro_batch), domain_weights are [K, M] (None is uniform, and every piece counts
      alike), and the step is that of the whole batch with the memory of one piece: one
      eps, from all of them. Its gradients are those of K pieces at w and at w + eps; an
      objective other than the weighted mean needs all domain losses first, one more
      forward pass over the pieces;
    - `unroll=1`: of the `jax.lax.scan` over them. On a CPU, where convolutions in loops
      are slow, K;
    - `axis_name=None`: of `shard_map` or `pmap`. Each device then gives the losses and
      domain_weights (counts, or shares of parts of one size) of its part, and the step is
      that of the whole batch, alike on all. Under `jit` nothing of the kind is needed;
    - `loss_scale=None`: the way back is scaled by it and the gradients unscaled in
      float32; `scale_loss` adapts it;
    - `compute_dtype=None`: to which `loss_fn` casts the parameters; the evaluation then
      tells how much of eps survives that.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = optax.chain(
      ...     dj.sharpness_aware(dj.ascend(0.1), ascent=dj.variance_penalized(0.1)),
      ...     optax.sgd(0.5),
      ... )
      >>> params = jnp.array([1.0, 0.0])
      >>> loss_fn = lambda w: jnp.stack([jnp.sum(w**2), jnp.sum((w - 1) ** 2)])
      >>> updates, state = tx.update(None, tx.init(params), params, loss_fn=loss_fn)
      >>> print(optax.apply_updates(params, updates))
      [0.429 0.571]

    Args:
      perturbation: ascent gradient -> eps, an Optax transformation.
      ascent: the objective that eps climbs; None is `weighted_mean`.
      descent: the objective that is descended at w + eps; None is `weighted_mean`.
      combine: (gradient at w, gradient at w + eps) -> gradient; None is
        `take_perturbed`.
      combine_with: `"ascent"` or `"descent"`.

    Returns:
      An Optax transformation with extra arguments; its state's tree does not change.
      Gradients come out in the parameters' dtypes; between, they are in at least float32.

    Raises:
      ValueError: `combine_with` is neither of the two; at `update`, params or `loss_fn`
        are missing, the losses are not a floating-point scalar or vector, the weights
        have another shape, a negative or a non-finite entry, or the micro-batches no
        common first axis.
      TypeError: at `update`, `loss_fn` returns an aux that has_aux does not announce, or
        the reverse.

    References:
      Zhang et al., Domain-Inspired Sharpness-Aware Minimization, ICLR 2024, Eq. 7 and 8
      and Algorithm 1. The released code evaluates the loss a second time in training mode
      and so moves BatchNorm statistics twice per step; here they come from w alone.
    """
    if combine_with not in ("ascent", "descent"):
        raise ValueError(
            f"combine_with must be 'ascent' or 'descent'; got {combine_with!r}."
        )
    ascent = weighted_mean if ascent is None else ascent
    descent = weighted_mean if descent is None else descent
    combine = take_perturbed if combine is None else combine

    def init(params: Tree) -> SharpnessState:
        return SharpnessState(jnp.zeros([], jnp.int32), perturbation.init(params))

    def step(passes: _Passes, state: SharpnessState, params: Tree) -> _Step:
        ascent_now = at_step(ascent, state.count)
        descent_now = at_step(descent, state.count)
        combine_now = at_step(combine, state.count)
        clean = passes.at_params(params)
        ascent_weights = clean.cotangent(ascent_now)
        ascent_grad, seen = clean.pull(ascent_weights)
        eps, perturbation_state = perturbation.update(
            ascent_grad, state.perturbation, params
        )
        perturbed = passes.at_perturbed(_move(params, eps))
        perturbed_grad, perturbed_seen = perturbed.pull(perturbed.cotangent(descent_now))
        grad = ascent_grad
        if combine_with == "descent":
            grad, _ = clean.pull(clean.cotangent(descent_now))
        return _Step(
            combine_now(grad, perturbed_grad),
            perturbation_state,
            eps,
            _evaluation(seen, perturbed_seen, ascent_weights, grad, perturbed_grad, eps),
        )

    return _gradient_source(init, step)


def erm(*, descent: Objective | None = None) -> optax.GradientTransformationExtraArgs:
    """Empirical risk minimization in the same interface: grad(descent(l(w), a)).

    One evaluation per step, no perturbation: the baseline to which a sharpness-aware
    method is compared, for the same loss function, weights and records.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.erm(), jnp.array([1.0, 2.0])
      >>> loss_fn = lambda w: jnp.sum(w**2)
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0])
      [2. 4.]

    Args:
      descent: the objective; None is `weighted_mean`. `vrex(beta)` gives V-REx.

    Returns:
      An Optax transformation with the extra arguments of `sharpness_aware`. Its
      evaluation has eps = 0: the perturbed losses are the losses.

    Raises:
      ValueError, TypeError: at `update`, as `sharpness_aware`.

    References:
      Zhang et al., ICLR 2024, Eq. 3.
    """
    descent = weighted_mean if descent is None else descent

    def init(params: Tree) -> SharpnessState:
        del params
        return SharpnessState(jnp.zeros([], jnp.int32), optax.EmptyState())

    def step(passes: _Passes, state: SharpnessState, params: Tree) -> _Step:
        clean = passes.at_params(params)
        weights = clean.cotangent(at_step(descent, state.count))
        grad, seen = clean.pull(weights)
        eps = optax.tree.zeros_like(grad)
        evaluation = _evaluation(seen, seen, weights, grad, grad, eps)
        return _Step(grad, optax.EmptyState(), eps, evaluation)

    return _gradient_source(init, step)


def value_and_grad(
    loss_fn: LossFn,
    tx: optax.GradientTransformationExtraArgs,
    has_aux: bool = False,
    *,
    perturbed_loss_fn: LossFn | None = None,
    axis_name: str | None = None,
    compute_dtype: Any = None,
    unroll: int | bool = 1,
) -> Callable[..., Any]:
    """The same step as a gradient function, to be used before any optimizer.

    For Flax's `TrainState` and `nnx.Optimizer`, for gradient code of your own, and
    wherever the optimizer's `update` is not yours to call.

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
      loss_fn: (params, *args, **kwargs) -> losses [M] or a scalar, or (losses, aux).
      tx: `sam(...)`, `disam(...)`, or a chain that begins with one.
      has_aux: whether `loss_fn` returns an aux; it comes back as `evaluation.aux`.
      perturbed_loss_fn: with the arguments of `loss_fn`, what is evaluated at w + eps.
      axis_name: as in `sharpness_aware`'s update, as are `compute_dtype` and `unroll`.
      compute_dtype: to which `loss_fn` casts the parameters.
      unroll: of the scan over micro-batches.

    Returns:
      (params, state, *args, domain_weights=None, micro_batches=None, loss_scale=None,
      **kwargs) -> ((evaluation, grads), state), where the first state is
      `tx.init(params)`. With micro-batches, `loss_fn` takes the piece after `args`.

    Raises:
      ValueError: at the call, as `sharpness_aware`'s update, or when `tx` is not one of
        this package's.
      TypeError: at the call, as `sharpness_aware`'s update.
    """

    def grad_fn(
        params: Tree,
        state: optax.OptState,
        *args: Any,
        domain_weights: chex.Array | None = None,
        micro_batches: Tree | None = None,
        loss_scale: chex.Array | None = None,
        **kwargs: Any,
    ) -> tuple[tuple[Evaluation, Tree], optax.OptState]:
        def with_arguments(loss_fn: LossFn | None) -> LossFn | None:
            if loss_fn is None:
                return None
            return lambda params, *piece: loss_fn(params, *args, *piece, **kwargs)

        grads, state = optax.with_extra_args_support(tx).update(
            None,  # pyright: ignore[reportArgumentType]  Optax has no type for "ignored".
            state,
            params,
            loss_fn=with_arguments(loss_fn),
            perturbed_loss_fn=with_arguments(perturbed_loss_fn),
            domain_weights=domain_weights,
            micro_batches=micro_batches,
            unroll=unroll,
            axis_name=axis_name,
            loss_scale=loss_scale,
            compute_dtype=compute_dtype,
            has_aux=has_aux,
            record=True,
        )
        evaluation, state = pop_evaluation(state)
        return (evaluation, grads), state

    return grad_fn


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
    without = jax.tree.map(
        lambda node: node._replace(evaluation=None) if _is_ours(node) else node,
        state,
        is_leaf=_is_ours,
    )
    return found[0], without


def put_evaluation(state: optax.OptState, evaluation: Evaluation) -> optax.OptState:
    """The reverse of `pop_evaluation`, for wrappers that look into it on its way."""
    return jax.tree.map(
        lambda node: node._replace(evaluation=evaluation) if _is_ours(node) else node,
        state,
        is_leaf=_is_ours,
    )


def _is_ours(node: Any) -> bool:
    return isinstance(node, SharpnessState)


class _Passes(NamedTuple):
    at_params: PassAt
    at_perturbed: PassAt


class _Step(NamedTuple):
    gradient: Tree
    perturbation_state: optax.OptState
    eps: Tree
    evaluation: Evaluation


class _StepFn(Protocol):
    def __call__(self, passes: _Passes, state: SharpnessState, params: Tree) -> _Step: ...


def _gradient_source(
    init: Callable[[Tree], SharpnessState], step: _StepFn
) -> optax.GradientTransformationExtraArgs:
    """Makes an Optax transformation of a step; checks and bookkeeping are here alone."""

    def update(
        updates: Any,
        state: SharpnessState,
        params: Tree | None = None,
        *,
        loss_fn: LossFn | None = None,
        perturbed_loss_fn: LossFn | None = None,
        domain_weights: chex.Array | None = None,
        micro_batches: Tree | None = None,
        unroll: int | bool = 1,
        axis_name: str | None = None,
        loss_scale: chex.Array | None = None,
        compute_dtype: Any = None,
        has_aux: bool = False,
        record: bool = False,
        **extra_args: Any,
    ) -> tuple[Tree, SharpnessState]:
        del updates, extra_args

        def passes_of(loss_fn: LossFn | None) -> PassAt:
            evaluate = as_domain_loss_fn(loss_fn, has_aux)
            if micro_batches is None:
                pass_at = at_once(evaluate, domain_weights)
            else:
                pass_at = in_micro_batches(evaluate, domain_weights, micro_batches, unroll)
            if axis_name is not None:
                pass_at = over_devices(pass_at, axis_name)
            return pass_at if loss_scale is None else scaled(pass_at, loss_scale)

        at_params = passes_of(loss_fn)
        at_perturbed = passes_of(perturbed_loss_fn) if perturbed_loss_fn else at_params
        if params is None:
            raise ValueError("params is missing: call tx.update(None, state, params, ...).")
        grads, perturbation_state, eps, evaluation = step(
            _Passes(at_params, at_perturbed), state, params
        )
        if compute_dtype is not None:
            realized = realized_perturbation(params, eps, compute_dtype)
            evaluation = evaluation._replace(realized=realized)
        count = jnp.asarray(optax.safe_increment(state.count))
        new_state = SharpnessState(
            count, perturbation_state, evaluation if record else None
        )
        return trees.cast_like(grads, params), new_state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _move(params: Tree, eps: Tree) -> Tree:
    """Returns params + eps in the parameters' dtypes."""
    wide = trees.at_least_float32(params)
    return trees.cast_like(jax.tree.map(jnp.add, wide, eps), params)


def _evaluation(
    clean: Seen,
    perturbed: Seen,
    ascent_weights: chex.Array,
    grad: Tree,
    perturbed_grad: Tree,
    eps: Tree,
) -> Evaluation:
    norms = trees.norm(grad), trees.norm(perturbed_grad)
    return Evaluation(
        losses=clean.losses,
        perturbed_losses=perturbed.losses,
        aux=clean.aux,
        ascent_weights=ascent_weights,
        gradient_norm=norms[0],
        perturbation_norm=trees.norm(eps),
        perturbed_gradient_norm=norms[1],
        cosine=trees.safe_divide(trees.dot(grad, perturbed_grad), norms[0] * norms[1]),
    )
