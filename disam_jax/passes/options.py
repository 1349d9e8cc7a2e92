"""Options: what every method's `update` takes by keyword, and what it refuses."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

import jax

from disam_jax.composed import bind
from disam_jax.passes.forward import LossFn
from disam_jax.trees import Tree

AxisName = str | tuple[str, ...]  # of one mesh axis, or of several

GIVEN_GRADIENTS = (
    "updates must be None: this transformation takes its gradients itself, at w and at "
    "w + eps. It stands first in a chain, before what changes gradients or makes steps of "
    "them, and nothing that has gradients of its own (optax.MultiSteps, TrainState, "
    "nnx.Optimizer) goes around it: call tx.update(None, state, params, loss_fn=loss_fn), "
    "or take the gradients with disam_jax.value_and_grad(loss_fn, method) and give them to "
    "an optimizer without the method."
)
MISSING_LOSS_FN = (
    "loss_fn is missing: this transformation takes the gradients itself. Call "
    "tx.update(None, state, params, loss_fn=loss_fn), or, where the optimizer's "
    "call is not yours (TrainState.apply_gradients, nnx.Optimizer), take the "
    "gradients with disam_jax.value_and_grad and give them to the optimizer; for Flax "
    "NNX, disam_jax.nnx.Optimizer(model, tx, wrt=nnx.Param) takes the loss function."
)
MISSING_MICRO_BATCHES = (
    "micro_batches is missing: give this method its domains as micro-batches, "
    "tx.update(None, state, params, loss_fn=loss_fn, micro_batches=batch) with arrays "
    "[K, ...] and loss_fn(params, micro_batch)."
)


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What `update` takes by keyword besides `(updates, state, params)`, of every method.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> tx, params = dj.disam(rho=0.5, lam=0.1), jnp.array([3.0, 4.0])
      >>> loss_fn = lambda w: jnp.stack([jnp.sum(w**2), jnp.sum((w - 1) ** 2)])
      >>> grads, state = tx.update(
      ...     None, tx.init(params), params,
      ...     loss_fn=loss_fn, domain_weights=jnp.array([3.0, 1.0]), record=True,
      ... )
      >>> print(grads.round(2))
      [6.06 8.33]

    Attributes:
      loss_fn: params -> losses [M] (a scalar is one domain), or (losses, aux).
      ascent_loss_fn: whose gradient at w is climbed; None is `loss_fn`. The same model on a
        quarter of every domain's examples, say, for 1.25 gradients per step. At the steps
        that `when` skips it is not evaluated.
      perturbed_loss_fn: what is evaluated at w + eps; None is `loss_fn`. The same model in
        float32, say, where bfloat16 rounds eps away.
      domain_weights: [M], >= 0, scaled to sum 1; None is uniform. A domain of weight 0 is
        absent and takes part in nothing. Its loss may be anything whose derivative is
        finite (0 times NaN is NaN), as `domain_means` sees to.
      micro_batches: a tree of arrays [K, ...]. `loss_fn` then takes (params, micro_batch),
        domain_weights are [K, M] (None is uniform, and every micro-batch counts alike), and
        the step is that of the whole batch with the memory of one micro-batch: one eps,
        from all of them. Its gradients are those of K micro-batches at w and at w + eps; an
        objective other than the weighted mean needs all domain losses first, one more
        forward pass over them.
      unroll: of the `jax.lax.scan` over them. On a CPU, where convolutions in loops are
        slow, K.
      axis_name: of `shard_map` or `pmap`, or a tuple of several. Each device then gives the
        losses and domain_weights (counts, or shares of parts of one size) of its part, and
        the step is that of the whole batch, alike on all. Under `jit` nothing of the kind
        is needed.
      loss_scale: the way back is scaled by it and the gradients unscaled in float32;
        `scale_loss` adapts it.
      compute_dtype: to which `loss_fn` casts the parameters; the evaluation then tells how
        much of eps survives that.
      has_aux: whether `loss_fn` returns an aux.
      record: whether the new state holds the `Evaluation`, for `pop_evaluation`.
    """

    loss_fn: LossFn | None = None
    ascent_loss_fn: LossFn | None = None
    perturbed_loss_fn: LossFn | None = None
    domain_weights: jax.Array | None = None
    micro_batches: Tree | None = None
    unroll: int | bool = 1
    axis_name: AxisName | None = None
    loss_scale: jax.Array | None = None
    compute_dtype: Any = None
    has_aux: bool = False
    record: bool = False

    def bound(self, *given: Any, **options: Any) -> "StepOptions":
        """These options with each loss function bound alike; see `bind`."""
        fns = {name: getattr(self, name) for name in LOSS_FNS}
        return dataclasses.replace(
            self,
            **{n: bind(fn, *given, **options) for n, fn in fns.items() if fn is not None},
        )

    def of_micro_batch(
        self, micro_batch: Tree, domain_weights: jax.Array | None
    ) -> "StepOptions":
        """The same for one micro-batch and its weights [M] as the whole batch."""
        return dataclasses.replace(
            self.bound(micro_batch), micro_batches=None, domain_weights=domain_weights
        )


OPTIONS = tuple(field.name for field in dataclasses.fields(StepOptions))
LOSS_FNS = ("loss_fn", "ascent_loss_fn", "perturbed_loss_fn")

# What is meant by these is plain, though their letters are not near enough.
MEANT = {
    "loss": "loss_fn",
    "loss_function": "loss_fn",
    "weights": "domain_weights",
    "axis": "axis_name",
}


def check_keywords(
    given: Iterable[str], known: Iterable[str] = OPTIONS, otherwise: str = ""
) -> None:
    """Refuses a keyword that is nearly a known one; others pass.

    A chain hands its extra arguments to all that stand in it, so that what is not known
    here may be known to another.

    Raises:
      TypeError: `given` holds a near miss; the message names the right one.
    """
    known = list(known)
    for name in given:
        close = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.85)
        meant = MEANT.get(name) or (close[0] if close else None)
        if meant in known:
            raise TypeError(
                f"update() got an unexpected keyword argument {name!r}; did you mean "
                f"{meant!r}? {otherwise}".rstrip()
            )


def split_options(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keywords of an update that are options, and those of others in the chain."""
    others = {name: value for name, value in given.items() if name not in OPTIONS}
    check_keywords(others)
    return {name: given[name] for name in given.keys() - others.keys()}, others
