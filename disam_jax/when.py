"""When: at which steps a method ascends; the others take the plain gradient.

A policy is a function `count -> bool scalar` of the number of steps done, and nothing else,
so that what is skipped is known before anything is computed. It goes to
`sharpness_aware(..., when=policy)`.

A conditional skips on the device. XLA for the CPU runs convolutions inside conditionals
many times slower than outside (as in loops), so a convolutional network gains nothing
there; and under `jax.vmap` both branches are computed. Outside of `jit` the branch is
chosen in Python.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.core import Tracer

from disam_jax.hyperparameters import (
    Hyperparameter,
    Number,
    at_step,
    check_hyperparameter,
    check_integer,
)

Policy = Callable[[Number], jax.Array]
T = TypeVar("T")


def every(period: int) -> Policy:
    """Steps 0, period, 2 * period, ...: 1 + 1 / period gradients per step.

    Example:
      >>> when = every(3)
      >>> [bool(when(count)) for count in range(5)]
      [True, False, False, True, False]

    Args:
      period: >= 1; 1 is always.

    Returns:
      The policy.

    Raises:
      ValueError: period is not a positive integer.

    References:
      MosaicML Composer's SAM, and LookSAM (Liu et al., CVPR 2022).
    """
    check_integer("period", period)
    return lambda count: count % period == 0


def starting_at(step: float, *, steps: int | None = None) -> Policy:
    """All steps from `step` on: the plain gradient first, sharpness-aware later.

    Example:
      >>> when = starting_at(2)
      >>> [bool(when(count)) for count in range(4)]
      [False, False, True, True]
      >>> when = starting_at(0.75, steps=4)  # the last quarter
      >>> [bool(when(count)) for count in range(4)]
      [False, False, False, True]

    Args:
      step: >= 0, the first step that ascends; a float in [0, 1) is its share of `steps`.
      steps: of the whole run, where they are known; what would then never ascend is
        warned of.

    Returns:
      The policy.

    Raises:
      ValueError: step is negative, or a share of a run whose steps are not given.

    References:
      Zhou et al., Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in
      Training, ICLR 2025.
    """
    if isinstance(step, float | np.floating) and 0 <= step < 1:
        if step > 0 and steps is None:
            raise ValueError(
                f"step is the share {step:g} of a run: give its length, steps=."
            )
        step = round(float(step) * (steps or 0))
    check_integer("step", step, at_least=0)
    if steps is not None and step >= steps:
        warnings.warn(
            f"the ascent starts at step {step} of a run that has {steps}: it never comes. "
            "Start earlier, or by a share of the run, as 0.75.",
            stacklevel=2,
        )
    return lambda count: count >= step


def with_probability(probability: Hyperparameter, *, seed: int = 0) -> Policy:
    """Each step with this probability, by itself: 1 + probability gradients on average.

    The choice is a function of (seed, count), so a run that is resumed chooses alike.

    Example:
      >>> when = with_probability(0.5)
      >>> [bool(when(count)) for count in range(6)]
      [False, True, False, True, True, False]

    Args:
      probability: in [0, 1], or a schedule of it.
      seed: of the choices.

    Returns:
      The policy.

    Raises:
      ValueError: probability is below 0 or above 1.

    References:
      Zhao et al., SS-SAM: Stochastic Scheduled Sharpness-Aware Minimization, 2022.
    """
    chance = check_hyperparameter("probability", probability, at_most=1.0)

    def when(count: Number) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), count)
        return jax.random.bernoulli(key, at_step(chance, count))

    return when


def either(chosen: jax.Array, then: Callable[[], T], otherwise: Callable[[], T]) -> T:
    """Returns `then()` or `otherwise()`; a conditional only where `chosen` is traced.

    Not compiled, a conditional would be compiled anew at every call.
    """
    if isinstance(chosen, Tracer):
        return jax.lax.cond(chosen, then, otherwise)
    return then() if chosen else otherwise()
