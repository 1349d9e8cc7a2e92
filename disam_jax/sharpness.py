"""The engine: two evaluations of the domain losses and four choices around them.

l, pullback = vjp(loss_fn, w)        # one forward pass
g = pullback(grad(ascent)(l, a))     # one backward pass: the objective only chooses
eps = perturbation(g)                # the cotangent in R^M
l', pullback' = vjp(loss_fn, w + eps)
g' = pullback'(grad(descent)(l', a))
update = combine(g, g')
"""

from typing import Any

import jax
import optax

from disam_jax.combinations import Combination
from disam_jax.hyperparameters import at_step
from disam_jax.objectives import Objective, check_part
from disam_jax.step import AT_W, Losses, Step, method_from_step
from disam_jax.when import Policy, either


def sharpness_aware(
    perturbation: optax.GradientTransformation,
    *,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine: Combination | None = None,
    combine_with: str = "ascent",
    when: Policy | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The method of four choices: combine(g, g') from the passes at w and at w + eps.

    g = grad(ascent(l(w), a)) is handed to the perturbation, eps = perturbation(g), and
    g' = grad(descent(l(w + eps), a)), where l are the domain losses and a their weights.
    `combine_with` says which gradient at w the combination takes:

    - `"ascent"`: g itself, the papers' listing;
    - `"descent"`: grad(descent(l(w), a)), so that the ascent objective acts on eps alone;
      one more backward pass over the same residuals, where the combination uses it and
      the objectives differ.

    With a policy `when`, the steps that it skips evaluate w alone and descend
    grad(descent(l(w), a)).

    The transformation stands first in a chain and takes no gradients, `updates` is None;
    what stands after it (clipping, weight decay, momentum) acts on the combined gradient.
    What `update` takes besides `(updates, state, params)` is said at `StepOptions`.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = optax.chain(
      ...     dj.sharpness_aware(dj.ascend(0.1), ascent=dj.variance_penalized(0.1)),
      ...     optax.sgd(0.5),
      ... )
      >>> params = jnp.array([1.0, 0.0])
      >>> loss_fn = lambda w: jnp.stack([jnp.sum(w**2), jnp.sum((w - 1) ** 2)])
      >>> updates, state = tx.update(None, tx.init(params), params, loss_fn=loss_fn)
      >>> print(optax.apply_updates(params, updates))
      [0.429 0.571]

    Args:
      perturbation: ascent gradient -> eps, an Optax transformation.
      ascent: the objective that eps climbs; None is `weighted_mean`.
      descent: the objective that is descended at w + eps; None is `weighted_mean`.
      combine: (gradient at w, gradient at w + eps) -> gradient; None is the gradient at
        w + eps, as `take_perturbed`.
      combine_with: `"ascent"` or `"descent"`.
      when: the steps that ascend, see `every`, `starting_at` and `with_probability`; None
        is all.

    Returns:
      An Optax transformation with extra arguments; its state's tree does not change.
      Gradients come out in the parameters' dtypes; between, they are in at least float32.

    Raises:
      ValueError: `combine_with` is neither of the two; at `update`, gradients are given as
        `updates`, an Optax mask stands around the method, params or `loss_fn` are missing,
        the losses are not a floating-point scalar or vector, the weights have another
        shape, a negative or a non-finite entry, or the micro-batches no common first axis.
      TypeError: `perturbation` is no Optax transformation; another part is no function, or
        one that makes such a part and was not called; at `update`, `loss_fn` returns no
        array, or an aux that has_aux does not announce, or the reverse, a parameter is an
        integer, a bool or a key, or a keyword is nearly one of `StepOptions`.

    References:
      Zhang et al., Domain-Inspired Sharpness-Aware Minimization, ICLR 2024, Eq. 7 and 8
      and Algorithm 1. The released code evaluates the loss a second time in training mode
      and so moves BatchNorm statistics twice per step; here they come from w alone.
    """
    if not isinstance(perturbation, optax.GradientTransformation):
        raise TypeError(
            "perturbation must be an Optax transformation, ascend(rho) say; got "
            f"{perturbation!r}."
        )
    check_part("combine", combine, Combination)
    check_part("when", when, Policy)
    at_w = AT_W[combine_with]

    def ascend(loss: Losses, state: Any, count: jax.Array) -> Step:
        # g, the gradient of the ascent objective at w: one forward and one backward pass.
        # Beside it the gradient that the combination takes, g itself or the descent's.
        with jax.named_scope("ascend"):
            ascent_grad, clean = at_w(loss)
        # eps, the displacement that the perturbation makes of g.
        with jax.named_scope("perturb"):
            eps, state = perturbation.update(ascent_grad.gradient, state, loss.params)
        # g', the gradient of the descent objective at w + eps: once more the same.
        with jax.named_scope("descend"):
            perturbed = loss.at(eps).value_and_grad(loss.descent)
        # The update: g' alone, or what is made of the two.
        gradient = perturbed.gradient
        if combine is not None:
            with jax.named_scope("combine"):
                combined = at_step(combine, count)(clean.gradient, gradient)
                gradient = optax.tree.cast_like(combined, gradient)
        return Step(gradient, state, loss.evaluation(clean, perturbed, eps, ascent_grad))

    objectives: Any = {"ascent": ascent, "descent": descent}
    if when is None:
        return method_from_step(perturbation.init, ascend, **objectives)

    def step(loss: Losses, state: Any, count: jax.Array) -> Step:
        arguments = loss, state, count
        return either(when(count), lambda: ascend(*arguments), lambda: descend(*arguments))

    return method_from_step(perturbation.init, step, **objectives)


def descend(loss: Losses, state: Any, count: jax.Array) -> Step:
    """The step without a perturbation: the gradient of the descent objective at w."""
    del count
    with jax.named_scope("descend"):
        clean = loss.at().value_and_grad(loss.descent)
    return Step(clean.gradient, state, loss.evaluation(clean))


def erm(*, descent: Objective | None = None) -> optax.GradientTransformationExtraArgs:
    """Empirical risk minimization in the same interface: grad(descent(l(w), a)).

    One evaluation per step, no perturbation: the baseline to which a sharpness-aware
    method is compared, for the same loss function, weights and records.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.erm(), jnp.array([1.0, 2.0])
      >>> loss_fn = lambda w: jnp.sum(w**2)
      >>> print(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0])
      [2. 4.]

    Args:
      descent: the objective; None is `weighted_mean`. `vrex(beta)` gives V-REx.

    Returns:
      An Optax transformation that takes all of `StepOptions`. Its evaluation has eps = 0:
      the perturbed losses are the losses.

    Raises:
      ValueError, TypeError: at `update`, as `sharpness_aware`.

    References:
      Zhang et al., ICLR 2024, Eq. 3.
    """
    return method_from_step(lambda params: (), descend, descent=descent)
