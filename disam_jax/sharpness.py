"""The engine: two evaluations of the domain losses and four choices around them.

l, pull = vjp(loss_fn, w)            # one forward pass
g = pull(grad(ascent)(l, a))         # one backward pass: the objective only chooses
eps = perturbation(g)                # the cotangent in R^M
l', pull' = vjp(loss_fn, w + eps)
g' = pull'(grad(descent)(l', a))
update = combine(g, g')
"""

from typing import Any, NamedTuple

import chex
import optax

from disam_jax import trees
from disam_jax.between import Between, plain_gradient
from disam_jax.combinations import Combination, take_perturbed
from disam_jax.hyperparameters import at_step, check_integer
from disam_jax.objectives import Objective, weighted_mean
from disam_jax.policies import Policy, either
from disam_jax.sources import Points, Step, gradient_source
from disam_jax.trees import Tree


class Memory(NamedTuple):
    """What `sharpness_aware` keeps from step to step.

    Attributes:
      perturbation: the perturbation's state.
      between: what is remembered of the last ascent.
    """

    perturbation: optax.OptState
    between: Any


def sharpness_aware(
    perturbation: optax.GradientTransformation,
    *,
    ascent: Objective | None = None,
    descent: Objective | None = None,
    combine: Combination | None = None,
    combine_with: str = "ascent",
    ascent_steps: int = 1,
    when: Policy | None = None,
    between: Between | None = None,
) -> optax.GradientTransformationExtraArgs:
    """A source of gradients: combine(g, g') from the passes at w and at w + eps.

    g = grad(ascent(l(w), a)) is handed to the perturbation, eps = perturbation(g), and
    g' = grad(descent(l(w + eps), a)), where l are the domain losses and a their weights.
    `combine_with` says which gradient at w the combination takes:

    - `"ascent"`: g itself, the papers' listing;
    - `"descent"`: grad(descent(l(w), a)), so that the ascent objective acts on eps alone;
      one more backward pass over the same residuals, where the combination uses it and
      the objectives differ.

    With several `ascent_steps`, eps is the sum of what the perturbation makes of the
    gradients at w, w + eps_1, w + eps_1 + eps_2, ...; with a policy `when`, the steps that
    it skips evaluate w alone and descend what `between` makes of grad(descent(l(w), a)).

    The transformation stands first in a chain and takes no gradients, `updates` is None;
    what stands after it (clipping, weight decay, momentum) acts on the combined gradient.
    `update` takes, besides `(updates, state, params)`:

    - `loss_fn`: params -> losses [M] (a scalar is one domain), or (losses, aux);
    - `domain_weights=None`: [M], >= 0, scaled to sum 1; None is uniform. A domain of
      weight 0 is absent and takes part in nothing. Its loss may be anything whose
      derivative is finite (0 times NaN is NaN), as `domain_means` sees to;
    - `has_aux=False`: whether `loss_fn` returns an aux;
    - `record=False`: whether the new state holds the `Evaluation`, for `pop_evaluation`;
    - `ascent_loss_fn=None`: whose gradient at w is climbed; None is `loss_fn`. The same
      model on a quarter of every domain's examples, say, for 1.25 gradients per step. At
      the steps that `when` skips it is not evaluated;
    - `perturbed_loss_fn=None`: what is evaluated at w + eps; None is `loss_fn`. The same
      model in float32, say, where bfloat16 rounds eps away;
    - `micro_batches=None`: a tree of arrays [K, ...]. `loss_fn` then takes (params,
      micro_batch), domain_weights are [K, M] (None is uniform, and every piece counts
      alike), and the step is that of the whole batch with the memory of one piece: one
      eps, from all of them. Its gradients are those of K pieces at w and at w + eps; an
      objective other than the weighted mean needs all domain losses first, one more
      forward pass over the pieces;
    - `unroll=1`: of the `jax.lax.scan` over them. On a CPU, where convolutions in loops
      are slow, K;
    - `axis_name=None`: of `shard_map` or `pmap`, or a tuple of several. Each device then
      gives the losses and domain_weights (counts, or shares of parts of one size) of its
      part, and the step is that of the whole batch, alike on all. Under `jit` nothing of
      the kind is needed;
    - `loss_scale=None`: the way back is scaled by it and the gradients unscaled in
      float32; `scale_loss` adapts it;
    - `compute_dtype=None`: to which `loss_fn` casts the parameters; the evaluation then
      tells how much of eps survives that.

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
      combine: (gradient at w, gradient at w + eps) -> gradient; None is
        `take_perturbed`.
      combine_with: `"ascent"` or `"descent"`.
      ascent_steps: >= 1, how many gradients make eps.
      when: the steps that ascend, see `every`, `starting_at` and `with_probability`; None
        is all.
      between: what is descended at the others; None is the plain gradient.

    Returns:
      An Optax transformation with extra arguments; its state's tree does not change.
      Gradients come out in the parameters' dtypes; between, they are in at least float32.

    Raises:
      ValueError: `combine_with` is neither of the two, `ascent_steps` is not positive, or
        `between` is given without `when`; at `update`, gradients are given as `updates`, an
        Optax mask stands around the method, params or `loss_fn` are missing,
        the losses are not a floating-point scalar or vector, the weights have another
        shape, a negative or a non-finite entry, or the micro-batches no common first axis.
      TypeError: `perturbation` is no Optax transformation; at `update`, `loss_fn` returns
        no array, or an aux that has_aux does not announce, or the reverse, a parameter is
        an integer, a bool or a key, or a keyword is nearly one of those above.

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
    if combine_with not in ("ascent", "descent"):
        raise ValueError(
            f"combine_with must be 'ascent' or 'descent'; got {combine_with!r}."
        )
    check_integer("ascent_steps", ascent_steps)
    if between is not None and when is None:
        raise ValueError("between needs when: say at which steps to ascend, every(5) say.")
    ascent = weighted_mean if ascent is None else ascent
    descent = weighted_mean if descent is None else descent
    combine = take_perturbed if combine is None else combine
    between = plain_gradient() if between is None else between

    def init(params: Tree) -> Memory:
        # Of float32: the perturbation is given gradients in at least that.
        wide = trees.at_least_float32(params)
        return Memory(perturbation.init(wide), between.init(params))

    def step(points: Points, memory: Memory, count: chex.Array) -> Step:
        ascent_now = at_step(ascent, count)
        descent_now = at_step(descent, count)
        combine_now = at_step(combine, count)

        def climb() -> Step:
            if combine_with == "descent":
                start, clean = points.looks(ascent_now, descent_now)
            else:
                start = points.at_ascent().look(ascent_now)
                clean = points.as_clean(start)
            eps, state = perturbation.update(
                start.gradient, memory.perturbation, points.params
            )
            for _ in range(1, ascent_steps):
                there = points.at_ascent(eps).look(ascent_now)
                further, _ = perturbation.update(
                    there.gradient, memory.perturbation, points.params
                )
                eps = optax.tree.add(eps, further)
            perturbed = points.at_perturbed(eps).look(descent_now)
            grads = clean.gradient, perturbed.gradient
            return Step(
                trees.cast_like(combine_now(*grads), perturbed.gradient),
                Memory(state, between.remember(*grads)),
                points.evaluation(clean, perturbed, eps, start),
            )

        def stay() -> Step:
            clean = points.at().look(descent_now)
            gradient = between.recall(clean.gradient, memory.between, count)
            return Step(gradient, memory, points.evaluation_at(clean))

        return climb() if when is None else either(when(count), climb, stay)

    return gradient_source(init, step)


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
      An Optax transformation with the extra arguments of `sharpness_aware`. Its
      evaluation has eps = 0: the perturbed losses are the losses.

    Raises:
      ValueError, TypeError: at `update`, as `sharpness_aware`.

    References:
      Zhang et al., ICLR 2024, Eq. 3.
    """
    descent = weighted_mean if descent is None else descent

    def step(points: Points, memory: Any, count: chex.Array) -> Step:
        clean = points.at().look(at_step(descent, count))
        return Step(clean.gradient, memory, points.evaluation_at(clean))

    return gradient_source(lambda params: (), step)
