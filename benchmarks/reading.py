"""What a reader follows of a step: the files and functions that it enters, and how deep."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib
from rich.console import Console
from rich.table import Table

import disam_jax as dj


class Entered(NamedTuple):
    """What a call enters of a package, comprehensions and lambdas counted as functions.

    Attributes:
      files: of how many files.
      functions: how many different ones.
      calls: how often any of them is called.
      depth: the most of them that stand on the stack at once.
    """

    files: int
    functions: int
    calls: int
    depth: int


def entered(call: Callable[[], Any], package: Any) -> Entered:
    """Counts what `call` enters of a package.

    Args:
      call: without arguments; not compiled, for what is compiled is called once.
      package: the module.
    """
    root = str(Path(package.__file__).parent) + os.sep
    stack, calls, depth = [], [], 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal depth
        code = frame.f_code
        if not code.co_filename.startswith(root):
            return
        if event == "call":
            stack.append(code)
            calls.append((code.co_filename, code.co_firstlineno))
            depth = max(depth, len(stack))
        elif event == "return":
            stack.pop()

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    functions = set(calls)
    return Entered(len({file for file, _ in functions}), len(functions), len(calls), depth)


PARAMS = {"kernel": jnp.ones(3), "bias": jnp.ones(2)}


def loss_fn(params: Any) -> jax.Array:
    """Any loss; what it enters is not the package's."""
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)), start=jnp.zeros(()))


def one_step(make: Callable[[], Any], **options: Any) -> None:
    """Makes a method, its state, and takes one step."""
    tx = make()
    tx.update(None, tx.init(PARAMS), PARAMS, loss_fn=loss_fn, **options)


def one_step_of_optax() -> None:
    """The same with `optax.contrib.sam`, which takes its second gradient by itself."""
    adversary = optax.chain(contrib.normalize(), optax.sgd(0.05))
    tx = contrib.sam(optax.sgd(0.1), adversary, opaque_mode=True)
    grad_fn = jax.grad(lambda params, _: loss_fn(params))
    tx.update(grad_fn(PARAMS, 0), tx.init(PARAMS), PARAMS, grad_fn=grad_fn)


STEPS = {
    "sam": (lambda: one_step(dj.sam), dj),
    "disam, record=True": (lambda: one_step(dj.disam, record=True), dj),
    "optax.contrib.sam": (one_step_of_optax, optax),
}


def measure(name: str) -> Entered:
    """What a step of that name enters, when it is not the first."""
    call, package = STEPS[name]
    call()
    return entered(call, package)


def reading() -> None:
    """Counts the files and functions that one step enters, and how deep they are nested."""
    table = Table("one step: made, init, update", *Entered._fields)
    for name in STEPS:
        table.add_row(name, *map(str, measure(name)))
    Console().print(table)
