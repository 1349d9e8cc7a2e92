"""Compiled once per loss function, and loops outside of the compiled part."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from disam_jax.domains import LossFn
from disam_jax.trees import Tree

# As a static argument of `jax.jit` every loss function would be kept, and with it the batch
# it closes over; this forgets both when the caller does.
_COMPILED: weakref.WeakKeyDictionary[LossFn, dict[Any, Callable[..., Any]]]
_COMPILED = weakref.WeakKeyDictionary()


# One program, where leaf by leaf there would be one for every shape.
zeros_like: Callable[[Tree], Tree] = jax.jit(optax.tree.zeros_like)


def compiled(
    function: Callable[..., Any], loss_fn: LossFn, *static: Any
) -> Callable[..., Any]:
    """Returns (*args) -> function(loss_fn, *static, *args), compiled once per loss_fn.

    Of a `jax.tree_util.Partial` the function counts, and what it is given is traced.
    """
    given = (), {}
    if isinstance(loss_fn, jax.tree_util.Partial):
        loss_fn, given = loss_fn.func, (loss_fn.args, loss_fn.keywords)
    own, alive = _COMPILED.setdefault(loss_fn, {}), weakref.ref(loss_fn)

    def call(given: tuple[tuple[Any, ...], dict[str, Any]], *args: Any) -> Any:
        loss_fn: Any = alive()
        return function(functools.partial(loss_fn, *given[0], **given[1]), *static, *args)

    if (function, static) not in own:
        own[function, static] = jax.jit(call)
    return functools.partial(own[function, static], given)


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Tree, xs: Tree
) -> tuple[Tree, Tree]:
    """`jax.lax.scan` where the carry is traced, else a loop in Python over compiled steps.

    XLA for the CPU runs convolutions inside loops many times slower than outside.
    """
    if _traced((carry, xs)):
        return jax.lax.scan(step, carry, xs)
    ys = []
    for i in range(len(jax.tree.leaves(xs)[0])):
        at = jnp.asarray(i)  # for an int, XLA would compile every slice by itself
        carry, y = step(carry, jax.tree.map(lambda leaf, at=at: leaf[at], xs))
        ys.append(y)
    if _traced(ys):  # of what the step closes over, under `vmap`
        return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *ys)
    # On the host: XLA would compile an operation with as many operands, for minutes.
    return carry, jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *ys))


def _traced(tree: Tree) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))
