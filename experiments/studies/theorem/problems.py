"""What Theorem 1 is tried on: random quadratics and a small network on digits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import load
from experiments.studies.kit.trajectories import Problem

SIDE, CLASSES = 8, 10
PIXELS = SIDE**2


class Quadratics(NamedTuple):
    """Random quadratics and what is known of their mean.

    Attributes:
      problem: L_i = 1/2 (w - c_i)^T A_i (w - c_i), with eta_0 = 1 / smoothness.
      smoothness: [S], L, the largest eigenvalue of the mean of the A_i.
      minimum: [S, P], where the mean of the losses is smallest.
    """

    problem: Problem
    smoothness: np.ndarray
    minimum: np.ndarray


def quadratic_loss(w: jax.Array, domain: tuple[jax.Array, jax.Array]) -> jax.Array:
    """1/2 (w - c)^T A (w - c) of a domain (A, c)."""
    hessian, center = domain
    return (w - center) @ hessian @ (w - center) / 2


def quadratics(seeds: int, domains: int = 4, size: int = 10) -> Quadratics:
    """A random family of quadratics per seed.

    A_i has random axes and eigenvalues uniform in [0.1, 1], times a scale of the domain
    uniform in [0.3, 1]; the centers are normal with standard deviation 0.5, and the start
    is the minimum of the mean plus a standard normal vector.

    Args:
      seeds: 0, 1, ...
      domains: M.
      size: P.

    Returns:
      The families.
    """
    made = [_quadratics(np.random.default_rng(s), domains, size) for s in range(seeds)]
    hessians, centers, minimum, start = (np.stack(x) for x in zip(*made, strict=True))
    smoothness = np.linalg.eigvalsh(hessians.mean(1))[:, -1]
    batch = hessians.astype(np.float32), centers.astype(np.float32)
    start = start.astype(np.float32)
    problem = Problem(quadratic_loss, batch, start, (1 / smoothness).astype(np.float32))
    return Quadratics(problem, smoothness, minimum)


def _quadratics(rng: np.random.Generator, domains: int, size: int) -> tuple:
    axes = np.linalg.qr(rng.normal(size=(domains, size, size)))[0]
    scales = rng.uniform(0.3, 1.0, (domains, 1))
    eigenvalues = scales * rng.uniform(0.1, 1.0, (domains, size))
    hessians = np.einsum("mij,mj,mkj->mik", axes, eigenvalues, axes)
    centers = 0.5 * rng.normal(size=(domains, size))
    pulled = np.einsum("mij,mj->i", hessians, centers)
    minimum = np.linalg.solve(hessians.sum(0), pulled)
    return hessians, centers, minimum, minimum + rng.normal(size=size)


def least_curvature(known: Quadratics) -> np.ndarray:
    """The smallest eigenvalue of the mean of the A_i, [S]."""
    return np.linalg.eigvalsh(known.problem.batch[0].mean(1))[:, 0]


def lowest_loss(known: Quadratics) -> np.ndarray:
    """The mean of the losses at its minimum, [S]."""
    hessians, centers = known.problem.batch
    away = known.minimum[:, None] - centers
    return np.einsum("smi,smij,smj->s", away, hessians, away) / 2 / centers.shape[1]


def shift_of_minimum(known: Quadratics) -> np.ndarray:
    """How far the minimum of L - lam Var moves with lam at first, |H^-1 grad Var|, [S]."""
    hessians, centers = known.problem.batch
    away = known.minimum[:, None] - centers
    gradients = np.einsum("smij,smj->smi", hessians, away)
    losses = np.einsum("smi,smi->sm", gradients, away) / 2
    above = losses - losses.mean(1, keepdims=True)
    slope = 2 * np.mean(above[..., None] * gradients, axis=1)
    return np.linalg.norm(np.linalg.solve(hessians.mean(1), slope[..., None]), axis=(1, 2))


def network_loss(w: jax.Array, domain: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Mean cross-entropy of a network with one hidden layer of tanh units, in nats.

    Its width follows from w, which holds weights [PIXELS, H] and [H, CLASSES] and biases
    [H] and [CLASSES].
    """
    images, labels = domain
    hidden = (w.size - CLASSES) // (PIXELS + 1 + CLASSES)
    ends = np.cumsum([PIXELS * hidden, hidden, hidden * CLASSES])
    kernel, bias, last, last_bias = jnp.split(w, ends)
    features = jnp.tanh(images @ kernel.reshape(PIXELS, hidden) + bias)
    logits = features @ last.reshape(hidden, CLASSES) + last_bias
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def digits_network(
    seeds: int, first_step: float, images: int = 60, hidden: int = 16
) -> Problem:
    """The network on rotated_digits without its last domain, turned by 75 degrees.

    Args:
      seeds: 0, 1, ...; a seed chooses the images and the first weights.
      first_step: eta_0.
      images: of each domain.
      hidden: units.

    Returns:
      The problem.
    """
    data = load("rotated_digits", image_size=SIDE)
    pixels, labels, starts = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(len(y))[:images] for y in data.labels[:-1]]
        gray = np.stack([x[i, :, :, 0] for x, i in zip(data.images, chosen, strict=False)])
        pixels.append(gray.reshape(*gray.shape[:2], PIXELS) / np.float32(127.5) - 1)
        labels.append([y[i] for y, i in zip(data.labels, chosen, strict=False)])
        kernel = rng.normal(0.0, PIXELS**-0.5, PIXELS * hidden)
        last = rng.normal(0.0, hidden**-0.5, hidden * CLASSES)
        starts.append(np.concatenate([kernel, np.zeros(hidden), last, np.zeros(CLASSES)]))
    return Problem(
        network_loss,
        (np.stack(pixels), np.array(labels)),
        np.stack(starts).astype(np.float32),
        np.full(seeds, first_step, np.float32),
    )
