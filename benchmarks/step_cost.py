"""What a step costs beside ERM's: compiled operations, memory and time, in one process.

Methods take turns, round after round, so that a machine that slows down slows all of them;
what is reported is the median of the ratios to the ERM step of the same round.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

import disam_jax as dj

Step = Callable[[Any, Any], tuple[Any, Any]]
DOMAINS = 4


class Case(NamedTuple):
    """A model to measure on.

    Attributes:
      name: of the model.
      params: its parameters.
      loss_fn: params -> losses [DOMAINS], on a fixed batch.
    """

    name: str
    params: Any
    loss_fn: Callable[[Any], jax.Array]


def mlp(width: int, depth: int = 4, batch: int = 128) -> Case:
    """A ReLU network of square layers."""
    rng = np.random.default_rng(0)
    params = [
        jnp.asarray(rng.normal(size=(width, width)) * (2 / width) ** 0.5, jnp.float32)
        for _ in range(depth)
    ]
    x = jnp.asarray(rng.normal(size=(batch, width)), jnp.float32)

    def loss_fn(params: list[jax.Array]) -> jax.Array:
        y = functools.reduce(lambda h, kernel: jax.nn.relu(h @ kernel), params, x)
        return jnp.mean(y**2, axis=1).reshape(DOMAINS, -1).mean(axis=1)

    return Case(f"mlp-{depth}x{width}-batch{batch}", params, loss_fn)


def chained(source: optax.GradientTransformationExtraArgs, case: Case) -> tuple[Step, Any]:
    """The step of a disam_jax method before SGD with momentum, and its first state."""
    tx = optax.chain(source, optax.sgd(1e-3, momentum=0.9))

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(None, state, params, loss_fn=case.loss_fn)  # pyright: ignore[reportArgumentType]
        return optax.apply_updates(params, updates), state

    return step, tx.init(case.params)


def by_hand(case: Case, rho: float = 0.05) -> tuple[Step, Any]:
    """SAM as one writes it without a library."""
    tx = optax.sgd(1e-3, momentum=0.9)
    grad = jax.grad(lambda params: jnp.mean(case.loss_fn(params)))

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        g = grad(params)
        scale = rho / (optax.tree.norm(g) + 1e-12)
        g = grad(jax.tree.map(lambda w, g: w + scale * g, params, g))
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    return step, tx.init(case.params)


def optax_sam(case: Case, rho: float = 0.05) -> tuple[Step, Any]:
    """`optax.contrib.sam` in opaque mode."""
    adversary = optax.chain(contrib.normalize(), optax.sgd(rho))
    base = optax.sgd(1e-3, momentum=0.9)
    tx = contrib.sam(base, adversary, sync_period=2, opaque_mode=True)
    grad = jax.grad(lambda params: jnp.mean(case.loss_fn(params)))

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(
            grad(params), state, params, grad_fn=lambda params, _: grad(params)
        )
        return optax.apply_updates(params, updates), state

    return step, tx.init(case.params)


def per_domain_gradients(
    case: Case, rho: float = 0.05, lam: float = 0.1
) -> tuple[Step, Any]:
    """DISAM from one gradient per domain: what not to do."""
    tx = optax.sgd(1e-3, momentum=0.9)

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        losses, grads = case.loss_fn(params), jax.jacrev(case.loss_fn)(params)
        beta = jax.grad(dj.variance_penalized(lam))(losses, jnp.full(DOMAINS, 1 / DOMAINS))  # pyright: ignore[reportArgumentType]
        g = jax.tree.map(lambda g: jnp.tensordot(beta, g, axes=1), grads)
        scale = rho / (optax.tree.norm(g) + 1e-12)
        moved = jax.tree.map(lambda w, g: w + scale * g, params, g)
        g = jax.tree.map(lambda g: g.mean(0), jax.jacrev(case.loss_fn)(moved))
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    return step, tx.init(case.params)


METHODS: dict[str, Callable[[Case], tuple[Step, Any]]] = {
    "erm": functools.partial(chained, dj.erm()),
    "sam": functools.partial(chained, dj.sam()),
    "asam": functools.partial(chained, dj.sam(0.5, adaptive=True)),
    "gsam": functools.partial(chained, dj.gsam(0.05, 0.2)),
    "sagm": functools.partial(chained, dj.sagm()),
    "disam": functools.partial(chained, dj.disam()),
    "disam+sagm": functools.partial(chained, dj.sagm(ascent=dj.variance_penalized(0.1))),
    "disam+gsam": functools.partial(
        chained, dj.gsam(0.05, 0.2, ascent=dj.variance_penalized(0.1))
    ),
    "sam by hand": by_hand,
    "optax.contrib.sam": optax_sam,
    "disam from per-domain gradients": per_domain_gradients,
}


def measure(case: Case, rounds: int, steps: int) -> list[dict[str, Any]]:
    """One record per method on `case`.

    Args:
      case: the model.
      rounds: how often the methods take turns.
      steps: steps of a method in its turn.

    Returns:
      Records with `flops_ratio`, `memory_ratio` (temporary, as compiled), `time_ratio`
      (median over rounds), `time_ratio_low` and `_high` (quartiles) and `milliseconds`.
    """
    compiled, states, times = {}, {}, {name: [] for name in METHODS}
    for name, make in METHODS.items():
        step, state = make(case)
        compiled[name] = jax.jit(step).lower(case.params, state).compile()
        states[name] = (case.params, state)
    for turn in range(rounds + 1):
        for name, step in compiled.items():
            started, carry = time.perf_counter(), states[name]
            for _ in range(steps):
                carry = step(*carry)
            jax.block_until_ready(carry)
            if turn > 0:  # the first round warms up
                times[name].append((time.perf_counter() - started) / steps)
    flops = {name: step.cost_analysis()["flops"] for name, step in compiled.items()}
    memory = {n: s.memory_analysis().temp_size_in_bytes for n, s in compiled.items()}
    records = []
    for name in METHODS:
        ratios = [t / erm for t, erm in zip(times[name], times["erm"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        records.append(
            {
                "model": case.name,
                "method": name,
                "dtype": "float32",
                "time_ratio": middle,
                "time_ratio_low": low,
                "time_ratio_high": high,
                "flops_ratio": flops[name] / flops["erm"],
                "memory_ratio": memory[name] / max(memory["erm"], 1),
                "milliseconds": 1e3 * statistics.median(times[name]),
            }
        )
    return records
