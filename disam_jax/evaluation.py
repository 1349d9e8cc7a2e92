"""Evaluation: what a step saw, kept for whoever asks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.passes.forward import LossGrad
from disam_jax.trees import Tree


class Realized(NamedTuple):
    """A realized displacement beside the one that was meant.

    Attributes:
      length_ratio: scalar >= 0, norm(realized) / norm(eps).
      cosine: scalar in [-1, 1], between the two.
    """

    length_ratio: jax.Array
    cosine: jax.Array


class Evaluation(NamedTuple):
    """What a step saw; nothing of it costs another forward or backward pass.

    Keeping it is not free with many parameters and a small batch: the cosine keeps
    the gradient at w through the second pass, perturbed_rise keeps eps, and on a CPU the
    norm of eps writes eps out. What a compiled function does not return costs nothing.

    `perturbed_losses - losses` is the sharpness of each domain at this radius, and NaN
    where `loss_fn` was not evaluated at w. A step that evaluates one point alone (ERM's,
    one between two ascents, momentum SAM's) gives that point's losses and gradient for
    both.

    NaN marks what was not seen. `jax_debug_nans` cannot tell it from a fault in what a
    compiled step returns: there go without a record, or do not compile.

    Attributes:
      losses: [M], of `loss_fn` at w. NaN where an `ascent_loss_fn` alone was evaluated
        there, as with the default `combine_with="ascent"`.
      perturbed_losses: [M], at w + eps, of `perturbed_loss_fn` if there is one.
      aux: what the loss function returned beside the losses at w (BatchNorm statistics,
        say), the `ascent_loss_fn` where that alone was evaluated; the pass at w + eps
        changes none of it. In micro-batches it is stacked, [K, ...]; with an axis_name it
        is this device's.
      ascent_weights: [M], each domain's weight in the ascent gradient (the paper's beta),
        seen from `ascent_losses`; they sum to 1 for the objectives here and may be
        negative.
      gradient_norm: scalar, of the gradient at w that the combination takes.
      perturbation_norm: scalar, of eps; rho for SAM.
      perturbed_gradient_norm: scalar, of the gradient at w + eps.
      cosine: scalar in [-1, 1], between those two gradients.
      realized: how much of eps is left in `update`'s `compute_dtype`; None without one.
      ascent_losses: [M], of what was climbed: `losses`, or the `ascent_loss_fn`'s.
      descent_weights: [M], each domain's weight in the gradient at w + eps.
      perturbed_rise: scalar, how the descended loss rises along eps at w + eps, to first
        order: the product of the gradient there with eps.
      perturbed_objective: scalar, the descended objective there; NaN of a `Rule`.
    """

    losses: jax.Array
    perturbed_losses: jax.Array
    aux: Any
    ascent_weights: jax.Array
    gradient_norm: jax.Array
    perturbation_norm: jax.Array
    perturbed_gradient_norm: jax.Array
    cosine: jax.Array
    realized: Realized | None = None
    ascent_losses: jax.Array | None = None
    descent_weights: jax.Array | None = None
    perturbed_rise: jax.Array | None = None
    perturbed_objective: jax.Array | None = None


def evaluation_of(
    clean: LossGrad, perturbed: LossGrad, eps: Tree, ascent: LossGrad
) -> Evaluation:
    """The evaluation of a step that looked at w and at w + eps.

    Example:
      >>> import jax.numpy as jnp
      >>> share = jnp.ones(1)
      >>> clean = LossGrad(jnp.array([3.0, 4.0]), share, jnp.array([1.0]), None)
      >>> seen = evaluation_of(clean, clean, eps=jnp.zeros(2), ascent=clean)
      >>> print(seen.gradient_norm, seen.cosine)
      5.0 1.0

    Args:
      clean: at w.
      perturbed: at w + eps.
      eps: the displacement.
      ascent: what was climbed.

    Returns:
      The evaluation.
    """
    norms = trees.norm(clean.gradient), trees.norm(perturbed.gradient)
    product = trees.dot(clean.gradient, perturbed.gradient)
    return Evaluation(
        losses=clean.losses,
        perturbed_losses=perturbed.losses,
        aux=clean.aux,
        ascent_weights=ascent.cotangent,
        gradient_norm=norms[0],
        perturbation_norm=trees.norm(eps),
        perturbed_gradient_norm=norms[1],
        # Of a gradient and itself it may come out an ulp above 1.
        cosine=jnp.clip(trees.safe_divide(product, norms[0] * norms[1]), -1.0, 1.0),
        ascent_losses=ascent.losses,
        descent_weights=perturbed.cotangent,
        perturbed_rise=trees.dot(perturbed.gradient, eps),
    )


def realized_perturbation(params: Tree, eps: Tree, dtype: Any) -> Realized:
    """The displacement that is left of eps in `dtype`: cast(w + eps) - cast(w).

    A parameter moves only when eps takes it over the middle between two numbers of the
    dtype. In bfloat16 those lie 1/128 of the parameter apart; at SAM's radii eps is far
    smaller for most, and what moves is noise. It costs one pass over the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> w, eps = jnp.array([1.0, 1.0]), jnp.array([0.001, 0.005])
      >>> realized = realized_perturbation(w, eps, jnp.bfloat16)
      >>> print(realized.length_ratio, realized.cosine)
      1.53 0.98

    Args:
      params: w, in the dtype that is perturbed (float32, usually).
      eps: the displacement, in the parameters' structure.
      dtype: to which the model casts the parameters.

    Returns:
      Length ratio and cosine over all leaves together; both 0 where eps is 0 or nothing
      of it is left.

    References:
      No paper of the field measures it. The remedies: `perturbed_loss_fn` in float32, or
      a larger rho.
    """

    def move(w: jax.Array, e: jax.Array) -> jax.Array:
        there, here = (w + e).astype(w.dtype), w
        return there.astype(dtype).astype(e.dtype) - here.astype(dtype).astype(e.dtype)

    params, eps = trees.to_real((params, eps))
    moved = jax.tree.map(move, params, eps)
    norms = trees.norm(moved), trees.norm(eps)
    cosine = trees.safe_divide(trees.dot(moved, eps), norms[0] * norms[1])
    return Realized(
        length_ratio=trees.safe_divide(norms[0], norms[1]),
        cosine=jnp.clip(cosine, -1.0, 1.0),
    )


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
    records = optax.tree.get_all_with_path(state, "evaluation", _is_record)
    found = [value for _, value in records if value is not None]
    if len(found) != 1:
        raise ValueError(
            f"the state must hold one evaluation; found {len(found)}. Pass record=True to "
            "the update of a chain with one disam_jax transformation, and pop once."
        )
    return found[0], put_evaluation(state, None)


def put_evaluation(state: optax.OptState, evaluation: Evaluation | None) -> optax.OptState:
    """The reverse of `pop_evaluation`, for wrappers that look into it on its way."""
    return optax.tree.set(state, _is_record, evaluation=evaluation)


def holds_method(state: optax.OptState) -> bool:
    """Whether a method's state is anywhere in an optimizer's."""
    return bool(optax.tree.get_all_with_path(state, "evaluation", _is_record))


def _is_record(path: Any, value: Any) -> bool:
    """Whether that is a method's: other transformations may have an evaluation too."""
    del value
    key = path[-1]
    named = isinstance(key, optax.tree_utils.NamedTupleKey)
    return named and key.tuple_name == "SharpnessState"
