"""Rules: the gradients of the domains -> one gradient, where no objective of losses is one.

An objective weighs the domains' gradients by numbers that follow from their losses. A rule
looks at the gradients themselves: where they agree, or conflict. It stands where an
objective stands, as `ascent` or as `descent` of any method, and costs the gradient of each
domain by itself: M ways back through one forward pass, or, where the domains are the
micro-batches and `loss_fn` gives each its one loss, one gradient of the batch in all. An
objective beside a rule then sees the same domains.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from disam_jax import trees
from disam_jax.hyperparameters import (
    ABOVE_ZERO,
    Hyperparameter,
    Number,
    Scheduled,
    at_step,
    check_hyperparameter,
    follow_schedule,
)
from disam_jax.trees import Tree

Make = Callable[[Tree, jax.Array], Tree]


class Rule(NamedTuple):
    """What makes one gradient of the domains'.

    Example:
      The entry of the domain that is surest of it:

      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def largest(gradients, weights):
      ...     def pick(g):
      ...         return jnp.take_along_axis(g, jnp.abs(g).argmax(0)[None], 0)[0]
      ...     return jax.tree.map(pick, gradients)
      >>> tx, params = dj.sam(0.0, descent=dj.Rule(largest)), jnp.zeros(2)
      >>> loss_fn = lambda w: jnp.stack([w @ jnp.array([1.0, -3.0]), w @ jnp.ones(2) * 2])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0])
      [ 2. -3.]

    Attributes:
      make: (gradients, weights [M] of sum 1) -> gradient; gradients are a tree of
        [M, ...] in at least float32, those of absent domains, of weight 0, are 0.
    """

    make: Make

    def __call__(self, *arguments: Any) -> Any:
        """Refuses to be called as an objective."""
        raise TypeError(
            "a rule makes a gradient of the domains' gradients and is no objective of "
            "their losses: give it as ascent or descent of a method."
        )


def and_mask(tau: Hyperparameter = 1.0) -> Rule | Scheduled:
    """AND-mask: the pooled gradient where the domains' signs agree, the rest is 0.

    mask = |mean_i sign(g_i)| >= tau, and mask * sum_i a_i g_i / mean(mask) leaf by leaf,
    where the mean of signs is over the domains that are there.

    Example:
      >>> import jax.numpy as jnp
      >>> gradients = jnp.array([[1.0, -1.0], [3.0, 3.0]])
      >>> print(and_mask().make(gradients, jnp.array([0.5, 0.5])))
      [4. 0.]

    Args:
      tau: in [0, 1], how much of the signs must agree; 0 is the pooled gradient. A float,
        array or schedule.

    Returns:
      The rule.

    Raises:
      ValueError: tau is out of [0, 1] or not finite.

    References:
      Parascandolo et al., Learning Explanations that are Hard to Vary, ICLR 2021; rescaled
      leaf by leaf, as DomainBed's `ANDMask`.
    """

    def make(tau: Number) -> Rule:
        def mask(g: jax.Array, weights: jax.Array) -> jax.Array:
            return (_above(g, weights, tau) >= 0).astype(g.dtype)

        return Rule(lambda gradients, weights: _masked(mask, gradients, weights))

    return follow_schedule(make, check_hyperparameter("tau", tau, at_most=1.0))


def sand_mask(tau: Hyperparameter = 0.5, k: Hyperparameter = 10.0) -> Rule | Scheduled:
    """SAND-mask: AND-mask with a soft edge, the sharper the less the gradients vary.

    mask = max(0, tanh(k * (|mean_i sign(g_i)| - tau) / var_i(g_i))), applied as AND-mask's,
    where the variance is the unbiased one over the domains that are there.

    Example:
      >>> import jax.numpy as jnp
      >>> gradients = jnp.array([[1.0, -1.0], [3.0, 3.0]])
      >>> print(sand_mask(0.5, k=100.0).make(gradients, jnp.array([0.5, 0.5])))
      [4. 0.]

    Args:
      tau: in [0, 1); at 1 no mask is above 0, which of a schedule or a traced value no
        check can see. A float, array or schedule.
      k: > 0, steepness of the edge; a float or array.

    Returns:
      The rule.

    Raises:
      ValueError: tau is out of [0, 1) or not finite, k not above 0 or not finite.
      TypeError: k is a schedule.

    References:
      Shahtalebi et al., SAND-mask: An Enhanced Gradient Masking Strategy for the Discovery
      of Invariances in Domain Generalization, 2021 (arXiv 2106.02266). DomainBed's default
      tau is 1, with which its code returns zeros; here 1 is refused.
    """
    steepness = check_hyperparameter("k", k, at_least=ABOVE_ZERO)
    if isinstance(steepness, Scheduled):
        raise TypeError("k follows no schedule, tau may; give a number.")
    tau = check_hyperparameter("tau", tau, at_most=1.0)
    if not isinstance(tau, Scheduled | Tracer) and np.asarray(tau) == 1:
        raise ValueError(
            "tau must be < 1; got 1, at which SAND-mask's mask is 0 everywhere. Take less, "
            "or and_mask(1.0)."
        )

    def make(tau: Number) -> Rule:
        def mask(g: jax.Array, weights: jax.Array) -> jax.Array:
            above, variance = _above(g, weights, tau), _variance(g, weights)
            slope = trees.safe_divide(steepness * above, variance)
            # Where all are the same the edge is a step.
            edge = jnp.where(variance > 0, jnp.tanh(slope), jnp.sign(above))
            return jnp.maximum(0.0, edge)

        return Rule(lambda gradients, weights: _masked(mask, gradients, weights))

    return follow_schedule(make, tau)


def agreement_sum() -> Rule:
    """The sum of the domains' gradients where all signs agree, elsewhere 0.

    Example:
      >>> import jax.numpy as jnp
      >>> gradients = jnp.array([[1.0, -1.0], [3.0, 3.0]])
      >>> print(agreement_sum().make(gradients, jnp.array([0.5, 0.5])))
      [4. 0.]

    Returns:
      The rule; its scale is that of a sum over the domains that are there.

    References:
      Mansilla et al., Domain Generalization via Gradient Surgery, ICCV 2021, Agr-Sum.
    """

    def make(gradients: Tree, weights: jax.Array) -> Tree:
        return jax.tree.map(
            lambda g: jnp.where(_above(g, weights, 1.0) >= 0, jnp.sum(g, axis=0), 0.0),
            gradients,
        )

    return Rule(make)


def pcgrad(*, seed: int = 0) -> Scheduled:
    """PCGrad: each domain's gradient without what conflicts with the others', summed.

    g_i' = g_i; for j != i in random order: g_i' -= min(0, <g_i', g_j>) / <g_j, g_j> g_j;
    and sum_i g_i'. It is computed on the M x M products of the gradients alone.

    Example:
      >>> import jax.numpy as jnp
      >>> rule = pcgrad().at(0)
      >>> print(rule.make(jnp.array([[1.0, 0.0], [-1.0, 1.0]]), jnp.array([0.5, 0.5])))
      [0.5 1.5]

    Args:
      seed: of the order; with the step count it gives each step's.

    Returns:
      The rule; its scale is that of a sum over the domains that are there.

    References:
      Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, Algorithm 1; over
      all parameters together, as there. One order for all i, where theirs are drawn anew.
    """

    def at(count: jax.Array) -> Rule:
        def make(gradients: Tree, weights: jax.Array) -> Tree:
            products = _products(gradients)
            key = jax.random.fold_in(jax.random.key(seed), count)
            order = jnp.argsort(jax.random.uniform(key, weights.shape))

            # Row i holds g_i' as a combination of the gradients.
            def project(rows: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
                along = jnp.minimum(0.0, rows @ products[:, j]).at[j].set(0.0)
                part = trees.safe_divide(along, products[j, j])
                return rows.at[:, j].add(-part), None

            rows, _ = jax.lax.scan(
                project, jnp.eye(len(weights), dtype=products.dtype), order
            )
            return trees.weighted_sum(jnp.sum(rows, axis=0), gradients)

        return Rule(make)

    return Scheduled(at, lambda count: count)


def alignment_noise(gamma: Hyperparameter = 1e-3, *, seed: int = 0) -> Scheduled:
    """GGA-L: the pooled gradient with noise, the more the less the domains are aligned.

    sum_i a_i g_i + gamma * (1 - mean_{i<j} cos(g_i, g_j)) * n, n uniform in [-1, 1]

    Example:
      Two that are alike get none of it:

      >>> import jax.numpy as jnp
      >>> gradients, weights = jnp.array([[1.0, 2.0], [2.0, 4.0]]), jnp.array([0.5, 0.5])
      >>> print(alignment_noise(0.1).at(0).make(gradients, weights))
      [1.5 3. ]

    Args:
      gamma: >= 0, of the noise; a float, array or schedule.
      seed: of the noise; with the step count it gives each step's.

    Returns:
      The rule.

    Raises:
      ValueError: gamma is negative or not finite.

    References:
      Ballas and Diou, Gradient-Guided Annealing for Domain Generalization, CVPR 2025 (arXiv
      2502.20162), GGA-L. Their text says uniform noise; their code draws it from N(0, 1).
    """
    weight = check_hyperparameter("gamma", gamma)

    def at(count: jax.Array) -> Rule:
        def make(gradients: Tree, weights: jax.Array) -> Tree:
            pooled = trees.weighted_sum(weights, gradients)
            key = jax.random.fold_in(jax.random.key(seed), count)
            noise = trees.drawn_like(_uniform, key, pooled)
            size = at_step(weight, count) * (1 - _mean_cosine(gradients, weights))
            return jax.tree.map(lambda g, n: g + size * n, pooled, noise)

        return Rule(make)

    return Scheduled(at, lambda count: count)


def _mean_cosine(gradients: Tree, weights: jax.Array) -> jax.Array:
    """The mean cosine over all pairs of domains that are there; 1 of a single one."""
    products = _products(gradients)
    norms = jnp.sqrt(jnp.diag(products))
    cosines = trees.safe_divide(products, norms[:, None] * norms[None])
    there = (weights > 0).astype(products.dtype)
    pairs = jnp.triu(there[:, None] * there[None], 1)
    mean = trees.safe_divide(jnp.sum(pairs * cosines), jnp.sum(pairs))
    return jnp.where(jnp.sum(pairs) > 0, mean, 1.0)


def _uniform(key: jax.Array, shape: Any, dtype: Any) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def _masked(mask: Make, gradients: Tree, weights: jax.Array) -> Tree:
    """The pooled gradient times its mask, as large as if nothing were masked."""

    def leaf(g: jax.Array) -> jax.Array:
        kept = mask(g, weights)
        pooled = jnp.tensordot(weights.astype(g.dtype), g, 1)
        return trees.safe_divide(kept * pooled, jnp.mean(kept))

    return jax.tree.map(leaf, gradients)


def _above(g: jax.Array, weights: jax.Array, tau: Number) -> jax.Array:
    """|mean_i sign(g_i)| - tau over the domains that are there, of [M, ...].

    It is 0 where rounding alone would tell the two apart: compiled, 41 / 41 is below 1.
    """
    there = (weights > 0).astype(g.dtype)
    signs, num = jnp.abs(jnp.tensordot(there, jnp.sign(g), 1)), jnp.sum(there)
    above = signs - tau * num  # of whole numbers
    rounding = 4 * jnp.finfo(jnp.float32).eps * num  # tau may be a float32
    return jnp.where(abs(above) <= rounding, 0.0, trees.safe_divide(above, num))


def _variance(g: jax.Array, weights: jax.Array) -> jax.Array:
    """The unbiased variance over the domains that are there; 0 of a single one."""
    present = _present(g, weights)
    square = (g - jnp.tensordot(present, g, 1)) ** 2
    return trees.safe_divide(jnp.tensordot(present, square, 1), 1 - jnp.sum(present**2))


def _present(g: jax.Array, weights: jax.Array) -> jax.Array:
    """[M], alike for all domains that are there, of sum 1."""
    there = (weights > 0).astype(g.dtype)
    return trees.safe_divide(there, jnp.sum(there))


def _products(gradients: Tree) -> jax.Array:
    """<g_i, g_j> over all leaves, [M, M]."""
    beside = jax.vmap(trees.dot, in_axes=(None, 0))
    return jax.vmap(beside, in_axes=(0, None))(gradients, gradients)
