"""Fish: a walk down from domain to domain, whose end is where the step leads."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from disam_jax.hyperparameters import Hyperparameter, at_step, check_hyperparameter
from disam_jax.objectives import weighted_mean
from disam_jax.passes.forward import LossGrad
from disam_jax.step import Losses, Step, method_from_step
from disam_jax.trees import Tree


def fish(rate: Hyperparameter = 5e-5) -> optax.GradientTransformationExtraArgs:
    """Fish: the mean gradient met on a walk down the domains, one after another.

    w_0 = w; w_{k+1} = w_k - rate * grad l_k(w_k) over the K domains that are there; and
    (w - w_K) / (K * rate) is descended. To second order that also raises the products of
    the domains' gradients.

    When: domains are to agree on the way down; one gradient of the batch, in sequence.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.fish(rate=0.25), jnp.array([3.0, 4.0])
      >>> grads, state = tx.update(
      ...     None, tx.init(params), params,
      ...     loss_fn=lambda w, center: jnp.sum((w - center) ** 2),
      ...     micro_batches=jnp.array([[1.0, 0.0], [-1.0, 0.0]]),
      ... )
      >>> print(grads)
      [5. 6.]

    Args:
      rate: > 0, of the walk's steps; a float, array or schedule. DomainBed takes the
        optimizer's.

    Returns:
      The transformation. Its update needs `micro_batches`, the domains as micro-batches
      [K, ...], walked in their order. With SGD of rate meta * K * rate after it, it is the
      authors' step w + meta * (w_K - w). The evaluation has the losses [K], each where the
      walk met it.

    Raises:
      ValueError: rate is not above 0 or not finite; at `update`, `micro_batches` is missing
        or has no common first axis.

    References:
      Shi et al., Gradient Matching for Domain Generalization, ICLR 2022, Algorithm 1, as
      DomainBed's `Fish`, whose walk is Adam's; here it is plain gradient descent.
    """
    step_size = check_hyperparameter("rate", rate, at_least=1e-30)

    def step(loss: Losses, state: tuple[()], count: jax.Array) -> Step:
        length = at_step(step_size, count)

        def walk(eps: Tree, index: jax.Array) -> tuple[Tree, Any]:
            here = loss.of_micro_batch(index).at(eps).value_and_grad(weighted_mean)
            met = weighted_mean(here.losses, here.cotangent)
            further = optax.tree.scale(-length, here.gradient)
            return optax.tree.add(eps, further), (met, here.aux)

        num = loss.num_micro_batches
        end, (losses, aux) = jax.lax.scan(
            walk, loss.no_eps(), jnp.arange(num), unroll=loss.options.unroll
        )
        there = loss.micro_batch_weights() > 0
        share = there / jnp.maximum(jnp.sum(there), 1)
        gradient = optax.tree.scale(-jnp.max(share) / length, end)
        mean = LossGrad(gradient, share, losses, aux)
        return Step(gradient, state, loss.evaluation(mean))

    return method_from_step(lambda params: (), step)
