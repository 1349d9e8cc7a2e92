"""Three domains with quadratic losses, on which published code was run in float64.

What it gave is written as digits in the tests that take its steps again.
"""

import jax.numpy as jnp
import numpy as np

CURVATURES = np.array([[2, 3, 4, 1, 2, 3], [3, 1, 3, 1, 3, 1], [4, 3, 2, 1, 4, 3.0]])
CENTERS = np.array([[0, 2, -1, 1, -2, 0], [1, -1, 2, 0, -2, 1], [2, 1, 0, -1, -2, 2.0]])
START = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def gradient(w):
    """Of the mean of the three losses."""
    return (CURVATURES * (w - CENTERS)).mean(0)


def loss_fn(params):
    """The losses [3] of {"W": [2, 2], "b": [2]}."""
    return 0.5 * jnp.sum(CURVATURES * (flat(params) - CENTERS) ** 2, axis=1)


def params_of(w):
    """The parameters of six numbers."""
    return {"W": jnp.asarray(w[:4]).reshape(2, 2), "b": jnp.asarray(w[4:])}


def flat(params):
    """The six numbers of the parameters, [6], or [n, 6] of stacked ones."""
    batch = params["b"].shape[:-1]
    return jnp.concatenate([jnp.reshape(params["W"], (*batch, 4)), params["b"]], axis=-1)


def first_gradient(tx, loss_fn=loss_fn, **options):
    """The six numbers that a method gives at its first step."""
    params = params_of(START)
    return flat(tx.update(None, tx.init(params), params, loss_fn=loss_fn, **options)[0])


def run(tx, steps):
    """The six numbers after each step of a whole optimizer, and its last state."""
    params, path = params_of(START), []
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(None, state, params, loss_fn=loss_fn)
        params = {name: params[name] + updates[name] for name in params}
        path.append(np.asarray(flat(params)))
    return path, state
