"""The methods an experiment can train with, each one value made of disam_jax's parts."""

import dataclasses
from collections.abc import Callable

import optax

import disam_jax as dj
from experiments.fields import check_known, option


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The papers' symbols; a method reads those it has.

    rho and lam default to the DISAM paper's, alpha to SAGM's on PACS.
    """

    rho: float = option(0.05, "radius of the perturbation")
    alpha: float = option(1e-3, "SAGM's step back, GSAM's weight of the orthogonal part")
    lam: float = option(0.1, "DISAM's weight of the variance of the domain losses")
    variance: str = option("uniform", "DISAM's variance, uniform or count_weighted")


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


# No DG paper states GSAM's alpha; 0.2 lies between its two ImageNet values. ASAM's radius
# counts in units of the weights' size, about ten times SAM's.
PAPER = Hyperparameters()
GSAM = dataclasses.replace(PAPER, alpha=0.2)
ASAM = dataclasses.replace(PAPER, rho=0.5)


def climbed(h: Hyperparameters):
    """DISAM's ascent objective."""
    return dj.variance_penalized(h.lam, variance=h.variance)


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
            lambda h: dj.disam(h.rho, h.lam, variance=h.variance),
            PAPER,
            ("rho", "lam", "variance"),
            "Zhang et al., ICLR 2024",
        ),
        Method(
            "disam+sagm",
            lambda h: dj.sagm(h.rho, h.alpha, ascent=climbed(h)),
            PAPER,
            ("rho", "alpha", "lam", "variance"),
            "SAGM on DISAM's ascent objective, the papers' listing",
        ),
        Method(
            "disam+gsam",
            lambda h: dj.gsam(h.rho, h.alpha, ascent=climbed(h)),
            GSAM,
            ("rho", "alpha", "lam", "variance"),
            "GSAM on DISAM's ascent objective, the papers' listing",
        ),
    )
}


def find_method(name: str) -> Method:
    """Returns the method of that name; a ValueError lists the known ones."""
    check_known("method", name, tuple(METHODS))
    return METHODS[name]
