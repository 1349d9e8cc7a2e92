"""Projected ascent with momentum and a step of its own length (Auto-PGD)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from disam_jax import trees
from disam_jax.diagnostics.balls import BALLS, Ball
from disam_jax.diagnostics.checks import domain_losses
from disam_jax.diagnostics.climbs import Met, higher, meeting
from disam_jax.diagnostics.compiled import compiled, scan, zeros_like
from disam_jax.hyperparameters import Number
from disam_jax.objectives import ObjectiveFn
from disam_jax.passes.forward import LossFn, at_once
from disam_jax.trees import Tree

MOMENTUM = 0.75  # how much of a step is the gradient's; the rest goes on as before
# Where it is seen whether to halve the step, in hundredths of all steps: at first after 22,
# then each time after 3 less, at last 6.
_CHECKPOINTS = np.array([22, 41, 57, 70, 80, 87, 93, 99])
_RISING = 75  # the percentage of steps that must have gone up since the last of them

Form = tuple[str, bool]  # the norm, and whether eps is x in units of abs(w)


class _Point(NamedTuple):
    x: Tree
    gradient: Tree
    height: jax.Array


class _State(NamedTuple):
    x: Tree  # where the ascent is
    before: Tree  # where it was
    height: jax.Array  # there
    best: _Point
    step: jax.Array
    rises: jax.Array  # since the last checkpoint
    halved: jax.Array  # there
    best_height: jax.Array  # there


def climb(
    loss_fn: LossFn,
    params: Tree,
    rho: Number,
    keys: jax.Array,
    form: Form,
    steps: int,
    ascent: ObjectiveFn,
    weights: jax.Array,
) -> jax.Array:
    """Returns the losses [M] at the highest point of all ascents, and of w."""
    ascend = compiled(_ascend, loss_fn, ascent, form)
    met = meeting(loss_fn, params, ascent, weights)

    def step(state: _State, at: tuple[jax.Array, jax.Array]) -> tuple[_State, None]:
        return ascend(params, rho, weights, state, *at), None

    def restart(highest: Met, key: jax.Array) -> tuple[Met, None]:
        start = _start(params, rho, key, highest.height, form)
        end, _ = scan(step, start, (np.arange(steps), _spans(steps)))
        for x in (end.best.x, end.x):
            highest = higher(highest, met(_stretched(params, x, form)))
        return highest, None

    return scan(restart, met(zeros_like(params)), keys)[0].losses


def _spans(steps: int) -> np.ndarray:
    """[steps]: at a checkpoint, the steps since the last one; elsewhere 0."""
    checkpoints = np.unique(-(-_CHECKPOINTS * steps // 100))
    checkpoints = checkpoints[checkpoints < steps]
    spans = np.zeros(steps, int)
    spans[checkpoints] = np.diff(checkpoints, prepend=0)
    return spans


@functools.partial(jax.jit, static_argnums=4)
def _start(
    params: Tree, rho: Number, key: jax.Array, height: jax.Array, form: Form
) -> _State:
    x = optax.tree.scale(rho, BALLS[form[0]].draw(key, params))
    x = optax.tree.cast_like(x, params)
    lowest = jnp.full_like(height, -jnp.inf)
    best = _Point(x, jax.tree.map(jnp.zeros_like, x), lowest)
    step = jnp.asarray(2 * rho, height.dtype)
    none, highest = jnp.zeros((), int), jnp.full_like(height, jnp.inf)
    return _State(x, x, highest, best, step, none, jnp.array(True), lowest)


@functools.partial(jax.jit, static_argnums=2)
def _stretched(params: Tree, x: Tree, form: Form) -> Tree:
    """The eps of x: c * x."""
    return jax.tree.map(lambda w, x: jnp.abs(w) * x, params, x) if form[1] else x


def _ascend(
    loss_fn: LossFn,
    ascent: ObjectiveFn,
    form: Form,
    params: Tree,
    rho: Number,
    weights: jax.Array,
    state: _State,
    k: jax.Array,
    span: jax.Array,
) -> _State:
    """One step: look at the point, perhaps halve and go back, and move."""

    def losses_at(x: Tree) -> tuple[jax.Array, None]:
        eps = _stretched(params, x, form)
        return domain_losses(loss_fn)(optax.tree.add(params, eps))

    seen = at_once(losses_at, state.x, weights).value_and_grad(ascent)
    shares = trees.safe_divide(weights, jnp.sum(weights))
    height = ascent(seen.losses, shares)
    gradient = optax.tree.cast_like(seen.gradient, state.x)
    point = _Point(state.x, gradient, height)
    rises = jnp.where(height > state.height, state.rises + 1, state.rises)
    state = state._replace(best=higher(state.best, point), rises=rises)
    state, point = _checked(state, point, span)
    x = _moved(BALLS[form[0]], rho, state, point, jnp.where(k == 0, 1.0, MOMENTUM))
    x = optax.tree.cast_like(x, point.x)
    return state._replace(x=x, before=point.x, height=point.height)


def _checked(state: _State, here: _Point, span: jax.Array) -> tuple[_State, _Point]:
    """The state after a checkpoint, where span > 0, and the point that is gone on from."""
    check, best = span > 0, state.best
    stands = ~state.halved & (best.height <= state.best_height)
    halve = check & ((100 * state.rises < _RISING * span) | stands)
    checked = state._replace(
        step=jnp.where(halve, state.step / 2, state.step),
        rises=jnp.where(check, 0, state.rises),
        halved=jnp.where(check, halve, state.halved),
        best_height=jnp.where(check, best.height, state.best_height),
    )
    return checked, jax.tree.map(lambda x, y: jnp.where(halve, x, y), best, here)


def _moved(
    ball: Ball, rho: Number, state: _State, here: _Point, momentum: jax.Array
) -> Tree:
    def add(x: Tree, factor: jax.Array, y: Tree) -> Tree:
        return optax.tree.add_scale(x, factor, y)

    z = ball.project(add(here.x, state.step, ball.direction(here.gradient)), rho)
    along = add(here.x, momentum, optax.tree.sub(z, here.x))
    return ball.project(add(along, 1 - momentum, optax.tree.sub(here.x, state.before)), rho)
