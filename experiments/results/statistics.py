"""What a few seeds tell: intervals, paired differences, tests and their power."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special

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
      error: standard error of the mean; infinite for a single seed.
    """

    mean: float
    low: float
    high: float
    p: float
    count: int
    error: float

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
        return Estimate(mean, -np.inf, np.inf, 1.0, 1, np.inf)
    error = float(found.std(ddof=1)) / len(found) ** 0.5
    if error == 0:
        return Estimate(mean, mean, mean, float(mean == 0), len(found), 0.0)
    freedom = len(found) - 1
    half = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(mean) / error))
    return Estimate(mean, mean - half, mean + half, p, len(found), error)


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


def sign_flip(values: Sequence[float] | np.ndarray) -> float:
    """The p-value of a mean of 0, two-sided, by flipping the signs of the values.

    Exact for up to 14 values: the share of the 2^n sign patterns whose mean is as far from
    0 as theirs. It asks that differences be symmetric about 0, and not that they be normal.
    n values cannot give less than 2^(1-n): 0.06 for 5, 0.002 for 10.

    Args:
      values: one per seed.

    Returns:
      The p-value; 1 for a single seed.
    """
    found = np.asarray(values, float)
    if len(found) < 2:
        return 1.0
    from scipy import stats  # imported late: it takes a second, which every command would

    test = stats.permutation_test(
        (found,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**14,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def equivalence(difference: Estimate, margin: float) -> float:
    """The p-value of a difference that is as large as the margin or larger (TOST).

    max(P(T > (mean + margin) / se), P(T < (mean - margin) / se)), the larger one of two
    one-sided t-tests. Below 0.025 where the 95 % interval lies within the margin.

    Args:
      difference: the estimate.
      margin: the smallest difference that matters; at 0 nothing is equivalent.

    Returns:
      The p-value; 1 for a single seed.
    """
    if difference.count == 1:
        return 1.0
    inside = margin - abs(difference.mean)
    if difference.error == 0:
        return float(inside <= 0)
    return float(special.stdtr(difference.count - 1, -inside / difference.error))


def detectable(difference: Estimate, power: float = 0.8) -> float:
    """The smallest true difference that as many such seeds show with this power.

    (t_{0.975} + t_{power}) se, two-sided at 5 %, not adjusted for other tests; infinite for
    a single seed.
    """
    if difference.count == 1:
        return np.inf
    shares = np.array([(1 + CONFIDENCE) / 2, power])
    errors = special.stdtrit(difference.count - 1, shares).sum()
    return float(errors * difference.error)


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
