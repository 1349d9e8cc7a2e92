"""The methods an experiment can train with, each one value made of disam_jax's parts."""

import dataclasses
from collections.abc import Callable

import optax

import disam_jax as dj


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The papers' symbols; a method reads those it has.

    Attributes:
      rho: the radius of the perturbation.
      alpha: SAGM's step back, GSAM's weight of the orthogonal part.
      lam: DISAM's weight of the variance of the domain losses.
    """

    rho: float
    alpha: float
    lam: float


@dataclasses.dataclass(frozen=True)
class Method:
    """A method by name.

    Attributes:
      name: what the command line and the tables call it.
      make: hyperparameters -> transformation.
      defaults: the hyperparameters it runs with unless told otherwise.
      reads: the hyperparameters that change it.
      description: one line, for `python -m experiments methods`.
    """

    name: str
    make: Callable[[Hyperparameters], optax.GradientTransformationExtraArgs]
    defaults: Hyperparameters
    reads: tuple[str, ...]
    description: str


# rho and lam are the DISAM paper's defaults, alpha of SAGM is its authors' on PACS. No DG
# paper states GSAM's alpha; 0.2 lies between its two ImageNet values. ASAM's radius counts
# in units of the weights' size, about ten times SAM's.
PAPER = Hyperparameters(rho=0.05, alpha=1e-3, lam=0.1)
GSAM = dataclasses.replace(PAPER, alpha=0.2)
ASAM = dataclasses.replace(PAPER, rho=0.5)

METHODS = {
    method.name: method
    for method in (
        Method(
            "erm", lambda h: dj.erm(), PAPER, (), "the weighted mean loss, no perturbation"
        ),
        Method("sam", lambda h: dj.sam(h.rho), PAPER, ("rho",), "Foret et al., ICLR 2021"),
        Method(
            "asam",
            lambda h: dj.sam(h.rho, adaptive=True),
            ASAM,
            ("rho",),
            "Kwon et al., ICML 2021: a radius relative to each weight",
        ),
        Method(
            "gsam",
            lambda h: dj.gsam(h.rho, h.alpha),
            GSAM,
            ("rho", "alpha"),
            "Zhuang et al., ICLR 2022",
        ),
        Method(
            "sagm",
            lambda h: dj.sagm(h.rho, h.alpha),
            PAPER,
            ("rho", "alpha"),
            "Wang et al., CVPR 2023",
        ),
        Method(
            "disam",
            lambda h: dj.disam(h.rho, h.lam),
            PAPER,
            ("rho", "lam"),
            "Zhang et al., ICLR 2024",
        ),
        Method(
            "disam+sagm",
            lambda h: dj.sagm(h.rho, h.alpha, ascent=dj.variance_penalized(h.lam)),
            PAPER,
            ("rho", "alpha", "lam"),
            "SAGM on DISAM's ascent objective, the papers' listing",
        ),
        Method(
            "disam+gsam",
            lambda h: dj.gsam(h.rho, h.alpha, ascent=dj.variance_penalized(h.lam)),
            GSAM,
            ("rho", "alpha", "lam"),
            "GSAM on DISAM's ascent objective, the papers' listing",
        ),
    )
}


def find_method(name: str) -> Method:
    """Returns the method of that name; a ValueError lists the known ones."""
    if name not in METHODS:
        raise ValueError(f"unknown method '{name}'; there are: {', '.join(METHODS)}")
    return METHODS[name]
