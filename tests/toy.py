"""Three domains, a matrix and a vector: the problem that recorded vectors are of."""

import jax.numpy as jnp
import numpy as np

CURVATURES = np.array([[2.0, 3, 4, 1, 2, 3], [3.0, 1, 3, 1, 3, 1], [4.0, 3, 2, 1, 4, 3]])
MINIMA = np.array([[0.0, 2, -1, 1, -2, 0], [1.0, -1, 2, 0, -2, 1], [2.0, 1, 0, -1, -2, 2]])
START = {"W": np.array([[0.1, 0.2], [0.3, 0.4]]), "b": np.array([0.5, 0.6])}


def flat(tree):
    """[6], or [n, 6] of stacked trees."""
    batch = tree["b"].shape[:-1]
    return jnp.concatenate([jnp.reshape(tree["W"], (*batch, 4)), tree["b"]], axis=-1)


def quadratics(params):
    """[3]: half the squares of the distances to MINIMA, along CURVATURES."""
    return jnp.sum(CURVATURES * (flat(params) - MINIMA) ** 2, axis=1) / 2


def gradient(tx, loss_fn=quadratics, params=START, **options):
    """That a method gives at its first step, [6]."""
    return flat(tx.update(None, tx.init(params), params, loss_fn=loss_fn, **options)[0])
