"""Every public method beside its reference, on a stream of quadratic problems."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import disam_jax as dj
from tests import reference

RHO, ALPHA, LAM = 0.2, 0.3, 0.4
WEIGHTS = np.array([0.5, 0.3, 0.2])


@dataclasses.dataclass(frozen=True)
class Method:
    """A constructor of the package and what the reference needs to do the same.

    Attributes:
      make: (**changed hyperparameters) -> transformation.
      hyperparameters: the constructor's, by name.
      kind: the reference's name of the perturbation and combination.
      reference: further arguments of `reference.gradient`.
    """

    make: Callable[..., Any]
    hyperparameters: dict[str, float]
    kind: str
    reference: dict[str, Any] = dataclasses.field(default_factory=dict)

    def tx(self, **changes):
        return self.make(**{**self.hyperparameters, **changes})

    def gradient(self, problem, w, weights=WEIGHTS, **changes):
        arguments = {**self.hyperparameters, **self.reference, **changes}
        return reference.gradient(problem, w, weights, self.kind, **arguments)[0]


def _with_ascent(factory, combine_with, variance="uniform"):
    def make(rho, alpha, lam):
        return factory(
            rho,
            alpha,
            ascent=dj.variance_penalized(lam, variance),
            combine_with=combine_with,
        )

    return make


def _sharpness_aware(rho, alpha, lam):
    return dj.sharpness_aware(
        dj.ascend_and_match(rho, alpha),
        ascent=dj.variance_penalized(lam),
        combine=dj.average,
    )


def _asam(rho):
    return dj.sam(rho, adaptive=True)


def _adaptive_disam(rho, lam):
    return dj.disam(rho, lam, adaptive=True)


def _count_weighted(rho, lam):
    return dj.disam(rho, lam, variance="count_weighted")


_SAM = {"rho": RHO}
_ALPHA = {"rho": RHO, "alpha": ALPHA}
_DISAM = {"rho": RHO, "lam": LAM}
_ALL = {"rho": RHO, "alpha": ALPHA, "lam": LAM}
_COUNT = {"variance": "count_weighted"}

METHODS = {
    "erm": Method(dj.erm, {}, "erm"),
    "sam": Method(dj.sam, _SAM, "sam"),
    "asam": Method(_asam, _SAM, "asam"),
    "gsam": Method(dj.gsam, _ALPHA, "gsam"),
    "sagm": Method(dj.sagm, _ALPHA, "sagm"),
    "disam": Method(dj.disam, _DISAM, "sam"),
    "disam-adaptive": Method(_adaptive_disam, _DISAM, "asam"),
    "disam-count-weighted": Method(_count_weighted, _DISAM, "sam", _COUNT),
    "disam+gsam": Method(_with_ascent(dj.gsam, "ascent"), _ALL, "gsam"),
    "disam+gsam-pure": Method(
        _with_ascent(dj.gsam, "descent"), _ALL, "gsam", {"pure": True}
    ),
    "disam+sagm": Method(_with_ascent(dj.sagm, "ascent"), _ALL, "sagm"),
    "disam+sagm-pure": Method(
        _with_ascent(dj.sagm, "descent"), _ALL, "sagm", {"pure": True}
    ),
    "disam+sagm-count-weighted": Method(
        _with_ascent(dj.sagm, "ascent", "count_weighted"), _ALL, "sagm", _COUNT
    ),
    "sharpness_aware": Method(_sharpness_aware, _ALL, "sagm"),
}


def stream(steps=6, size=5):
    """A problem per step, so that no two gradients are alike."""
    return [reference.Quadratics.random(seed, size=size) for seed in range(steps)]


def start(size=5):
    return np.random.default_rng(100).normal(size=size)


def to_tree(w, dtype=None):
    """A flat vector -> a tree of two leaves."""
    return {"a": jnp.asarray(w[:2], dtype), "b": {"c": jnp.asarray(w[2:], dtype)}}


def to_flat(tree):
    return jnp.concatenate([tree["a"], tree["b"]["c"]])


def loss_fn(problem):
    """The problem's losses [M] as a function of the tree."""
    return lambda tree: jnp.stack(problem.losses(to_flat(tree)))
