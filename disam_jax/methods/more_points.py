"""Methods that evaluate the losses at more points than w and w + eps."""

import jax
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_integer,
    check_number,
    follow_schedule,
)
from disam_jax.objectives import Objective
from disam_jax.perturbations.ascend import ascend
from disam_jax.perturbations.masks import Mask
from disam_jax.step import Losses, Step, method_from_step


def multi_step_sam(
    rho: Hyperparameter = 0.05,
    steps: int = 2,
    *,
    mask: Mask = None,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM with several ascent steps of rho / steps each: steps + 1 gradients.

    eps <- eps + rho / steps * u(grad at w + eps), so that norm(eps) <= rho. One step gives
    SAM.

    When: a better inner maximum is wanted whatever it costs; a check of SAM's one step.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.multi_step_sam(rho=0.5, steps=2), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.6 8.8]

    Args:
      rho: >= 0, the radius, of all steps together; a float, array or schedule.
        Implementations that take rho at each step reach `steps` times as far.
      steps: >= 1, of the ascent.
      mask, ascent, descent: as in `sam`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite, or steps not a positive integer.

    References:
      Foret et al., ICLR 2021, appendix C.4; Andriushchenko and Flammarion, ICML 2022.
    """
    check_integer("steps", steps)
    rho = check_hyperparameter("rho", rho)
    part = ascend(follow_schedule(lambda rho: rho / steps, rho), mask=mask)

    def step(loss: Losses, state: optax.OptState, count: jax.Array) -> Step:
        ascent_grad, clean = loss.ascent_alone()
        eps, moved = part.update(ascent_grad.gradient, state, loss.params)
        for _ in range(1, steps):
            perturbed = loss.at_ascent(eps).value_and_grad(loss.ascent)
            further, _ = part.update(perturbed.gradient, state, loss.params)
            eps = optax.tree.add(eps, further)
        perturbed = loss.at(eps).value_and_grad(loss.descent)
        evaluation = loss.evaluation(clean, perturbed, eps, ascent_grad)
        return Step(perturbed.gradient, moved, evaluation)

    return method_from_step(part.init, step, ascent=ascent, descent=descent)


def bilateral_sam(
    rho: Hyperparameter = 0.05,
    rho_min: Hyperparameter = 0.05,
    *,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Bilateral SAM: also looks down, p + g - norm(p) / norm(m) * m. Three gradients.

    g is the gradient at w, p at w + rho * u and m at w - rho_min * u, with u the unit
    vector along the ascent gradient. rho_min = 0 gives p + (1 - norm(p) / norm(g)) g.

    When: the loss below w matters too; three gradients.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.bilateral_sam(rho=0.5, rho_min=0.5), jnp.array([0.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [0. 8.]

    Args:
      rho: >= 0, the radius upwards; a float, array or schedule.
      rho_min: >= 0, the radius downwards; the paper lets it follow the learning rate to 0
        (`follow_learning_rate`).
      ascent: the objective along which u points; None is the weighted mean.
      descent: the objective of the three gradients; None is the weighted mean.

    Returns:
      The transformation.

    Raises:
      ValueError: a radius is negative or not finite.

    References:
      Deng et al., Bilateral Sharpness-Aware Minimization for Flatter Minima, 2024 (arXiv
      2409.13173). The released code does not come back to w but to the lower point, by an
      aliased buffer; this is the paper's formula.
    """
    upwards = check_hyperparameter("rho", rho)
    downwards = check_hyperparameter("rho_min", rho_min)

    def step(loss: Losses, state: tuple[()], count: jax.Array) -> Step:
        ascent_grad, clean = loss.ascent_and_descent()
        up = trees.with_norm(ascent_grad.gradient, at_step(upwards, count))
        down = trees.with_norm(ascent_grad.gradient, -at_step(downwards, count))
        above = loss.at(up).value_and_grad(loss.descent)
        below = loss.at(down).value_and_grad(loss.descent)
        m = trees.with_norm(below.gradient, trees.norm(above.gradient))
        gradient = jax.tree.map(
            lambda p, g, m: p + g - m, above.gradient, clean.gradient, m
        )
        return Step(gradient, state, loss.evaluation(clean, above, up, ascent_grad))

    return method_from_step(lambda params: (), step, ascent=ascent, descent=descent)


def gam(
    rho: Hyperparameter = 0.2,
    inner_rho: Hyperparameter = 0.02,
    *,
    gamma: Hyperparameter = 0.03,
    beta: tuple[float, float] = (0.5, 0.6),
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """GAM: first-order flatness, from four gradients along two ascents.

    g0 at w; g1 at w + inner_rho * u(g0); g2 at P = w + rho * u(g1 - g0), where the gradient
    norm is larger; g3 at P + inner_rho * u(g2). With a = beta[1] * g1 + (1 - beta[1]) * g3
    and m = g0 + (1 - beta[0]) * g2, the descent is a - gamma * (m's part orthogonal to a).

    When: first-order flatness is wanted whatever it costs; four gradients.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.gam(rho=0.5, inner_rho=0.5), jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [6.84 9.12]

    Args:
      rho: >= 0, the radius of the ascent on the gradient norm.
      inner_rho: >= 0, the length of the finite difference.
      gamma: >= 0, the weight of the orthogonal part.
      beta: the two weights, each in [0, 1].
      ascent: the objective of g0 and g2 in the directions; None is the weighted mean.
      descent: the objective of all other gradients; None is the weighted mean.

    Returns:
      The transformation: four gradients per step, two more backward passes if the
      objectives differ.

    Raises:
      ValueError: a radius or gamma is negative or not finite, or a beta out of [0, 1].

    References:
      Zhang et al., Gradient Norm Aware Minimization Seeks First-Order Flatness and Improves
      Generalization, CVPR 2023 (arXiv 2303.03108), in the form of the authors' code, which
      replaces the paper's Hessian-vector products by differences; its constants for
      CIFAR-100 are the defaults.
    """
    radius = check_hyperparameter("rho", rho)
    inner = check_hyperparameter("inner_rho", inner_rho)
    weight = check_hyperparameter("gamma", gamma)
    for value in beta:
        check_number("beta", value, at_most=1.0)

    def step(loss: Losses, state: tuple[()], count: jax.Array) -> Step:
        rho, inner_rho = at_step(radius, count), at_step(inner, count)
        ascent_grad, g0 = loss.ascent_and_descent()
        first = trees.with_norm(ascent_grad.gradient, inner_rho)
        ascent_1, g1 = loss.ascent_and_descent(first)
        steeper = optax.tree.sub(ascent_1.gradient, ascent_grad.gradient)
        second = trees.with_norm(steeper, rho)
        ascent_2, g2 = loss.ascent_and_descent(second)
        third = optax.tree.add(second, trees.with_norm(ascent_2.gradient, inner_rho))
        g3 = loss.at(third).value_and_grad(loss.descent)
        a = jax.tree.map(
            lambda x, y: beta[1] * x + (1 - beta[1]) * y, g1.gradient, g3.gradient
        )
        m = jax.tree.map(lambda x, y: x + (1 - beta[0]) * y, g0.gradient, g2.gradient)
        apart = optax.tree.scale(at_step(weight, count), trees.orthogonal(m, a))
        gradient = optax.tree.sub(a, apart)
        return Step(gradient, state, loss.evaluation(g0, g3, third, ascent_grad))

    return method_from_step(lambda params: (), step, ascent=ascent, descent=descent)


def cr_sam(
    rho: Hyperparameter = 0.05,
    alpha: Hyperparameter = 0.1,
    beta: Hyperparameter = 0.01,
    *,
    ascent: Objective | None = None,
    descent: Objective | None = None,
) -> optax.GradientTransformationExtraArgs:
    """CR-SAM: SAM and a penalty on the curvature along the ascent. Three gradients.

    p + alpha * (p + m - 2 * g) + beta * (p - m), where g is the gradient at w, p at
    w + rho * u and m at w - rho * u, with u the unit vector along the ascent gradient. The
    first bracket is the gradient of rho**2 times the curvature along u, the second that of
    2 * rho times the slope. alpha = beta = 0 gives SAM.

    When: the curvature itself should fall, not only the loss at w + eps; three gradients.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.cr_sam(rho=0.5, beta=0.1), jnp.array([0.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [0.  9.2]

    Args:
      rho: >= 0, the radius to both sides; a float, array or schedule.
      alpha: >= 0, the weight of the curvature; the code's gamma.
      beta: >= 0, the weight of the slope; 0.1 is the default in the code's signature.
      ascent: the objective along which u points; None is the weighted mean.
      descent: the objective of the three gradients; None is the weighted mean.

    Returns:
      The transformation.

    Raises:
      ValueError: rho, alpha or beta is negative or not finite.

    References:
      Wu et al., CR-SAM: Curvature Regularized Sharpness-Aware Minimization, AAAI 2024, in
      the form of the authors' code.
    """
    radius = check_hyperparameter("rho", rho)
    of_curvature = check_hyperparameter("alpha", alpha)
    of_slope = check_hyperparameter("beta", beta)

    def step(loss: Losses, state: tuple[()], count: jax.Array) -> Step:
        alpha, beta = at_step(of_curvature, count), at_step(of_slope, count)
        ascent_grad, clean = loss.ascent_and_descent()
        up = trees.with_norm(ascent_grad.gradient, at_step(radius, count))
        above = loss.at(up).value_and_grad(loss.descent)
        below = loss.at(optax.tree.scale(-1.0, up)).value_and_grad(loss.descent)
        gradient = jax.tree.map(
            lambda p, m, g: p + alpha * (p + m - 2 * g) + beta * (p - m),
            above.gradient, below.gradient, clean.gradient,
        )  # fmt: skip
        return Step(gradient, state, loss.evaluation(clean, above, up, ascent_grad))

    return method_from_step(lambda params: (), step, ascent=ascent, descent=descent)
