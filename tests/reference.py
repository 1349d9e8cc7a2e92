"""Slow NumPy versions of every part, with loops, written from the papers' formulas.

They share no code with the package. Parameters are one flat vector, and domain i has the
loss 1/2 (w - center_i)^T hessian_i (w - center_i), whose gradient is known.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Quadratics:
    """Domain losses with known gradients.

    Attributes:
      hessians: [M, n, n], symmetric and positive definite.
      centers: [M, n].
    """

    hessians: np.ndarray
    centers: np.ndarray

    @classmethod
    def random(cls, seed, num_domains=3, size=5):
        rng = np.random.default_rng(seed)
        roots = rng.normal(size=(num_domains, size, size))
        hessians = np.einsum("mij,mkj->mik", roots, roots) / size
        return cls(hessians, rng.normal(size=(num_domains, size)))

    def losses(self, w):
        """Returns [M]; also works on JAX arrays."""
        return [
            0.5 * ((w - c) @ h @ (w - c))
            for h, c in zip(self.hessians, self.centers, strict=True)
        ]

    def grads(self, w):
        return [h @ (w - c) for h, c in zip(self.hessians, self.centers, strict=True)]


def disam_weights(losses, weights, lam, variance):
    """Each domain's weight in the ascent: papers' beta, with its two variances."""
    present = [i for i, a in enumerate(weights) if a > 0]
    if variance == "uniform":
        shares = {i: 1.0 / len(present) for i in present}
    else:
        shares = {i: weights[i] for i in present}
    mean = sum(shares[i] * losses[i] for i in present)
    beta = [0.0] * len(weights)
    for i in present:
        beta[i] = weights[i] - 2 * lam * shares[i] * (losses[i] - mean)
    return beta


def pairwise_variance(losses):
    """The variance as the paper prints it, a double sum over pairs (Eq. 6)."""
    m = len(losses)
    return sum((a - b) ** 2 for a in losses for b in losses) / (2 * m**2)


def length(vector):
    total = 0.0
    for x in vector:
        total += x * x
    return total**0.5


def sam_eps(g, w, rho, alpha=0.0):
    return rho * g / length(g)


def asam_eps(g, w, rho, alpha=0.0):
    t = np.abs(w)
    return rho * t**2 * g / length(t * g)


def sagm_eps(g, w, rho, alpha):
    return (rho / length(g) - alpha) * g


def no_eps(g, w, rho, alpha=0.0):
    return 0.0 * g


def sam_combine(g, g_perturbed, alpha=0.0):
    return g_perturbed


def sagm_combine(g, g_perturbed, alpha=0.0):
    return 0.5 * g + 0.5 * g_perturbed


def gsam_combine(g, g_perturbed, alpha):
    unit = g_perturbed / length(g_perturbed)
    along = sum(a * b for a, b in zip(g, unit, strict=True))
    return g_perturbed - alpha * (g - along * unit)


EPS = {"erm": no_eps, "sam": sam_eps, "asam": asam_eps, "gsam": sam_eps, "sagm": sagm_eps}
COMBINE = {
    "erm": sam_combine,
    "sam": sam_combine,
    "asam": sam_combine,
    "gsam": gsam_combine,
    "sagm": sagm_combine,
}


def gradient(
    problem, w, weights, kind, rho=0.0, alpha=0.0, lam=0.0, variance="uniform", pure=False
):
    """One step's combined gradient and its eps; `pure` combines with the plain gradient."""

    def weighted(coefficients, grads):
        total = np.zeros_like(w)
        for coefficient, grad in zip(coefficients, grads, strict=True):
            total = total + coefficient * grad
        return total

    grads = problem.grads(w)
    g = weighted(disam_weights(problem.losses(w), weights, lam, variance), grads)
    eps = EPS[kind](g, w, rho, alpha)
    g_perturbed = weighted(weights, problem.grads(w + eps))
    clean = weighted(weights, grads) if pure else g
    return COMBINE[kind](clean, g_perturbed, alpha), eps
