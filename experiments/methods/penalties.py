"""Penalties of domain generalization: scalars that are added to every domain's loss.

Added to all of them alike, a penalty joins their weighted mean and leaves their variance
as it is. So it combines with SAM, SAGM, DISAM and whatever else takes domain losses, in
both of their passes.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Penalty(Protocol):
    """Losses [M], features [N, F], logits [N, C], labels [N], domains [N] -> scalar.

    `features` are what the linear head saw; M is static. A domain without examples takes
    part in nothing.
    """

    def __call__(
        self,
        losses: jax.Array,
        features: jax.Array,
        logits: jax.Array,
        labels: jax.Array,
        domains: jax.Array,
    ) -> jax.Array:
        """Returns the penalty, without its weight."""
        ...


def coral(
    losses: jax.Array,
    features: jax.Array,
    logits: jax.Array,
    labels: jax.Array,
    domains: jax.Array,
) -> jax.Array:
    """The distance of the domains' features in mean and covariance.

    The mean over pairs of domains of mean((m_i - m_j)^2) + mean((C_i - C_j)^2), with
    n - 1 in the covariances. A domain with one example has none and takes no part.

    References:
      Sun and Saenko, ECCV workshops 2016; with the means as DomainBed has it.
    """
    del logits, labels
    member = _membership(domains, len(losses))
    counts = member.sum(1)
    means = _divide(member @ features, counts[:, None])
    centered = jnp.where(member[..., None] > 0, features - means[:, None], 0.0)
    covariances = _divide(
        jnp.einsum("mnf,mng->mfg", centered, centered), counts[:, None, None] - 1.0
    )
    taken = counts > 1
    pairs = jnp.triu(taken[:, None] & taken[None, :], k=1).astype(features.dtype)
    distances = _mean_squares(means) + _mean_squares(covariances)
    return _divide(jnp.sum(pairs * distances), pairs.sum())


def vrex(
    losses: jax.Array,
    features: jax.Array,
    logits: jax.Array,
    labels: jax.Array,
    domains: jax.Array,
) -> jax.Array:
    """The variance of the domain losses, each domain counting alike.

    `dj.vrex` is the same as an objective.

    References:
      Krueger et al., ICML 2021.
    """
    del features, logits, labels
    present = (_membership(domains, len(losses)).sum(1) > 0).astype(losses.dtype)
    mean = _divide(jnp.sum(present * losses), present.sum())
    return _divide(jnp.sum(present * (losses - mean) ** 2), present.sum())


def fishr(
    losses: jax.Array,
    features: jax.Array,
    logits: jax.Array,
    labels: jax.Array,
    domains: jax.Array,
) -> jax.Array:
    """How much the variance of the head's gradients differs between domains.

    The gradient of an example's loss by the head's weight is f (p - y)^T and by its bias
    p - y; v_i is the variance of these over the domain's examples, weight by weight. The
    penalty is the mean over domains of mean((v_i - mean(v))^2), weight and bias one after
    the other in one vector.

    References:
      Rame et al., ICML 2022. Their release smooths the v_i over steps (0.95), which is not
      done here.
    """
    member = _membership(domains, len(losses))
    counts = member.sum(1)
    errors = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
    inputs = jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=1)
    gradients = (inputs[:, :, None] * errors[:, None, :]).reshape(len(labels), -1)
    means = _divide(member @ gradients, counts[:, None])
    # Each example from the mean of its own domain: no difference of two large squares.
    centered = gradients - member.T @ means
    variances = _divide(member @ centered**2, counts[:, None])
    present = (counts > 0).astype(features.dtype)[:, None]
    center = _divide(jnp.sum(present * variances, axis=0), present.sum())
    distances = jnp.mean((variances - center) ** 2, axis=1)
    return _divide(jnp.sum(present[:, 0] * distances), present.sum())


@dataclasses.dataclass(frozen=True)
class Annealed:
    """A penalty with DomainBed's defaults.

    Attributes:
      penalty: itself.
      weight: from `start` on.
      start: step of the penalty's full weight.
      before: weight before that; DomainBed also begins Adam anew then, which is not done
        here.
    """

    penalty: Penalty
    weight: float
    start: int = 0
    before: float = 0.0


PENALTIES = {
    "coral": Annealed(coral, weight=1.0),
    "vrex": Annealed(vrex, weight=10.0, start=500, before=1.0),
    "fishr": Annealed(fishr, weight=1000.0, start=1500),
}


def penalty_weight(
    name: str,
    weight: ArrayLike | None,
    step: jax.Array,
    start: ArrayLike | None = None,
) -> jax.Array:
    """The weight of a penalty at a step.

    Args:
      name: a key of `PENALTIES`.
      weight: from `start` on; None is DomainBed's.
      step: int scalar, the steps done.
      start: first step of that weight, before which it is what DomainBed begins with; None
        is DomainBed's, and with a weight of one's own the first of the run.

    Returns:
      float32 scalar.
    """
    annealed = PENALTIES[name]
    if start is None:
        start = annealed.start if weight is None else 0
    full = annealed.weight if weight is None else weight
    return jnp.where(step >= start, full, annealed.before)


def _membership(domains: jax.Array, num_domains: int) -> jax.Array:
    """Float [M, N]: does example j belong to domain i?"""
    return (jnp.arange(num_domains)[:, None] == domains[None, :]).astype(jnp.float32)


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """A / b, and 0 where b is not positive, also in gradients."""
    return jnp.where(b > 0, a, 0.0) / jnp.where(b > 0, b, 1.0)


def _mean_squares(x: jax.Array) -> jax.Array:
    """[M, ...] -> [M, M]: the mean squared difference of each pair."""
    difference = x[:, None] - x[None, :]
    return jnp.mean(difference**2, axis=tuple(range(2, difference.ndim)))
