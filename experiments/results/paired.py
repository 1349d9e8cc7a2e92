"""The methods of a comparison beside its first one, seed by seed."""

import dataclasses
from collections.abc import Mapping, Sequence

from experiments.results.statistics import CONFIDENCE, Estimate, estimate, holm

Scores = Mapping[int, float]  # seed -> accuracy, a fraction


@dataclasses.dataclass(frozen=True)
class Difference:
    """A method's accuracies less those of the first, of the seeds that both finished.

    Attributes:
      values: one per seed.
      estimate: their mean, with its 95 % interval.
      p: of a mean of 0, adjusted by Holm for the methods compared.
    """

    values: Sequence[float]
    estimate: Estimate
    p: float

    @property
    def told_apart(self) -> bool:
        """Whether the difference is more than chance; the interval then excludes 0."""
        return self.p < 1 - CONFIDENCE

    def points(self) -> str:
        """In percentage points, e.g. `+0.3 [-0.9, +1.5] not told apart`."""
        if self.estimate.count < 2:
            return f"{100 * self.estimate.mean:+.1f}, one seed tells nothing"
        told = "" if self.told_apart else " not told apart"
        return self.estimate.interval("+.1f", 100) + told


def differences_to_first(scores: Sequence[Scores]) -> list[Difference | None]:
    """Every method's paired difference to the first.

    Args:
      scores: of each method.

    Returns:
      In their order; None of the first, and where no seed is there of both.
    """
    found = [_values(own, scores[0]) if i else [] for i, own in enumerate(scores)]
    estimates = {i: estimate(values) for i, values in enumerate(found) if values}
    adjusted = holm([difference.p for difference in estimates.values()])
    p_values = dict(zip(estimates, adjusted, strict=True))
    return [
        Difference(values, estimates[i], p_values[i]) if values else None
        for i, values in enumerate(found)
    ]


def _values(own: Scores, first: Scores) -> list[float]:
    both = sorted(own.keys() & first.keys())
    # Means that are equal may differ in the last digit, by the order of what they are of.
    return [round(own[seed] - first[seed], 12) for seed in both]
