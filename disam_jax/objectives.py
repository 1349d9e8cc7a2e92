"""Objectives: the vector of domain losses and its weights -> one scalar.

An objective is a function `(losses [M], weights [M]) -> scalar`. The gradient of the
ascent objective with respect to the losses is the weight of each domain in the
perturbation (the paper's beta); it always costs one backward pass, whatever the
objective. Weights sum to 1, and a domain of weight 0 is absent: it takes part in
neither the mean nor the variance, whatever its loss is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from disam_jax.hyperparameters import (
    Hyperparameter,
    Number,
    Scheduled,
    at_step,
    check_hyperparameter,
    check_integer,
    follow_schedule,
)
from disam_jax.passes.forward import LossGrad
from disam_jax.rules import Rule
from disam_jax.trees import Tree

ObjectiveFn = Callable[[jax.Array, jax.Array], jax.Array]


class Remembering(NamedTuple):
    """An objective, or a rule, that depends on what was seen at earlier steps.

    Attributes:
      init: params -> the memory before the first step, any tree of arrays.
      at: memory -> the objective of this step.
      remember: (memory, losses [M], weights [M]) -> the memory after it, from the losses
        where the objective was climbed or descended.
    """

    init: Callable[[Tree], Any]
    at: Callable[[Any], ObjectiveFn | Rule]
    remember: Callable[[Any, jax.Array, jax.Array], Any]


# What may stand as `ascent` or `descent`.
Objective = ObjectiveFn | Rule | Remembering | Scheduled


EXAMPLES = {
    "ascent": "variance_penalized(0.1)",
    "descent": "vrex(1.0)",
    "combine": "interpolate(0.5)",
    "when": "every(5)",
}


def check_part(name: str, part: Any, made: Any = Objective) -> None:
    """Refuses what cannot stand in a slot: no function, or a maker that was not called.

    Args:
      name: of the argument, one of `EXAMPLES`.
      part: what is given for it; None is its default.
      made: what makers of such parts are annotated to return, beside rules.

    Raises:
      TypeError: `part` is no function and nothing that follows a schedule or remembers, or
        it makes such a part.
    """
    returned = getattr(part, "__annotations__", {}).get("return")
    makes = returned in (made, Rule, Scheduled, Rule | Scheduled)
    known = part is None or callable(part) or isinstance(part, Remembering | Scheduled)
    if makes or not known:
        raise TypeError(
            f"{name} must be a function such as disam_jax.{EXAMPLES[name]} returns; got "
            f"{part!r}{', which makes one: call it' if makes else ''}."
        )


def weighted_mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    """The pooled loss, sum(weights * losses): what ERM descends and SAM climbs.

    Example:
      >>> import jax.numpy as jnp
      >>> print(weighted_mean(jnp.array([1.0, 3.0]), jnp.array([0.75, 0.25])))
      1.5

    Args:
      losses: [M], the mean loss of each domain.
      weights: [M], sum 1; 0 marks an absent domain.

    Returns:
      A scalar in the dtype of `losses`.

    References:
      Zhang et al., Domain-Inspired Sharpness-Aware Minimization, ICLR 2024, Eq. 3.
    """
    return jnp.sum(jnp.where(weights > 0, weights * losses, 0.0))


def first_memory(objective: Objective | None, params: Tree) -> Any:
    """What it remembers before the first step; () of one that remembers nothing."""
    first = at_step(objective, 0)
    return first.init(params) if isinstance(first, Remembering) else ()


def objective_at(
    objective: Objective | None, count: jax.Array, memory: Any
) -> ObjectiveFn | Rule:
    """The objective, or rule, as it is at step `count`; None is the weighted mean.

    None and not `weighted_mean` is what methods default to: under
    `optax.inject_hyperparams` a function that is a default is called as a schedule.
    """
    now = weighted_mean if objective is None else at_step(objective, count)
    return now.at(memory) if isinstance(now, Remembering) else now


def remembered(
    objective: Objective | None, count: jax.Array, memory: Any, seen: LossGrad
) -> Any:
    """The memory after a step, of what was seen where the objective acted."""
    now = at_step(objective, count)
    if not isinstance(now, Remembering):
        return memory
    assert seen.weights is not None
    return now.remember(memory, seen.losses, seen.weights)


VARIANCES = ("uniform", "count_weighted")


def domain_variance(
    losses: jax.Array, weights: jax.Array, variance: str = "uniform"
) -> jax.Array:
    """The variance of the domain losses, sum(shares * (losses - mean)**2).

    `"uniform"`: every present domain has the same share, 1 / (domains present), as in
    the paper. `"count_weighted"`: shares are the weights.

    Example:
      >>> import jax.numpy as jnp
      >>> losses, weights = jnp.array([1.0, 3.0]), jnp.array([0.75, 0.25])
      >>> print(domain_variance(losses, weights))
      1.0
      >>> print(domain_variance(losses, weights, "count_weighted"))
      0.75

    Args:
      losses: [M], the mean loss of each domain.
      weights: [M], sum 1; 0 marks an absent domain.
      variance: `"uniform"` or `"count_weighted"`.

    Returns:
      A scalar in the dtype of `losses`.

    Raises:
      ValueError: `variance` is neither of the two.

    References:
      Zhang et al., ICLR 2024, Eq. 6. The released code iterates over a Python set of
      label tensors, which merges nothing, and so computes the count-weighted form.
    """
    check_variance(variance)
    shares = weights
    if variance == "uniform":
        present = (weights > 0).astype(weights.dtype)
        shares = present / jnp.maximum(jnp.sum(present), 1.0)
    losses = jnp.where(weights > 0, losses, 0.0)
    mean = jnp.sum(shares * losses)
    return jnp.sum(shares * (losses - mean) ** 2)


def check_variance(variance: str) -> None:
    """Raises a ValueError unless `variance` names one."""
    if variance not in VARIANCES:
        known = " or ".join(repr(name) for name in VARIANCES)
        raise ValueError(f"variance must be {known}; got {variance!r}.")


def variance_penalized(lam: Hyperparameter = 0.1, variance: str = "uniform") -> Objective:
    """DISAM's ascent objective, weighted_mean - lam * domain_variance.

    Its gradient gives domain i the weight
    `weights[i] - 2 * lam * shares[i] * (losses[i] - mean)`: a domain of above-average
    loss is climbed less. These weights sum to 1 and may be negative. lam = 0, equal
    losses or a single domain give the weighted mean.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> objective = variance_penalized(lam=0.5)
      >>> losses, weights = jnp.array([1.0, 2.0]), jnp.array([0.5, 0.5])
      >>> print(jax.grad(objective)(losses, weights))
      [0.75 0.25]

    Args:
      lam: >= 0, a float, array or schedule. The paper's default is 0.1, stable within
        [0.1, 0.7] (its Fig. 5).
      variance: `"uniform"` (the paper) or `"count_weighted"` (the released code).

    Returns:
      The objective.

    Raises:
      ValueError: lam is negative or not finite, or `variance` is unknown.

    References:
      Zhang et al., ICLR 2024, Eq. 6 and 7.
    """
    check_variance(variance)
    return follow_schedule(
        lambda lam: _mean_plus_variance(-lam, variance),
        check_hyperparameter("lam", lam),
    )


def vrex(beta: Hyperparameter, variance: str = "uniform") -> Objective:
    """V-REx's objective, weighted_mean + beta * domain_variance.

    Meant for the descent, e.g. `disam(0.05, 0.1, descent=vrex(1.0))`; the opposite sign
    of `variance_penalized`.

    Example:
      >>> import jax.numpy as jnp
      >>> print(vrex(beta=2.0)(jnp.array([1.0, 2.0]), jnp.array([0.5, 0.5])))
      2.0

    Args:
      beta: >= 0, a float, array or schedule.
      variance: `"uniform"` (as published) or `"count_weighted"`.

    Returns:
      The objective.

    Raises:
      ValueError: beta is negative or not finite, or `variance` is unknown.

    References:
      Krueger et al., Out-of-Distribution Generalization via Risk Extrapolation, ICML
      2021; as tabulated in Zhang et al., ICLR 2024, Table 4. Krueger et al. take the
      sum of the domain losses where this takes their weighted mean, so their beta for M
      domains is M times this one.
    """
    check_variance(variance)
    return follow_schedule(
        lambda beta: _mean_plus_variance(beta, variance),
        check_hyperparameter("beta", beta),
    )


def group_dro(eta: Hyperparameter = 0.01, *, max_domains: int = 64) -> Objective:
    """GroupDRO's objective, sum(q * losses): the domains that were hard weigh more.

    q_i <- q_i exp(eta * losses_i), divided by its sum, from equal q at first; the losses of
    this step count already. As `descent` it is GroupDRO; as `ascent` the perturbation
    climbs the running worst domains, where DISAM's climbs them less.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.erm(descent=group_dro(eta=2.0)), jnp.zeros(2)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(
      ...         None, state, params, loss_fn=lambda w: w + jnp.array([0.0, 1.0])
      ...     )
      ...     print(grads.round(2))
      [0.12 0.88]
      [0.02 0.98]

    Args:
      eta: >= 0, a float, array or schedule; 0 is the mean over the domains that are there,
        whatever their weights.
      max_domains: for how many domains the state has room.

    Returns:
      The objective; a method that has it remembers log q. A domain that is absent keeps
      its q, and the others share the whole.

    Raises:
      ValueError: eta is negative or not finite; at `update`, there are more domains.

    References:
      Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020,
      Algorithm 1, as DomainBed's `GroupDRO`: without their adjustment by group sizes.
    """
    check_integer("max_domains", max_domains)

    def make(eta: Number) -> Remembering:
        def after(memory: jax.Array, losses: jax.Array, weights: jax.Array) -> jax.Array:
            if losses.size > max_domains:
                raise ValueError(
                    f"group_dro has room for {max_domains} domains, and there are "
                    f"{losses.size}: give max_domains={losses.size}."
                )
            grown = eta * jnp.where(weights > 0, losses, 0.0)
            log_q = memory[: losses.size] + grown.astype(memory.dtype)
            return memory.at[: losses.size].set(log_q - jnp.max(log_q))

        def at(memory: jax.Array) -> ObjectiveFn:
            def objective(losses: jax.Array, weights: jax.Array) -> jax.Array:
                fixed = jax.lax.stop_gradient(losses)
                log_q = after(memory, fixed, weights)[: losses.size]
                q = jax.nn.softmax(jnp.where(weights > 0, log_q, -jnp.inf))
                return weighted_mean(losses, q.astype(losses.dtype))

            return objective

        return Remembering(lambda params: jnp.zeros(max_domains), at, after)

    return follow_schedule(make, check_hyperparameter("eta", eta))


def _mean_plus_variance(coefficient: Number, variance: str) -> ObjectiveFn:
    def objective(losses: jax.Array, weights: jax.Array) -> jax.Array:
        spread = domain_variance(losses, weights, variance)
        return weighted_mean(losses, weights) + coefficient * spread

    return objective
