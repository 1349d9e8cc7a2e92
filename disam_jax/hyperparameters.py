"""Hyperparameters: checked numbers, and schedules that the other parts follow.

`rho`, `alpha` and `lam` may each be a float, a scalar array or an Optax schedule
(a function of the step count). What follows a schedule is held as a `Scheduled` until the
step is known; `at_step` resolves it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

Number = Any  # float | jax.Array, which checkers refuse to subtract
Schedule = Callable[[Number], Number]
Hyperparameter = Number | Schedule
ABOVE_ZERO = 1e-30  # the least of what must not be 0
BELOW_ONE = 1 - 2**-24  # the most of what must not be 1: float32 has nothing between


class Scheduled(NamedTuple):
    """A number, an objective or a combination that follows a schedule.

    Attributes:
      make: value of the schedule -> what holds at that step.
      schedule: step count -> value.
    """

    make: Callable[[Number], Any]
    schedule: Schedule

    def at(self, count: Number) -> Any:
        """What holds at step `count`."""
        return self.make(self.schedule(count))


def at_step(part: Any, count: Number) -> Any:
    """Returns a number, an objective or a combination as it is at step `count`."""
    return part.at(count) if isinstance(part, Scheduled) else part


def follow_schedule(make: Callable[[Number], Any], value: Hyperparameter) -> Any:
    """Returns `make(value)`, or a `Scheduled` of it where `value` is a schedule.

    With this a new objective or combination takes schedules in one line:

    >>> import optax
    >>> def power_mean(power):
    ...     return lambda losses, weights: (weights @ losses**power) ** (1 / power)
    >>> objective = follow_schedule(power_mean, optax.linear_schedule(1.0, 2.0, 10))
    >>> at_step(objective, 10).__name__
    '<lambda>'

    Args:
      make: hyperparameter value -> objective or combination.
      value: a float, a scalar array or a schedule.

    Returns:
      A function, or a `Scheduled` that the engine resolves at each step.
    """
    if isinstance(value, Scheduled):
        return Scheduled(make, value.schedule)
    return Scheduled(make, value) if callable(value) else make(value)


def check_hyperparameter(
    name: str, value: Hyperparameter, at_least: float = 0.0, at_most: float = math.inf
) -> Number | Scheduled:
    """Returns `value`, for `at_step`, if it can be a hyperparameter, by default one >= 0.

    Schedules have no number to look at yet and pass, as do traced values (under `jit`,
    `vmap` or `inject_hyperparams`).

    Args:
      name: what to call it in the error.
      value: a float, a scalar array or a schedule.
      at_least: the smallest that it may be.
      at_most: the largest that it may be.

    Returns:
      The number, or a `Scheduled` of it.

    Raises:
      TypeError: `value` is not a number, an array or a schedule.
      ValueError: `value` is not finite, not a scalar, or out of its range.
    """
    if isinstance(value, Scheduled | Tracer):
        return value
    if callable(value):
        return Scheduled(lambda number: number, value)
    if isinstance(value, bool | str) or not isinstance(
        value, int | float | np.number | np.ndarray | jax.Array
    ):
        raise TypeError(
            f"{name} must be a number, a scalar array or a schedule; "
            f"got {value!r} ({type(value).__name__})."
        )
    if np.ndim(value) != 0:
        raise ValueError(
            f"{name} must be a scalar; got shape {np.shape(value)}. "
            "To try several values at once, jax.vmap over the whole step."
        )
    number = float(value)  # under jit a comparison of a JAX array would be traced
    if not (math.isfinite(number) and at_least <= number <= at_most):
        least = " and > 0" if at_least == ABOVE_ZERO else f" and >= {at_least:g}"
        above = least if at_least > -math.inf else ""
        most = " and < 1" if at_most == BELOW_ONE else f" and <= {at_most:g}"
        below = most if at_most < math.inf else ""
        hint = f" Use {name}=0 to switch its effect off." if at_least == 0 else ""
        raise ValueError(f"{name} must be finite{above}{below}; got {value}.{hint}")
    return value


def check_number(
    name: str, value: Number, at_least: float = 0.0, at_most: float = math.inf
) -> Number:
    """Returns `value` if it can be a hyperparameter that follows no schedule.

    Args:
      name: what to call it in the error.
      value: a float or a scalar array.
      at_least: the smallest that it may be.
      at_most: the largest that it may be.

    Returns:
      `value`, as a Python number where it is one: under x64 a NumPy float64 would widen
      all that it is multiplied with.

    Raises:
      TypeError: `value` is not a number or an array.
      ValueError: `value` is not finite, not a scalar, or out of its range.
    """
    if callable(value):
        raise TypeError(
            f"{name} takes a number and no schedule; got {value!r}. "
            "optax.inject_hyperparams can change it from step to step."
        )
    check_hyperparameter(name, value, at_least, at_most)
    return value if isinstance(value, int | Tracer) else float(value)


def check_integer(
    name: str, value: Any, at_least: int = 1, at_most: float = math.inf, why: str = ""
) -> int:
    """Returns `value` if it is an integer in its range, a static one.

    Args:
      name: what to call it in the error.
      value: a Python or NumPy integer.
      at_least: the smallest that it may be.
      at_most: the largest that it may be.
      why: what it counts, for the error.

    Raises:
      TypeError: `value` is an array, as under `optax.inject_hyperparams`.
      ValueError: `value` is no integer or out of its range.
    """
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{name} must be an integer known before a step is compiled; got {value}. "
            "Under optax.inject_hyperparams name it among those that do not change: "
            f"static_args=({name!r},)."
        )
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (integer and at_least <= value <= at_most):
        range_ = f">= {at_least}" if at_most == math.inf else f"in {at_least} ... {at_most}"
        raise ValueError(
            f"{name} must be an integer {range_}{why and ', ' + why}; got {value!r}."
        )
    return int(value)


def follow_learning_rate(
    learning_rate: Schedule, peak: float, *, rho_max: float, rho_min: float
) -> Schedule:
    """GSAM's radius, rho_min + (rho_max - rho_min) * learning_rate / peak, as a schedule.

    Example:
      >>> import optax
      >>> learning_rate = optax.linear_schedule(0.1, 0.0, 10)
      >>> rho = follow_learning_rate(learning_rate, 0.1, rho_max=0.6, rho_min=0.1)
      >>> print(rho(0), rho(10))
      0.6 0.1

    Args:
      learning_rate: step count -> learning rate.
      peak: its largest value.
      rho_max: >= 0, the radius where the learning rate is at its peak.
      rho_min: >= 0, the radius where it is 0.

    Returns:
      step count -> rho, for `gsam` or any other method.

    Raises:
      ValueError: a radius is negative, or peak not positive.

    References:
      Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, ICLR
      2022, section 4.1, with a lowest learning rate of 0. Their code takes another lowest
      rate too, and gives a radius below rho_min, even below 0, where a warm-up is lower.
    """
    check_number("rho_max", rho_max)
    check_number("rho_min", rho_min)
    if not peak > 0:
        raise ValueError(f"peak must be positive; got {peak}.")
    return lambda count: rho_min + (rho_max - rho_min) * (learning_rate(count) / peak)
