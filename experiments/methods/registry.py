"""The methods an experiment can train with, each one value made of disam_jax's parts.

A method of one's own is a `Method` too, or a function without arguments that returns a
transformation: give its place, `package.module:NAME`, wherever a name is asked for, or
announce it under the entry point group `disam_jax.methods`.
"""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import optax

import disam_jax as dj
from disam_jax.testing import count_evaluations
from experiments.fields import check_known, option
from experiments.methods.examples import Examples, all_examples, climb_fewer, only_hardest

ENTRY_POINTS = "disam_jax.methods"


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The papers' symbols; a method reads those it has.

    rho and lam default to the DISAM paper's, alpha to SAGM's on PACS.
    """

    rho: float = option(0.05, "radius of the perturbation")
    alpha: float = option(1e-3, "SAGM's step back; GSAM's, LookSAM's, GNP's weight")
    lam: float = option(0.1, "DISAM's weight of the variance of the domain losses")
    variance: str = option("uniform", "DISAM's variance, uniform or count_weighted")
    period: int = option(5, "steps from one ascent to the next")
    fraction: float = option(0.25, "of the examples, for the ascent or as the hardest")
    start: int = option(200, "first step of a late ascent")
    probability: float = option(0.5, "that a step ascends")
    threshold: float = option(0.0, "AE-SAM's, in standard deviations")
    ascent_steps: int = option(2, "steps of an ascent")
    gamma: float = option(0.9, "WSAM's weight of the sharpness; GAM's")
    theta: float = option(0.9, "VaSSO's weight of the new gradient")
    sigma: float = option(1.0, "how much of the mean gradient F-SAM takes away")
    decay: float = option(0.9, "of a mean or a momentum over steps")


@dataclasses.dataclass(frozen=True)
class Method:
    """A method by name.

    Attributes:
      name: what the command line and the tables call it.
      make: hyperparameters -> transformation.
      defaults: the hyperparameters it runs with unless told otherwise.
      reads: the hyperparameters that change it.
      description: one line, for `python -m experiments methods`.
      gradients: (hyperparameters, source domains) -> gradients of the whole batch per
        step, on average.
      examples: hyperparameters -> which examples it looks at; None is the whole batch.
      micro_batches: whether it is given the domains as micro-batches.
    """

    name: str
    make: Callable[[Hyperparameters], optax.GradientTransformationExtraArgs]
    defaults: Hyperparameters
    reads: tuple[str, ...]
    description: str
    gradients: Callable[[Hyperparameters, int], float] = lambda h, domains: 2.0
    examples: Callable[[Hyperparameters], Examples] | None = None
    micro_batches: bool = False

    def chooser(self, h: Hyperparameters) -> Examples:
        """What chooses the examples of a step."""
        return all_examples if self.examples is None else self.examples(h)


# No DG paper states GSAM's alpha; 0.2 lies between its two ImageNet values. ASAM's radius
# counts in units of the weights' size, about ten times SAM's, momentum SAM's as much.
PAPER = Hyperparameters()


def _with(**changes: Any) -> Hyperparameters:
    return dataclasses.replace(PAPER, **changes)


GSAM = _with(alpha=0.2)
LOOK = _with(alpha=0.7)
TEN_TIMES = _with(rho=0.5)
BACKWARD = 2 / 3  # of a gradient: a second way back through one forward pass


def climbed(h: Hyperparameters):
    """DISAM's ascent objective."""
    return dj.variance_penalized(h.lam, variance=h.variance)


def _once_in(h: Hyperparameters, domains: int) -> float:
    return 1 + 1 / h.period


def _fewer(h: Hyperparameters) -> Examples:
    return climb_fewer(h.fraction)


def _hardest(h: Hyperparameters) -> Examples:
    return only_hardest(h.fraction)


DISAM = ("lam", "variance")
_LIST = (
    Method(
        "erm",
        lambda h: dj.erm(),
        PAPER,
        (),
        "the weighted mean loss, no perturbation",
        lambda h, domains: 1.0,
    ),
    Method("sam", lambda h: dj.sam(h.rho), PAPER, ("rho",), "Foret et al., ICLR 2021"),
    Method(
        "asam",
        lambda h: dj.sam(h.rho, adaptive=True),
        TEN_TIMES,
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
        ("rho", *DISAM),
        "Zhang et al., ICLR 2024",
    ),
    Method(
        "disam+sagm",
        lambda h: dj.sagm(h.rho, h.alpha, ascent=climbed(h)),
        PAPER,
        ("rho", "alpha", *DISAM),
        "SAGM on DISAM's ascent objective, the papers' listing",
    ),
    Method(
        "disam+gsam",
        lambda h: dj.gsam(h.rho, h.alpha, ascent=climbed(h)),
        GSAM,
        ("rho", "alpha", *DISAM),
        "GSAM on DISAM's ascent objective, the papers' listing",
    ),
    # Less than two gradients per step.
    Method(
        "interval_sam",
        lambda h: dj.interval_sam(h.rho, h.period),
        PAPER,
        ("rho", "period"),
        "SAM at every period-th step",
        _once_in,
    ),
    Method(
        "looksam",
        lambda h: dj.looksam(h.rho, h.alpha, h.period),
        LOOK,
        ("rho", "alpha", "period"),
        "Liu et al., CVPR 2022: SAM's turn is used again between",
        _once_in,
    ),
    Method(
        "late_sam",
        lambda h: dj.late_sam(h.rho, h.start),
        PAPER,
        ("rho", "start"),
        "SAM from a step on; 1 gradient before it",
        lambda h, domains: 1.5,
    ),
    Method(
        "randomized_sam",
        lambda h: dj.randomized_sam(h.rho, h.probability),
        PAPER,
        ("rho", "probability"),
        "Zhao et al., 2022 (RST): SAM with a probability",
        lambda h, domains: 1 + h.probability,
    ),
    Method(
        "ae_sam",
        lambda h: dj.ae_sam(h.rho, h.threshold, decay=h.decay),
        PAPER,
        ("rho", "threshold", "decay"),
        "Jiang et al., ICLR 2023: SAM where the gradient is large; cost by the data",
        lambda h, domains: 1.5,
    ),
    Method(
        "part_sam",
        lambda h: dj.sam(h.rho),
        PAPER,
        ("rho", "fraction"),
        "SAM whose ascent is on a fraction of the examples",
        lambda h, domains: 1 + h.fraction,
        _fewer,
    ),
    Method(
        "ksam",
        lambda h: dj.sam(h.rho),
        PAPER,
        ("rho", "fraction"),
        "Ni et al., 2022: both gradients on the hardest examples of every domain",
        lambda h, domains: 1 / 3 + 2 * h.fraction,
        _hardest,
    ),
    Method(
        "momentum_sam",
        lambda h: dj.momentum_sam(h.rho, h.decay),
        TEN_TIMES,
        ("rho", "decay"),
        "Becker et al., 2024: ahead along the momentum",
        lambda h, domains: 1.0,
    ),
    Method(
        "random_sam",
        lambda h: dj.random_sam(h.rho),
        PAPER,
        ("rho",),
        "a random direction, the control",
        lambda h, domains: 1.0,
    ),
    Method(
        "dgsam",
        lambda h: dj.dgsam(h.rho),
        PAPER,
        ("rho",),
        "Song et al., 2025: from domain to domain; 1 + 1 / domains gradients",
        lambda h, domains: 1 + 1 / domains,
        micro_batches=True,
    ),
    # Another eps, another use of the gradients, more points.
    Method(
        "asam_eta",
        lambda h: dj.asam(h.rho),
        TEN_TIMES,
        ("rho",),
        "Kwon et al., ICML 2021, as released: |w| + 0.01, biases unscaled",
    ),
    Method(
        "layerwise_sam",
        lambda h: dj.layerwise_sam(h.rho),
        PAPER,
        ("rho",),
        "a radius relative to each layer's norm",
    ),
    Method(
        "linf_sam",
        lambda h: dj.linf_sam(h.rho),
        _with(rho=1e-4),
        ("rho",),
        "Foret et al., ICLR 2021, p = inf: the gradient's sign",
    ),
    Method(
        "sam_on",
        lambda h: dj.sam_on(h.rho),
        PAPER,
        ("rho",),
        "Mueller et al., NeurIPS 2023: normalization layers alone",
    ),
    Method(
        "unnormalized_sam",
        lambda h: dj.unnormalized_sam(h.rho),
        PAPER,
        ("rho",),
        "Andriushchenko and Flammarion, ICML 2022: eps = rho * gradient",
    ),
    Method(
        "friendly_sam",
        lambda h: dj.friendly_sam(h.rho, h.sigma, h.decay),
        PAPER,
        ("rho", "sigma", "decay"),
        "Li et al., CVPR 2024: climbs the batch's noise",
    ),
    Method(
        "vasso",
        lambda h: dj.vasso(h.rho, h.theta),
        PAPER,
        ("rho", "theta"),
        "Li and Giannakis, NeurIPS 2023: climbs a mean over steps",
    ),
    Method(
        "gradient_norm_penalty",
        lambda h: dj.gradient_norm_penalty(h.rho, h.alpha),
        _with(alpha=0.8),
        ("rho", "alpha"),
        "Zhao et al., ICML 2022: a mean of both gradients",
    ),
    Method(
        "wsam",
        lambda h: dj.wsam(h.rho, h.gamma),
        PAPER,
        ("rho", "gamma"),
        "Yue et al., KDD 2023: extrapolates, coupled",
    ),
    Method(
        "stable_sam",
        lambda h: dj.stable_sam(h.rho),
        PAPER,
        ("rho",),
        "Tan et al., JMLR 2025: with the plain gradient's length",
    ),
    Method(
        "multi_step_sam",
        lambda h: dj.multi_step_sam(h.rho, h.ascent_steps),
        PAPER,
        ("rho", "ascent_steps"),
        "several ascent steps of rho in all",
        lambda h, domains: 1.0 + h.ascent_steps,
    ),
    Method(
        "bilateral_sam",
        lambda h: dj.bilateral_sam(h.rho, h.rho),
        PAPER,
        ("rho",),
        "Deng et al., 2024: looks down too",
        lambda h, domains: 3.0,
    ),
    Method(
        "gam",
        lambda h: dj.gam(h.rho, 0.1 * h.rho, gamma=h.gamma),
        _with(rho=0.2, gamma=0.03),
        ("rho", "gamma"),
        "Zhang et al., CVPR 2023: first-order flatness",
        lambda h, domains: 4.0,
    ),
    # DISAM's objective in the cheap ones.
    Method(
        "disam+interval",
        lambda h: dj.interval_sam(h.rho, h.period, ascent=climbed(h)),
        PAPER,
        ("rho", "period", *DISAM),
        "DISAM at every period-th step",
        _once_in,
    ),
    Method(
        "disam+looksam",
        lambda h: dj.looksam(h.rho, h.alpha, h.period, ascent=climbed(h)),
        LOOK,
        ("rho", "alpha", "period", *DISAM),
        "LookSAM on DISAM's ascent objective",
        _once_in,
    ),
    Method(
        "disam+part",
        lambda h: dj.disam(h.rho, h.lam, variance=h.variance),
        PAPER,
        ("rho", "fraction", *DISAM),
        "DISAM whose ascent is on a fraction of the examples",
        lambda h, domains: 1 + h.fraction,
        _fewer,
    ),
    Method(
        "disam+ksam",
        lambda h: dj.disam(h.rho, h.lam, variance=h.variance),
        PAPER,
        ("rho", "fraction", *DISAM),
        "DISAM on the hardest examples of every domain",
        lambda h, domains: 1 / 3 + 2 * h.fraction,
        _hardest,
    ),
    Method(
        "disam+one_pass",
        lambda h: dj.one_pass_by_domain(dj.ascend(h.rho), ascent=climbed(h)),
        PAPER,
        ("rho", *DISAM),
        "DISAM's ascent gradient of the step before, from the domains' own passes",
        lambda h, domains: 1.0,
        micro_batches=True,
    ),
    Method(
        "disam+stale",
        lambda h: dj.one_pass(dj.ascend(h.rho), ascent=climbed(h)),
        PAPER,
        ("rho", *DISAM),
        "the same from the whole batch, for one more backward pass",
        lambda h, domains: 1 + BACKWARD,
    ),
)
METHODS = {method.name: method for method in _LIST}


@functools.cache
def find_method(name: str) -> Method:
    """Returns the method of that name, of that place, or announced under it.

    Args:
      name: a key of `METHODS`, `package.module:NAME`, or an entry point's name.

    Returns:
      The method.

    Raises:
      ValueError: there is none, with the reason.
    """
    if name in METHODS:
        return METHODS[name]
    announced = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    place = announced.get(name, name)
    if ":" not in place:
        check_known("method", name, (*METHODS, *announced, "package.module:NAME"))
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"method '{name}' cannot be loaded: {error}") from None
    if inspect.isfunction(found):
        found = of_function(attribute, found)
    if not isinstance(found, Method):
        raise ValueError(
            f"method '{name}' must be an experiments.methods.Method, or a function without "
            f"arguments that returns a transformation; {place} is a {type(found).__name__}."
        )
    if found.name in METHODS:
        raise ValueError(
            f"method '{name}' calls itself '{found.name}', as one of this package does; "
            "give it another name."
        )
    return found


def of_function(
    name: str, make: Callable[[], optax.GradientTransformationExtraArgs]
) -> Method:
    """The method of a function that returns a transformation, its cost counted.

    Args:
      name: of the method.
      make: () -> transformation.

    Returns:
      The method; it reads no hyperparameters.
    """
    gradients = count_evaluations(make(), steps=60)  # whole periods of most lengths
    description = (make.__doc__ or "").strip().partition("\n")[0]
    return Method(
        name, lambda h: make(), PAPER, (), description, lambda h, domains: gradients
    )


def known_methods() -> dict[str, Method]:
    """All methods by name, those announced by other packages included."""
    announced = sorted(point.name for point in entry_points(group=ENTRY_POINTS))
    return METHODS | {name: find_method(name) for name in announced}
