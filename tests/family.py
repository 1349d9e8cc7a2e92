"""Slow NumPy versions of the family's methods: plain loops, written from their formulas.

They share no code with the package. Each takes a stream of problems and the first w, and
returns w after every step of gradient descent at RATE.
"""

import numpy as np

from tests import reference
from tests.problems import LAM, RHO, WEIGHTS
from tests.reference import length

RATE = 0.1


def grad(problem, w, lam=0.0):
    """The gradient of the weighted mean, or of DISAM's ascent objective."""
    beta = reference.disam_weights(problem.losses(w), WEIGHTS, lam, "uniform")
    return sum(b * g for b, g in zip(beta, problem.grads(w), strict=True))


def unit(x):
    return x / length(x)


def orthogonal(x, y):
    """The part of x that is orthogonal to y."""
    return x - (x @ y) / (y @ y) * y


def sam_eps(g, w):
    return RHO * unit(g)


def asam_eps(g, w):
    t = np.where(np.arange(5) < 2, np.abs(w) + 0.01, 1.0)  # leaf "a" is a matrix here
    return RHO * t**2 * g / length(t * g)


def layer_eps(g, w):
    t = np.repeat([length(w[:2]), length(w[2:])], [2, 3])
    return RHO * t**2 * g / length(t * g)


def on_eps(g, w):
    return RHO * unit(np.where(np.arange(5) < 2, 0.0, g))


def leaves_eps(g, w):
    return RHO * np.concatenate([unit(g[:2]), unit(g[2:])])


def loss_eps(g, w, sigma=0.2):
    return min(sigma / length(g), RHO) * unit(g)


def fisher_eps(g, w, eta=0.3):
    f = 1 / (1 + eta * g**2)
    return RHO * f * g / (f * g @ g) ** 0.5


def sam(problems, w, lam=0.0, eps=sam_eps, combine=lambda g, p: p, pure=True):
    path = []
    for problem in problems:
        ascent = grad(problem, w, lam)
        p = grad(problem, w + eps(ascent, w))
        g = grad(problem, w) if pure else ascent
        w = w - RATE * combine(g, p)
        path.append(w)
    return path


def friendly(problems, w, sigma=0.6, decay=0.8):
    path, mean = [], None
    for problem in problems:
        g = grad(problem, w)
        direction = g if mean is None else g - sigma * mean
        mean = g if mean is None else decay * mean + (1 - decay) * g
        w = w - RATE * grad(problem, w + RHO * unit(direction))
        path.append(w)
    return path


def vasso(problems, w, theta=0.3):
    path, d = [], 0.0
    for problem in problems:
        d = (1 - theta) * d + theta * grad(problem, w)
        w = w - RATE * grad(problem, w + RHO * unit(d))
        path.append(w)
    return path


def some_steps(problems, w, takes, lam=0.0):
    path = []
    for t, problem in enumerate(problems):
        eps = RHO * unit(grad(problem, w, lam)) if takes(t) else 0.0
        w = w - RATE * grad(problem, w + eps)
        path.append(w)
    return path


def looksam(problems, w, lam=0.0, alpha=0.5, period=2):
    path, v = [], None
    for t, problem in enumerate(problems):
        g = grad(problem, w)
        if t % period == 0:
            ascent = grad(problem, w, lam)
            p = grad(problem, w + RHO * unit(ascent))
            v = orthogonal(p, ascent)
            w = w - RATE * p
        else:
            w = w - RATE * (g + alpha * length(g) * unit(v))
        path.append(w)
    return path


def ae_sam(problems, w, lam=0.0, threshold=lambda t: 1.0, decay=0.7):
    path, mean, variance = [], 0.0, 0.0
    for t, problem in enumerate(problems):
        g = grad(problem, w)
        n = g @ g
        mean = decay * mean + (1 - decay) * n
        variance = decay * variance + (1 - decay) * (n - mean) ** 2
        if n >= mean + threshold(t) * variance**0.5:
            g = grad(problem, w + RHO * unit(grad(problem, w, lam)))
        w = w - RATE * g
        path.append(w)
    return path


def momentum_sam(problems, w, decay=0.8):
    path, v = [], np.zeros(5)
    for problem in problems:
        g = grad(problem, w - (RHO * unit(v) if v.any() else 0.0))
        v = decay * v + g
        w = w - RATE * g
        path.append(w)
    return path


def last_gradient(problems, w):
    """One pass along the gradient of DISAM's objective at the last perturbed point."""
    path, d = [], np.zeros(5)
    for problem in problems:
        perturbed = w + (RHO * unit(d) if d.any() else 0.0)
        d = grad(problem, perturbed, LAM)
        w = w - RATE * grad(problem, perturbed)
        path.append(w)
    return path


def multi_step(problems, w, lam=0.0, steps=3):
    path = []
    for problem in problems:
        eps = 0.0
        for _ in range(steps):
            eps = eps + RHO / steps * unit(grad(problem, w + eps, lam))
        w = w - RATE * grad(problem, w + eps)
        path.append(w)
    return path


def bilateral_gradient(w, ascent, descent, lam=0.0, low=0.15):
    """At w, along the ascent problem's gradient, of the descent problem."""
    direction, g = unit(grad(ascent, w, lam)), grad(descent, w)
    above = grad(descent, w + RHO * direction)
    below = grad(descent, w - low * direction)
    return above + g - length(above) * unit(below)


def bilateral(problems, w, lam=0.0):
    path = []
    for problem in problems:
        w = w - RATE * bilateral_gradient(w, problem, problem, lam)
        path.append(w)
    return path


def gam(problems, w, lam=0.0, inner=0.05, gamma=0.3, b0=0.4, b1=0.7):
    path = []
    for problem in problems:
        first = inner * unit(grad(problem, w, lam))
        steeper = grad(problem, w + first, lam) - grad(problem, w, lam)
        second = RHO * unit(steeper)
        third = second + inner * unit(grad(problem, w + second, lam))
        a = b1 * grad(problem, w + first) + (1 - b1) * grad(problem, w + third)
        m = grad(problem, w) + (1 - b0) * grad(problem, w + second)
        w = w - RATE * (a - gamma * orthogonal(m, a))
        path.append(w)
    return path


def cr_sam(problems, w, lam=0.0, alpha=0.3, beta=0.2):
    path = []
    for problem in problems:
        up = RHO * unit(grad(problem, w, lam))
        g, p, m = grad(problem, w), grad(problem, w + up), grad(problem, w - up)
        w = w - RATE * (p + alpha * (p + m - 2 * g) + beta * (p - m))
        path.append(w)
    return path


def bsam(problems, w, lam=0.0, b1=0.8, b2=0.7, damping=0.2, delta=0.05):
    """Of so many examples that no noise is left."""
    path, mean, s = [], 0.0, 2.0
    for problem in problems:
        g = grad(problem, w, lam)
        p = grad(problem, w + RHO * g / s)
        mean = b1 * mean + (1 - b1) * (p + delta * w)
        w = w - RATE * mean / s
        s = b2 * s + (1 - b2) * ((s * g**2) ** 0.5 + damping + delta)
        path.append(w)
    return path


def async_sam(problems, w, lam=0.0):
    path, d = [], None
    for problem in problems:
        eps = 0.0 if d is None else RHO * unit(d)
        d = grad(problem, w, lam)
        w = w - RATE * grad(problem, w + eps)
        path.append(w)
    return path


def sampa(problems, w, lam=0.0, rate=0.2, alpha=0.3):
    path, d = [], np.zeros(5)
    for problem in problems:
        y, eps = w - rate * d, RHO * unit(d) if d.any() else 0.0
        w = w - RATE * ((1 - alpha) * grad(problem, w + eps) + alpha * grad(problem, y))
        d = grad(problem, y, lam)
        path.append(w)
    return path
