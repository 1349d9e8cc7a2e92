"""Which examples of a batch a method looks at: all, fewer to climb, or the hardest."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import disam_jax as dj


class Chosen(NamedTuple):
    """The examples of a step.

    Attributes:
      descended: the batch at w + eps, and at w where nothing else is climbed.
      climbed: the batch whose gradient is climbed; None is the same.
    """

    descended: Any
    climbed: Any | None


ExampleLosses = Callable[[Any], jax.Array]  # batch -> [N], a forward pass
Examples = Callable[[Any, int, ExampleLosses], Chosen]


def all_examples(batch: Any, num_domains: int, example_losses: ExampleLosses) -> Chosen:
    """The whole batch at both points."""
    del num_domains, example_losses
    return Chosen(batch, None)


def climb_fewer(fraction: float) -> Examples:
    """The ascent on every k-th example alone, k = 1 / fraction: 1 + fraction gradients.

    Args:
      fraction: of the batch, in (0, 1]; rounded so that k is an integer.

    Returns:
      The choice.

    Raises:
      ValueError: fraction is not in (0, 1].
    """
    every = round(1 / check_fraction(fraction))

    def choose(batch: Any, num_domains: int, example_losses: ExampleLosses) -> Chosen:
        del num_domains, example_losses
        return Chosen(batch, take(batch, slice(None, None, every)))

    return choose


def only_hardest(fraction: float) -> Examples:
    """Both gradients on the examples of the highest loss: 1 / 3 + 2 * fraction gradients.

    The forward pass that ranks them counts for a third of a gradient.

    Args:
      fraction: of each domain's mean share of the batch, in (0, 1].

    Returns:
      The choice.

    Raises:
      ValueError: fraction is not in (0, 1].
    """
    check_fraction(fraction)

    def choose(batch: Any, num_domains: int, example_losses: ExampleLosses) -> Chosen:
        count = math.ceil(fraction * len(batch.domains) / num_domains)
        chosen, domains = dj.hardest(
            example_losses(batch), batch.domains, num_domains, count
        )
        return Chosen(take(batch, chosen)._replace(domains=domains), None)

    return choose


def take(batch: Any, chosen: Any) -> Any:
    """The batch's examples at these indices; what is not per example stays."""
    size = len(batch.domains)
    return jax.tree.map(lambda x: x[chosen] if x.ndim and x.shape[0] == size else x, batch)


def check_fraction(fraction: float) -> float:
    """Returns `fraction`; a ValueError unless it lies in (0, 1]."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1]; got {fraction}.")
    return fraction
