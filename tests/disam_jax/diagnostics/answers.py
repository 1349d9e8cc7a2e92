"""Problems whose measures are known, and how they are found without the package."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from disam_jax import diagnostics
from tests import reference


def symmetric(size, seed=0):
    a = np.random.default_rng(seed).normal(size=(size, size))
    return (a + a.T) / 2


def quadratic(hessian):
    hessian = jnp.asarray(hessian)
    return lambda w: w @ hessian @ w / 2


def highest_on_the_sphere(g, h, rho):
    """max g.e + e.h.e / 2 over norm(e) = rho: e = (mu - h)^-1 g, with mu by bisection."""
    values, vectors = np.linalg.eigh(h)
    g = vectors.T @ g
    low, high = values[-1], values[-1] + reference.length(g) / rho
    for _ in range(200):
        mu = (low + high) / 2
        too_long = reference.length(g / (mu - values)) > rho
        low, high = (mu, high) if too_long else (low, mu)
    e = g / (high - values)
    return g @ e + e @ (values * e) / 2


def mlp():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 10, 2)), rng.normal(size=(2, 10))
    params = {
        "hidden": {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=3)},
        "out": [rng.normal(size=2), np.array(0.5)],
    }

    def losses(params):
        hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        out, last = params["out"]
        return jnp.mean((hidden @ jnp.append(out, last) - y) ** 2, axis=1)

    return losses, jax.tree.map(jnp.asarray, params)


def hessian_of(loss, params):
    """All of it, through its products with unit vectors."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    rows = [
        diagnostics.hessian_product(loss, params, unravel(unit))
        for unit in np.eye(flat.size)
    ]
    return np.array([jax.flatten_util.ravel_pytree(row)[0] for row in rows])
