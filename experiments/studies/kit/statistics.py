"""What a few seeds tell: intervals, paired differences, and the answer to a claim."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

ANSWERS = HOLDS, DOES_NOT, CANNOT_TELL = "holds", "does not hold", "cannot be told"
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval (Student's t).

    Attributes:
      mean: over seeds.
      low: of the interval; -inf for a single seed.
      high: of the interval; inf for a single seed.
      p: two-sided, of the hypothesis that the mean is 0; 1 for a single seed.
      count: number of seeds.
    """

    mean: float
    low: float
    high: float
    p: float
    count: int

    def interval(self, form: str = ".2f", scale: float = 1.0, unit: str = "") -> str:
        """E.g. `0.31 points [-0.12, 0.74]`; `form` is of the numbers."""
        mean, low, high = (f"{scale * x:{form}}" for x in (self.mean, self.low, self.high))
        return f"{mean}{unit and f' {unit}'} [{low}, {high}]"

    def text(self, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
        """E.g. `+0.31 points [-0.12, +0.74], p = 0.12`."""
        return f"{self.interval(f'+.{digits}f', scale, unit)}, p {p_text(self.p)}"


def ratio_text(log_ratio: Estimate) -> str:
    """E.g. `1.040 [1.019, 1.062]`, of the estimate of a ratio's logarithm."""
    mean, low, high = np.exp((log_ratio.mean, log_ratio.low, log_ratio.high))
    return dataclasses.replace(log_ratio, mean=mean, low=low, high=high).interval(".3f")


def p_text(p: float) -> str:
    """E.g. `= 0.123`, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of one value per seed, with its interval.

    mean ± t_{n-1} s / sqrt(n). Equal values give an interval of no width, and p = 0
    unless they are 0 themselves.

    Args:
      values: one per seed.

    Returns:
      The estimate.

    Raises:
      ValueError: there are none.
    """
    found = np.asarray(values, float)
    if not len(found):
        raise ValueError("an estimate needs at least one value; got none.")
    mean = float(found.mean())
    if len(found) == 1:
        return Estimate(mean, -np.inf, np.inf, 1.0, 1)
    error = float(found.std(ddof=1)) / len(found) ** 0.5
    if error == 0:
        return Estimate(mean, mean, mean, float(mean == 0), len(found))
    student = stats.t(len(found) - 1)
    half = float(student.ppf((1 + CONFIDENCE) / 2)) * error
    p = 2 * float(student.sf(abs(mean) / error))
    return Estimate(mean, mean - half, mean + half, p, len(found))


def paired(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Estimate:
    """The estimate of a - b, seed by seed: a paired t-test.

    Args:
      a: one value per seed.
      b: of the same seeds, in the same order.

    Returns:
      Of the differences.

    Raises:
      ValueError: there are not as many of one as of the other.
    """
    if len(a) != len(b):
        raise ValueError(
            f"a paired test needs the same seeds on both sides; got {len(a)} and {len(b)}."
        )
    return estimate(np.asarray(a, float) - np.asarray(b, float))


def verdict(difference: Estimate, margin: float, adjusted: float | None = None) -> str:
    """Whether a claim that something is larger holds.

    It does not hold where the whole interval is below `margin`, the smallest difference
    that would matter: then the difference is negative, or too small. It holds where the
    whole interval is above 0 otherwise, and `adjusted` below 0.05. In all other cases it
    cannot be told.

    Args:
      difference: the estimate of what the claim says is positive.
      margin: the smallest difference that would matter, >= 0.
      adjusted: its p-value, adjusted for the claims that are tested beside it; None where
        there are none.

    Returns:
      One of the three answers.
    """
    if difference.high < margin:
        return DOES_NOT
    by_chance = adjusted is not None and adjusted >= 1 - CONFIDENCE
    return HOLDS if difference.low > 0 and not by_chance else CANNOT_TELL


def equal(difference: Estimate, margin: float) -> str:
    """Whether a claim that two things are equal holds.

    Args:
      difference: the estimate of their difference.
      margin: the smallest difference that would matter, > 0.

    Returns:
      One of the three answers: it holds where the whole interval lies within the margin of
      0, and does not where all of it lies outside.
    """
    if -margin < difference.low and difference.high < margin:
        return HOLDS
    outside = difference.low > margin or difference.high < -margin
    return DOES_NOT if outside else CANNOT_TELL


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of several tests, in their order.

    Args:
      p_values: of the tests.

    Returns:
      The adjusted ones: at level a, reject where they are at most a, and the chance of any
      false rejection is at most a.
    """
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return [float(p) for p in adjusted]
