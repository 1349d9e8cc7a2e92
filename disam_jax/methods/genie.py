"""GENIE: a preconditioner that evens out how much each parameter generalizes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    BELOW_ONE,
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.trees import Tree

NO_VARIANCE = 1e-8  # the code's, where the moments show none


class GenieState(NamedTuple):
    """State of `genie`.

    Attributes:
      count: int32 scalar, the steps done.
      mean: of the gradients, exponentially weighted.
      square: of their squares.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Tree
    square: Tree


def genie(
    learning_rate: Hyperparameter = 0.015,
    decay: float = 0.95,
    *,
    drop: float = 0.4,
    noise: bool = True,
    seed: int = 0,
) -> optax.GradientTransformation:
    """GENIE: an optimizer that moves each parameter by how far its gradient is sure.

    It stands after a method: `optax.chain(disam(), genie())`.

    From the means m of the gradients and v of their squares, both corrected for their
    start, the variance of a parameter's gradient is var = (v - m**2) / (1 - r), where r is
    the sum of the means' squared weights. A parameter's trust is t = tanh(min(1 / var, 10))
    and its share p = t / (1 + r * var / (m**2 + 1e-8)), the one-step generalization ratio;
    the step is -learning_rate * (p * m + (1 - t) * n), with normal noise n of the leaf's
    size sum(p * abs(m)) / sum(t). Each number is left out with the probability `drop`, and
    the others grow by 1 / (1 - drop).

    Of one gradient no variance is known: the first step is SGD's (p = 1 where the gradient
    is far above 1e-4). With drop=0 and noise=False nothing is random.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> tx = optax.chain(dj.erm(), dj.genie(0.5, drop=0.0, noise=False))
      >>> params = jnp.array([3.0, 4.0])
      >>> print(tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)[0])
      [-3. -4.]

    Args:
      learning_rate: >= 0, a float, array or schedule.
      decay: in [0, 1), of both means.
      drop: in [0, 1), the probability that a number stands still in a step.
      noise: whether what is not trusted moves at random.
      seed: of both; with the step count it gives each step's.

    Returns:
      The transformation, a whole optimizer: nothing that scales by a learning rate stands
      after it. Its state is twice as large as the parameters.

    Raises:
      ValueError: the learning rate is negative or not finite, or decay or drop not in
        [0, 1).

    References:
      One-Step Generalization Ratio Guided Optimization for Domain Generalization, ICML
      2025, in the form of the authors' code, whose numbers are the defaults. The paper has
      tanh(1 / var) * m**2 / v, without r. The code ignores the learning rate that it is
      given and takes 0.015, the default here; its `p` is the probability to drop. It adds
      weight decay to the gradient: `optax.add_decayed_weights` before `genie`. In its first
      step the variance is 0 / 0, or rounding over 0, and a number whose rounding comes out
      above 0 stands still; here all move.
    """
    rate = check_hyperparameter("learning_rate", learning_rate)
    decay = check_number("decay", decay, at_most=BELOW_ONE)
    drop = check_number("drop", drop, at_most=BELOW_ONE)

    def init(params: Tree) -> GenieState:
        wide = trees.at_least_float32(trees.to_real(params))
        zeros = trees.zeros_like(wide)
        return GenieState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(
        updates: Tree, state: GenieState, params: Tree | None = None
    ) -> tuple[Tree, GenieState]:
        del params
        grads = trees.at_least_float32(trees.to_real(updates))
        count = jnp.asarray(optax.safe_increment(state.count))
        mean = optax.tree.update_moment(grads, state.mean, decay, 1)
        square = optax.tree.update_moment(grads, state.square, decay, 2)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.count))
        step = _preconditioned(mean, square, decay, count, keys[0] if noise else None)
        if not (isinstance(drop, int | float) and drop == 0):
            step = _dropped(step, drop, keys[1])
        step = optax.tree.scale(-at_step(rate, state.count), step)
        step = trees.from_real(optax.tree.cast_like(step, trees.to_real(updates)))
        return step, GenieState(count, mean, square)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _preconditioned(
    mean: Tree, square: Tree, decay: Any, count: jax.Array, key: jax.Array | None
) -> Tree:
    """P * m, and with a key (1 - t) * n beside it."""
    seen = 1 - decay ** count.astype(float)  # how much of the means is not their start
    mean, square = trees.scale(1 / seen, (mean, square))
    r = (1 - decay) * (2 - seen) / ((1 + decay) * seen)

    def variance(m: jax.Array, v: jax.Array) -> jax.Array:
        found = trees.safe_divide(v - m**2, (1 - r).astype(m.dtype))
        return jnp.where((found > 0) & (count > 1), found, NO_VARIANCE)

    variances = jax.tree.map(variance, mean, square)
    trust = jax.tree.map(lambda var: jnp.tanh(jnp.minimum(1 / var, 10.0)), variances)
    share = jax.tree.map(
        lambda t, var, m: t / (1 + r.astype(m.dtype) * var / (m**2 + 1e-8)),
        trust,
        variances,
        mean,
    )
    signal = optax.tree.mul(share, mean)
    if key is None:
        return signal

    def noisy(x: jax.Array, t: jax.Array, n: jax.Array) -> jax.Array:
        size = trees.safe_divide(jnp.sum(jnp.abs(x)), jnp.sum(t))
        return x + (1 - t) * size * n

    draws = trees.drawn_like(jax.random.normal, key, mean)
    return jax.tree.map(noisy, signal, trust, draws)


def _dropped(step: Tree, drop: Any, key: jax.Array) -> Tree:
    """Each number with the probability 1 - drop, and then larger by as much; else 0."""
    chances = trees.drawn_like(jax.random.uniform, key, step)
    return jax.tree.map(lambda x, c: jnp.where(c < drop, 0, x / (1 - drop)), step, chances)
