"""SAM at some steps, the plain gradient at the others."""

import optax

from disam_jax.hyperparameters import Hyperparameter
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.sharpness import sharpness_aware
from disam_jax.when import every, starting_at, with_probability


def interval_sam(
    rho: Hyperparameter = 0.05,
    period: int = 5,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM at every period-th step, the plain gradient between: 1 + 1 / period gradients.

    Slots: `ascend(rho)`, when `every(period)`. period = 1 gives SAM.

    When: SAM's cost is the obstacle and nothing may be stored.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.interval_sam(rho=0.5, period=2), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6.6 8.8]
      [6. 8.]

    Args:
      rho: >= 0, the radius; a float, array or schedule. Composer's users take it larger,
        0.5 for a period of 10.
      period: >= 1.
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean. With
        `variance_penalized(lam)`: DISAM at an interval.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, or period not a positive integer.

    References:
      MosaicML Composer's SAM, method card; no paper of its own.
    """
    return sharpness_aware(
        ascend(rho, mask=mask), ascent=ascent, descent=descent, when=every(period)
    )


def late_sam(
    rho: Hyperparameter = 0.05,
    start: float = 1000,
    *,
    steps: int | None = None,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The plain gradient up to step `start`, SAM from there on.

    Slots: `ascend(rho)`, when `starting_at(start)`. start = 0 gives SAM.

    When: flatness is wanted of a model whose training is long: the last part decides.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.late_sam(rho=0.5, start=1), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6. 8.]
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      start: >= 0, the first step that ascends; a float in (0, 1) is its share of `steps`.
      steps: of the whole run; a start that is not among them is warned of.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, or start negative, or a share without
        `steps`.

    References:
      Zhou et al., Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in
      Training, ICLR 2025 (arXiv 2410.10373).
    """
    when = starting_at(start, steps=steps)
    perturb = ascend(rho, mask=mask)
    return sharpness_aware(perturb, ascent=ascent, descent=descent, when=when)


def rst(
    rho: Hyperparameter = 0.05,
    probability: Hyperparameter = 0.5,
    *,
    seed: int = 0,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """RST: at each step SAM with this probability, else the plain gradient.

    Slots: `ascend(rho)`, when `with_probability(probability)`. 1 gives SAM, 0 ERM.

    When: as `interval_sam`, without a period that may beat against the data's.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.rst(rho=0.5, probability=0.5), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6. 8.]
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      probability: in [0, 1]; a float, array or schedule (the paper has constant, piecewise,
        linear and trigonometric ones).
      seed: of the choices.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation: 1 + probability gradients per step on average.

    Raises:
      ValueError: rho is negative or not finite, or probability out of [0, 1].

    References:
      Zhao et al., SS-SAM: Stochastic Scheduled Sharpness-Aware Minimization for Efficiently
      Training Deep Neural Networks, 2022; later Randomized Sharpness-Aware Training (RST).
    """
    return sharpness_aware(
        ascend(rho, mask=mask),
        ascent=ascent,
        descent=descent,
        when=with_probability(probability, seed=seed),
    )
