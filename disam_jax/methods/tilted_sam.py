"""Tilted SAM: many points around w, the worse the heavier."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_integer,
)
from disam_jax.objectives import Objective, weighted_mean
from disam_jax.passes.forward import LossGrad
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree


def tilted_sam(
    rho: Hyperparameter = 0.05,
    tilt: Hyperparameter = 1.0,
    samples: int = 3,
    *,
    radius: Hyperparameter = 1.0,
    seed: int = 0,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Tilted SAM: descends log(mean_i exp(t * L(w + eps_i))) / t over random eps_i.

    Each eps_i is standard normal noise n_i, shortened to at most `radius`, and from there
    one ascent, rho * u(grad(w + n_i)). The descent is sum_i p_i * grad(w + eps_i) with p
    the softmax of t * L(w + eps_i), where L is the weighted mean of the domain losses: for
    t = 0 all points count alike, for large t the worst alone. 2 * samples gradients.

    When: the whole neighbourhood should be low, not one point of it, whatever it costs.

    Example:
      Without noise the sample is SAM's point:

      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.tilted_sam(0.5, samples=1, radius=0.0), jnp.ones(4)
      >>> grads, _ = tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)
      >>> print(grads)
      [2.5 2.5 2.5 2.5]

    Args:
      rho: >= 0, the radius of the ascents; a float, array or schedule.
      tilt: >= 0, t; a float, array or schedule. The authors let it rise from 0, or fall.
      samples: >= 1, the points.
      radius: >= 0, the greatest length of the noise over all leaves; a float, array or
        schedule. Of many parameters it is always reached.
      seed: of the noise; with the step count it gives each step's.
      ascent, descent: as in `sam`.

    Returns:
      The transformation. The evaluation is of the last sample: its losses at w are those
      at w + n, its eps is all of eps_i.

    Raises:
      ValueError: rho, tilt or radius is negative or not finite, or samples no positive
        integer.

    References:
      Li et al., Tilted Sharpness-Aware Minimization, ICML 2025 (arXiv 2410.22656), in the
      form of the authors' code, whose numbers are the defaults: one ascent for each draw.
    """
    length = check_hyperparameter("rho", rho)
    t = check_hyperparameter("tilt", tilt)
    longest = check_hyperparameter("radius", radius)
    check_integer("samples", samples)

    def step(loss: Losses, state: tuple[()], count: jax.Array) -> Step:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), count), samples)
        lengths = at_step(longest, count), at_step(length, count)
        seen = [_sample(loss, key, *lengths) for key in keys]
        losses = jnp.stack([weighted_mean(p.losses, p.weights) for _, p, _ in seen])  # pyright: ignore[reportArgumentType]  of a pass there are weights
        shares = jax.nn.softmax(at_step(t, count) * losses)
        gradients = [perturbed.gradient for _, perturbed, _ in seen]
        gradient = trees.weighted_sum(
            shares, jax.tree.map(lambda *g: jnp.stack(g), *gradients)
        )
        return Step(gradient, state, loss.evaluation(*seen[-1]))

    return method_from_step(lambda params: (), step, ascent=ascent, descent=descent)


def _sample(
    loss: Losses, key: jax.Array, radius: Any, rho: Any
) -> tuple[LossGrad, LossGrad, Tree]:
    """What is seen at w + n, at w + eps, and eps: noise and an ascent from there."""
    noise = trees.drawn_like(jax.random.normal, key, loss.no_eps())
    noise = trees.with_norm(noise, jnp.minimum(trees.norm(noise), radius))
    there = loss.at_ascent(noise).value_and_grad(loss.ascent)
    eps = optax.tree.add(noise, trees.with_norm(there.gradient, rho))
    return there, loss.at(eps).value_and_grad(loss.descent), eps
