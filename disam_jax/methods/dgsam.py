"""DGSAM: a walk from domain to domain, on which every gradient is climbed and descended."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import Hyperparameter
from disam_jax.objectives import weighted_mean
from disam_jax.passes.forward import LossGrad
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, Step, method_from_step


def dgsam(
    rho: Hyperparameter = 0.05, *, seed: int = 0, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    """DGSAM: domain after domain in random order, an ascent at each, all gradients used.

    eps_0 = 0; for j = 1 ... K + 1: g_j = grad of domain order[j] at w + eps_{j-1} and
    eps_j = eps_{j-1} + rho * g_j / norm(g_j); the descent is the mean of the g_j. The order
    is random, another one every step, and ends where it began. K + 1 gradients of one
    domain each, so (K + 1) / K of ERM's cost for K domains, one after another.

    When: the batch comes domain by domain, few domains, and small batches do not starve
    the device.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.dgsam(rho=0.5), jnp.zeros(2)
      >>> grads, _ = tx.update(
      ...     None, tx.init(params), params,
      ...     loss_fn=lambda w, center: jnp.sum((w - center) ** 2),
      ...     micro_batches=jnp.array([[1.0, 0.0], [1.0, 0.0]]),
      ... )
      >>> print(grads)
      [-3. -0.]

    Args:
      rho: >= 0, the length of each ascent; a float, array or schedule.
      seed: of the orders; with the step count it gives each step's.
      mask: which parameters are perturbed; None is all.

    Returns:
      The transformation. Its update needs `micro_batches`, the domains as micro-batches
      [K, ...], and, where some may be absent, their `domain_weights` [K, M] with zeros.
      Domains count alike in the mean. The evaluation's losses [K] are the micro-batches'
      own, each seen once on the way.

    Raises:
      ValueError: rho is negative or not finite; at `update`, `micro_batches` is missing or
        has no common first axis, or `domain_weights` are not [K, M], finite and >= 0.

    References:
      Song et al., Domain-wise Gradual Sharpness-Aware Minimization, 2025 (arXiv
      2503.23430), Algorithm 1, as ported by others; no release exists. The paper's update
      is K times this one, the scale of a sum over domains.
    """
    perturbation = ascend(rho, mask=mask)

    def step(loss: Losses, state: optax.OptState, count: jax.Array) -> Step:
        there = (loss.micro_batch_weights() > 0).astype(float)
        key = jax.random.fold_in(jax.random.key(seed), count)
        order = jax.random.permutation(key, len(there))
        order = order[jnp.argsort(-there[order])]  # the absent last: no walk begins there
        visits = jnp.append(order, order[:1])

        def visit(carry: Any, index: jax.Array) -> tuple[Any, Any]:
            eps, _, total, _ = carry
            perturbed = loss.of_micro_batch(index).at(eps).value_and_grad(weighted_mean)
            further, moved = perturbation.update(perturbed.gradient, state, loss.params)
            own_loss = weighted_mean(perturbed.losses, perturbed.cotangent)
            total = optax.tree.add(total, perturbed.gradient)
            after = (optax.tree.add(eps, further), eps, total, moved)
            return after, (own_loss, perturbed.aux)

        zero = loss.no_eps()
        (_, eps, total, moved), (losses, aux) = jax.lax.scan(
            visit, (zero, zero, zero, state), visits, unroll=loss.options.unroll
        )
        # In the order of the domains, not of the visits.
        losses, aux = jax.tree.map(lambda x: x[jnp.argsort(order)], (losses, aux))
        share = trees.safe_divide(1.0, jnp.sum(there[visits]))
        mean = LossGrad(
            gradient=trees.scale(share, total),
            cotangent=trees.safe_divide(there, jnp.sum(there)).astype(losses.dtype),
            losses=losses,
            aux=aux,
        )
        return Step(mean.gradient, moved, loss.evaluation(mean, mean, eps))

    return method_from_step(perturbation.init, step)
