"""A toy of two domains and two parameters, on which ascents and paths can be seen.

Domain i has the loss L_i(w) = log(1 + 1/2 (w - c_i)^T A_i (w - c_i)), a well that is round
at its bottom and ever flatter outside of it, so not convex. The one that is drawn has

    c_1 = (-1.2, -0.6)   A_1 = diag(8, 2)     a narrow well
    c_2 = ( 1.2,  0.6)   A_2 = diag(1, 3)     a wide one

DISAM's Fig. 2 shows such a toy and does not give its functions; this one is our own.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import disam_jax as dj
from experiments.studies.kit.trajectories import ascent

CENTERS = np.array([[-1.2, -0.6], [1.2, 0.6]], np.float32)
CURVATURES = np.array([[[8, 0], [0, 2]], [[1, 0], [0, 3]]], np.float32)
CORNER = (3.0, 2.5)  # starts are in the box from -CORNER to CORNER
RHO, STEP_SIZE, STEPS = 0.2, 0.05, 300
METHODS = {
    "erm": dj.erm(),
    "sam": dj.sam(RHO),
    "disam 0.1": dj.disam(RHO, 0.1),  # the paper's lam
    "disam 1": dj.disam(RHO, 1.0),
}
DISAMS = ("disam 0.1", "disam 1")
CLIMBED = {"sam": 0.0, "disam 0.1": 0.1, "disam 1": 1.0}  # lam of what is climbed


class Toys(NamedTuple):
    """Toys, and a start on each.

    Attributes:
      centers: [N, 2, 2], c_i.
      curvatures: [N, 2, 2, 2], A_i.
      starts: [N, 2].
    """

    centers: np.ndarray
    curvatures: np.ndarray
    starts: np.ndarray


class Paths(NamedTuple):
    """Where a method went.

    Attributes:
      points: [N, T, 2], w_1 ... w_T.
      losses: [N, T, 2], of the domains there.
      perturbed_losses: [N, T, 2], of the domains at w_t + eps_t.
    """

    points: np.ndarray
    losses: np.ndarray
    perturbed_losses: np.ndarray


def domain_losses(w: jax.Array, centers: jax.Array, curvatures: jax.Array) -> jax.Array:
    """log(1 + 1/2 (w - c_i)^T A_i (w - c_i)) of both domains, [2]."""
    away = w - centers
    return jnp.log1p(jnp.einsum("mi,mij,mj->m", away, curvatures, away) / 2)


def drawn_toy(starts: np.ndarray) -> Toys:
    """The toy of the figures with these starts."""
    count = len(starts)
    return Toys(
        np.repeat(CENTERS[None], count, 0), np.repeat(CURVATURES[None], count, 0), starts
    )


def random_toys(rng: np.random.Generator, count: int) -> Toys:
    """Toys whose wells lie anywhere in the middle, turned and wide at random."""
    angles = rng.uniform(0, np.pi, (count, 2))
    cos, sin = np.cos(angles), np.sin(angles)
    axes = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    eigenvalues = np.exp(rng.uniform(np.log(0.3), np.log(10), (count, 2, 2)))
    curvatures = np.einsum("nmij,nmj,nmkj->nmik", axes, eigenvalues, axes)
    centers = rng.uniform(-1.5, 1.5, (count, 2, 2))
    arrays = centers, curvatures, random_starts(rng, count)
    return Toys(*(x.astype(np.float32) for x in arrays))


def random_starts(rng: np.random.Generator, count: int) -> np.ndarray:
    """Starts anywhere in the box."""
    return rng.uniform(np.negative(CORNER), CORNER, (count, 2)).astype(np.float32)


def follow(method: Any, toys: Toys, steps: int = STEPS) -> Paths:
    """The paths w <- w - STEP_SIZE * (the method's gradient), from every start.

    Args:
      method: a transformation of `disam_jax`.
      toys: with their starts.
      steps: T.

    Returns:
      The paths.
    """
    descend = dj.value_and_grad(domain_losses, method)

    def path(centers: jax.Array, curvatures: jax.Array, start: jax.Array) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, Any]:
            w, state = carry
            (evaluation, gradient), state = descend(w, state, centers, curvatures)
            found = w, evaluation.losses, evaluation.perturbed_losses
            return (w - STEP_SIZE * gradient, state), found

        return jax.lax.scan(step, (start, method.init(start)), length=steps)[1]

    return Paths(*map(np.asarray, jax.jit(jax.vmap(path))(*toys)))


def directions(toys: Toys, points: np.ndarray) -> dict[str, np.ndarray]:
    """The gradients of the domains, and where the methods climb.

    Args:
      toys: whose starts do not matter.
      points: [N, T, 2].

    Returns:
      `gradients`, [N, T, 2 domains, 2], and per method that climbs its direction, of
      length 1, [N, T, 2].
    """

    def at(centers: jax.Array, curvatures: jax.Array, w: jax.Array) -> dict[str, jax.Array]:
        losses = domain_losses(w, centers, curvatures)
        gradients = jax.jacobian(domain_losses)(w, centers, curvatures)
        climbs = {name: ascent((losses, gradients), lam) for name, lam in CLIMBED.items()}
        found = {name: g / jnp.linalg.norm(g) for name, g in climbs.items()}
        return {**found, "gradients": gradients}

    on_path = jax.vmap(at, in_axes=(None, None, 0))
    found = jax.jit(jax.vmap(on_path))(toys.centers, toys.curvatures, points)
    return jax.tree.map(np.asarray, found)


def dominance(gradients: np.ndarray, climbed: np.ndarray) -> np.ndarray:
    """How much nearer a climb is to the longer gradient than to the shorter one.

    Args:
      gradients: [N, T, 2, 2], of the two domains.
      climbed: [N, T, 2], directions of length 1.

    Returns:
      [N], the cosine with the longer less that with the shorter, a mean over the points.
    """
    norms = np.linalg.norm(gradients, axis=-1)
    cosines = np.einsum("ntmi,nti->ntm", gradients, climbed) / norms
    by_length = np.take_along_axis(cosines, np.argsort(norms, axis=-1), axis=-1)
    return np.diff(by_length)[..., 0].mean(-1)


def name_of(method: str) -> str:
    """E.g. `DISAM, lam 0.1` of `disam 0.1`."""
    kind, _, lam = method.partition(" ")
    return f"{kind.upper()}, lam {lam}" if lam else kind.upper()
