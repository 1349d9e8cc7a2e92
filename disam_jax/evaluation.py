"""Evaluation: what a step saw, kept for whoever asks."""

from typing import Any, NamedTuple

import chex

from disam_jax import trees
from disam_jax.passes import Look
from disam_jax.precision import Realized
from disam_jax.trees import Tree


class Evaluation(NamedTuple):
    """What a step saw; nothing of it costs another forward or backward pass.

    Keeping it is not free with many parameters and a small batch: the cosine keeps
    the gradient at w through the second pass, and on a CPU the norm of eps writes eps out.

    `perturbed_losses - losses` is the sharpness of each domain at this radius, and NaN
    where `loss_fn` was not evaluated at w. A step that evaluates one point alone (ERM's,
    one between two ascents, momentum SAM's) gives that point's losses and gradient for
    both.

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
    ascent_losses: chex.Array | None = None


def evaluation_of(
    clean: Look, perturbed: Look, eps: Tree, ascent: Look | None = None
) -> Evaluation:
    """The evaluation of a step that looked at w and at w + eps.

    Example:
      >>> import jax.numpy as jnp
      >>> share = jnp.ones(1)
      >>> clean = Look(jnp.array([3.0, 4.0]), share, jnp.array([1.0]), None)
      >>> seen = evaluation_of(clean, clean, eps=jnp.zeros(2))
      >>> print(seen.gradient_norm, seen.cosine)
      5.0 1.0

    Args:
      clean: at w.
      perturbed: at w + eps.
      eps: the displacement.
      ascent: what was climbed; None is `clean`.

    Returns:
      The evaluation.
    """
    ascent = clean if ascent is None else ascent
    norms = trees.norm(clean.gradient), trees.norm(perturbed.gradient)
    product = trees.dot(clean.gradient, perturbed.gradient)
    return Evaluation(
        losses=clean.losses,
        perturbed_losses=perturbed.losses,
        aux=clean.aux,
        ascent_weights=ascent.domain_weights,
        gradient_norm=norms[0],
        perturbation_norm=trees.norm(eps),
        perturbed_gradient_norm=norms[1],
        cosine=trees.safe_divide(product, norms[0] * norms[1]),
        ascent_losses=ascent.losses,
    )
