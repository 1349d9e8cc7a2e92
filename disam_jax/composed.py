"""A loss in two parts: what the model puts out, and what that costs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from disam_jax.trees import Tree


@dataclasses.dataclass(frozen=True)
class ComposedLoss:
    """loss_of_outputs(outputs_fn(params)), see `composed_loss`.

    Attributes:
      outputs_fn: (params, *batch) -> outputs, any tree of arrays; or (outputs, aux).
      loss_of_outputs: (outputs, *batch) -> losses [M].
      has_aux: whether there is an aux.
    """

    outputs_fn: Callable[..., Any]
    loss_of_outputs: Callable[..., Any]
    has_aux: bool = False

    def outputs(self, params: Tree, *batch: Any, **options: Any) -> tuple[Any, Any]:
        """(outputs, aux), whose aux is None where there is none."""
        found = self.outputs_fn(params, *batch, **options)
        return found if self.has_aux else (found, None)

    def __call__(self, params: Tree, *batch: Any, **options: Any) -> Any:
        """The losses [M], or (losses, aux)."""
        outputs, aux = self.outputs(params, *batch, **options)
        losses = self.loss_of_outputs(outputs, *batch, **options)
        return (losses, aux) if self.has_aux else losses

    def tangent_at(self, params: Tree) -> Callable[..., Any]:
        """The loss as its tangent at the outputs of these parameters sees it.

        l(F(w)) + <grad l(F(w)), F(v) - F(w)> at v; its gradient is J_F(v)^T grad l(F(w)).
        """

        def losses_fn(there: Tree, *batch: Any) -> Any:
            clean = jax.lax.stop_gradient(_arrays(self.outputs(params, *batch)[0]))
            outputs, aux = self.outputs(there, *batch)
            away = jax.tree.map(_from, clean, outputs)
            losses, more = jax.jvp(
                lambda outputs: jnp.asarray(self.loss_of_outputs(outputs, *batch)),
                (clean,),
                (away,),
            )
            return (losses + more, aux) if self.has_aux else losses + more

        return losses_fn


def _arrays(outputs: Any) -> Any:
    return jax.tree.map(jnp.asarray, outputs)


def _from(clean: jax.Array, there: Any) -> Any:
    """The way to an output; of integers, labels say, that of no derivative."""
    if jnp.issubdtype(clean.dtype, jnp.inexact):
        return there - clean
    return np.zeros(clean.shape, jax.dtypes.float0)


def composed_loss(
    outputs_fn: Callable[..., Any],
    loss_of_outputs: Callable[..., Any],
    *,
    has_aux: bool = False,
) -> ComposedLoss:
    """A loss function in two parts, for methods that look between them.

    It is a loss function like any other: of every method, in micro-batches, in
    `value_and_grad`, whose further arguments both parts get.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> loss_fn = dj.composed_loss(lambda w: 2 * w, lambda outputs: jnp.sum(outputs**2))
      >>> tx, params = dj.functional_sam(rho=0.5), jnp.array([3.0, 4.0])
      >>> grads, _ = tx.update(None, tx.init(params), params, loss_fn=loss_fn)
      >>> print(loss_fn(params), grads)
      100.0 [24. 32.]

    Args:
      outputs_fn: (params, *batch) -> outputs, any tree of arrays; or (outputs, aux).
      loss_of_outputs: (outputs, *batch) -> losses [M], or a scalar.
      has_aux: whether `outputs_fn` returns an aux; then the loss is (losses, aux), and
        `update` is told so too.

    Returns:
      The loss function, (params, *batch) -> losses.
    """
    return ComposedLoss(outputs_fn, loss_of_outputs, has_aux)


def bind(
    fn: Callable[..., Any],
    *given: Any,
    first: Callable[[Any], Any] = lambda params: params,
    **options: Any,
) -> Callable[..., Any]:
    """(params, *batch) -> fn(first(params), *given, *batch, **options), or its parts so."""
    if isinstance(fn, ComposedLoss):
        return dataclasses.replace(
            fn,
            outputs_fn=bind(fn.outputs_fn, *given, first=first, **options),
            loss_of_outputs=bind(fn.loss_of_outputs, *given, **options),
        )
    return lambda params, *batch: fn(first(params), *given, *batch, **options)
