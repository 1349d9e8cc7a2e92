"""What XLA makes of a step: no more of it than of the same step written by hand.

Counted in lines of the optimized program of a network of many leaves, where a sum over all
of them that is computed once and one that is computed in every leaf's kernel differ most.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj

LAYERS, WIDTH, DOMAINS, RHO, ALPHA = 24, 8, 3, 0.05, 0.1


def problem():
    rng = np.random.default_rng(0)
    params = [
        {"kernel": rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5, "bias": np.zeros(WIDTH)}
        for _ in range(LAYERS)
    ]
    x = rng.normal(size=(DOMAINS, 4, WIDTH))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, x))


def losses(params, x):
    for layer in params:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    return jnp.mean(x**2, axis=(1, 2))


def mean_loss(params, x):
    return jnp.mean(losses(params, x))


def dot(a, b):
    return sum(
        jnp.sum(u * v) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def ascend(params, grads, length):
    norm = jnp.sqrt(dot(grads, grads))
    return jax.tree.map(lambda w, g: w + (length(norm)) * g, params, grads)


def sam(params, x):
    grads = jax.grad(mean_loss)(params, x)
    return jax.grad(mean_loss)(ascend(params, grads, lambda norm: RHO / norm), x)


def disam(params, x):
    def ascent(params):
        found = losses(params, x)
        return jnp.mean(found) - 0.1 * jnp.var(found)

    grads = jax.grad(ascent)(params)
    return jax.grad(mean_loss)(ascend(params, grads, lambda norm: RHO / norm), x)


def sagm(params, x):
    grads = jax.grad(mean_loss)(params, x)
    there = ascend(params, grads, lambda norm: RHO / norm - 1e-3)
    perturbed = jax.grad(mean_loss)(there, x)
    return jax.tree.map(lambda g, p: (g + p) / 2, grads, perturbed)


def gsam(params, x):
    grads = jax.grad(mean_loss)(params, x)
    there = ascend(params, grads, lambda norm: RHO / norm)
    perturbed = jax.grad(mean_loss)(there, x)
    along = dot(grads, perturbed) / dot(perturbed, perturbed)
    return jax.tree.map(lambda g, p: p - ALPHA * (g - along * p), grads, perturbed)


def stable(params, x):
    grads = jax.grad(mean_loss)(params, x)
    there = ascend(params, grads, lambda norm: RHO / norm)
    perturbed = jax.grad(mean_loss)(there, x)
    ratio = jnp.sqrt(dot(grads, grads)) / jnp.sqrt(dot(perturbed, perturbed))
    return jax.tree.map(lambda p: ratio * p, perturbed)


BY_HAND = {
    "sam": (dj.sam(RHO), sam),
    "disam": (dj.disam(RHO), disam),
    "sagm": (dj.sagm(RHO, 1e-3), sagm),
    "gsam": (dj.gsam(RHO, ALPHA), gsam),
    "stable": (dj.stable_sam(RHO), stable),
}


def lines(step, *arguments):
    return len(jax.jit(step).lower(*arguments).compile().as_text().splitlines())


@pytest.mark.parametrize("name", BY_HAND)
def test_a_step_compiles_to_what_it_is_by_hand(name):
    tx, by_hand = BY_HAND[name]
    params, x = problem()

    def step(params, state, x):
        return tx.update(None, state, params, loss_fn=lambda params: losses(params, x))

    ours = lines(step, params, tx.init(params), x)
    theirs = lines(by_hand, params, x)
    assert ours <= 1.1 * theirs, ours / theirs
