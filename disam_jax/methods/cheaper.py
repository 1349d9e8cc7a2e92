"""Methods of less than two gradients per step."""

import chex
import jax
import optax

from disam_jax import trees
from disam_jax.between import reuse_orthogonal
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_count,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.objectives import Objective, weighted_mean
from disam_jax.one_pass import one_pass
from disam_jax.perturbations import Mask, ascend
from disam_jax.policies import every, starting_at, with_probability
from disam_jax.sharpness import sharpness_aware
from disam_jax.sources import Points, Step, gradient_source
from disam_jax.walk import walk
from disam_jax.where_sharp import where_sharp


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


def looksam(
    rho: Hyperparameter = 0.05,
    alpha: Hyperparameter = 0.7,
    period: int = 5,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine_with: str = "ascent",
) -> optax.GradientTransformationExtraArgs:
    """LookSAM: SAM at every period-th step, whose turn towards flatness is used between.

    Between, grad + alpha * norm(grad) / norm(v) * v, where v is the part of the last SAM
    gradient orthogonal to the gradient at w of that step. 1 + 1 / period gradients.

    Slots: `ascend(rho)`, when `every(period)`, between `reuse_orthogonal(alpha)`. alpha = 0
    gives `interval_sam`.

    When: SAM's cost is the obstacle and one more copy of the parameters is not; large
    batches, where its turn changes slowly.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> loss_fn = lambda w: w[0] ** 2 + 3 * w[1] ** 2
      >>> tx, params = dj.looksam(rho=0.5, alpha=0.5, period=2), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=loss_fn)
      ...     print(grads)
      [ 6.243 26.91 ]
      [-6.    27.  ]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      alpha: >= 0, the length of the reused part beside the gradient's; the authors' is 0.7.
      period: >= 1; the authors take 5 and 10.
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean. With
        `variance_penalized(lam)`: DISAM+LookSAM.
      descent: the objective that is descended; None is the weighted mean.
      combine_with: whose gradient at w v is orthogonal to, `"ascent"` or `"descent"`.

    Returns:
      The transformation; its state holds v, as large as the parameters.

    Raises:
      ValueError: rho or alpha is negative or not finite, or period not a positive integer.

    References:
      Liu et al., Towards Efficient and Scalable Sharpness-Aware Minimization, CVPR 2022
      (arXiv 2203.02714), Algorithm 1. One projection over all leaves together; most
      implementations project tensor by tensor.
    """
    return sharpness_aware(
        ascend(rho, mask=mask),
        ascent=ascent,
        descent=descent,
        combine_with=combine_with,
        when=every(period),
        between=reuse_orthogonal(alpha),
    )


def late_sam(
    rho: Hyperparameter = 0.05,
    start: int = 1000,
    *,
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
      start: >= 0, the first step that ascends.
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, or start negative.

    References:
      Zhou et al., Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in
      Training, ICLR 2025 (arXiv 2410.10373).
    """
    return sharpness_aware(
        ascend(rho, mask=mask), ascent=ascent, descent=descent, when=starting_at(start)
    )


def randomized_sam(
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
      >>> tx, params = dj.randomized_sam(rho=0.5, probability=0.5), jnp.array([3.0, 4.0])
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
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean.
      descent: the objective that is descended; None is the weighted mean.

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


def ae_sam(
    rho: Hyperparameter = 0.05,
    threshold: Hyperparameter = 0.0,
    *,
    decay: float = 0.9,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AE-SAM: SAM where the squared gradient norm is large for this run, ERM elsewhere.

    It ascends where norm(g)**2 >= mean + threshold * deviation of the same over the steps
    so far, exponentially weighted; see `where_sharp`.

    When: ascents should go where they matter; the cost is known only afterwards.

    Example:
      The paper lets the threshold fall from 1 to -1 over the run:

      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = dj.ae_sam(rho=0.5, threshold=optax.linear_schedule(1.0, -1.0, 2000))
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.6 8.8]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      threshold: in standard deviations, of any sign; a float, array or schedule.
      decay: in [0, 1], of the mean and the deviation.
      mask: which parameters are perturbed; None is all.
      ascent: the objective that is climbed; None is the weighted mean. Another one takes
        one more backward pass where it ascends.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, threshold not finite, or decay out of
        [0, 1].

    References:
      Jiang et al., An Adaptive Policy to Employ Sharpness-Aware Minimization, ICLR 2023
      (arXiv 2304.14647), Algorithm 1. Mean and variance start at 0.
    """
    return where_sharp(
        ascend(rho, mask=mask),
        threshold=threshold,
        decay=decay,
        ascent=ascent,
        descent=descent,
    )


def momentum_sam(
    rho: Hyperparameter = 0.3,
    decay: float = 0.9,
    *,
    mask: Mask = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum SAM: the gradient at w - rho * v / norm(v), v the momentum. One pass.

    v <- decay * v + gradient, from 0. The perturbation goes ahead along the descent, as
    Nesterov's; in sharp directions momentum overshoots, so that this climbs.

    When: a second pass cannot be had and SGD with momentum is the optimizer.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.momentum_sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     grads, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
      ...     print(grads)
      [6. 8.]
      [5.4 7.2]

    Args:
      rho: >= 0, the radius; a float, array or schedule. About ten times SAM's.
      decay: in [0, 1], of the momentum; SGD's, to be the authors' method.
      mask: which parameters are perturbed; None is all.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation; its state holds the momentum, as large as the parameters.

    Raises:
      ValueError: rho is negative or not finite, or decay out of [0, 1].

    References:
      Becker et al., Momentum-SAM: Sharpness Aware Minimization without Computational
      Overhead, 2024 (arXiv 2401.12033), Algorithm 1. The authors' code keeps w + eps in
      place of w and takes eps off before an evaluation; here the parameters are w, and the
      momentum is the method's own, without the optimizer's weight decay.
    """
    decay = check_number("decay", decay, at_most=1.0)
    ahead = optax.chain(ascend(rho, mask=mask), optax.scale(-1.0))
    return one_pass(ahead, remember=optax.trace(decay), descent=descent)


def random_sam(
    rho: Hyperparameter = 0.05,
    *,
    seed: int = 0,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The gradient at w + rho * n / norm(n) with Gaussian noise n. One pass.

    A control for the methods that ask the gradient where to go.

    When: a control: what does not beat it does not need its gradient.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.random_sam(rho=0.5, seed=2), jnp.array([3.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [7.]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      seed: of the noise; with the step count it gives each step's.
      descent: the objective that is descended; None is the weighted mean.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      The random baseline of Foret et al., ICLR 2021, and of many since. Random SAM of Liu
      et al., NeurIPS 2022, is another method: noise first, then an ascent, two passes.
    """
    check_hyperparameter("rho", rho)
    descent = weighted_mean if descent is None else descent

    def step(points: Points, memory: tuple[()], count: chex.Array) -> Step:
        key = jax.random.fold_in(jax.random.key(seed), count)
        noise = trees.drawn_like(jax.random.normal, key, points.zero())
        eps = trees.with_norm(noise, at_count(rho, count))
        seen = points.at_perturbed(eps).look(at_step(descent, count))
        return Step(seen.gradient, memory, points.evaluation(seen, seen, eps))

    return gradient_source(lambda params: (), step)


def dgsam(
    rho: Hyperparameter = 0.05, *, seed: int = 0, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    """DGSAM: domain after domain in random order, an ascent at each, all gradients used.

    The mean of the S + 1 gradients, of one domain each, met on the way from w over
    rho-long ascents; the first domain is visited again at the end. (S + 1) / S of ERM's
    cost for S domains, one after another. See `walk`.

    When: the batch comes domain by domain, few domains, and small batches do not starve
    the device.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.dgsam(rho=0.5), jnp.zeros(2)
      >>> grads, _ = tx.update(
      ...     None, tx.init(params), params,
      ...     loss_fn=lambda w, center: jnp.sum((w - center) ** 2),
      ...     micro_batches=jnp.array([[1.0, 0.0], [1.0, 0.0]]),
      ... )
      >>> print(grads)
      [-3. -0.]

    Args:
      rho: >= 0, the length of each ascent; a float, array or schedule.
      seed: of the orders; with the step count it gives each step's.
      mask: which parameters are perturbed; None is all.

    Returns:
      The transformation. Its update takes the domains as `micro_batches` [S, ...] and a
      loss function (params, piece).

    Raises:
      ValueError: rho is negative or not finite; at `update`, as `walk`.

    References:
      Song et al., Domain-wise Gradual Sharpness-Aware Minimization, 2025 (arXiv
      2503.23430), Algorithm 1, as ported by others; no release exists. The paper's update
      is S times this one, the scale of a sum over domains.
    """
    return walk(ascend(rho, mask=mask), seed=seed)
