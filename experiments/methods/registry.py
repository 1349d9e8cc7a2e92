"""The methods an experiment can train with, and those that others bring.

A method of one's own is a `Method` too, or a function that returns a transformation: give
its place, `package.module:NAME`, wherever a name is asked for, or announce it under the
entry point group `disam_jax.methods`.
"""

import dataclasses
import functools
import importlib
import inspect
from importlib.metadata import entry_points
from typing import Any

import optax

import disam_jax as dj
from experiments.fields import check_known
from experiments.methods.examples import climb_fewer, only_hardest
from experiments.methods.method import NAMES, Hyperparameters, Method

ENTRY_POINTS = "disam_jax.methods"
BACKWARD = 2 / 3  # of a gradient: a second way back through one forward pass

Transformation = optax.GradientTransformationExtraArgs


def adaptive_sam(rho: float = 0.5) -> Transformation:
    """Kwon et al., ICML 2021: a radius relative to each weight."""
    return dj.sam(rho, adaptive=True)


def late_sam(
    rho: float = 0.05, start: float = 200, run_steps: int | None = None
) -> Transformation:
    """SAM from a step on; 1 gradient before it."""
    # Of a step that never comes the command line has told by then.
    return dj.late_sam(rho, start, steps=run_steps if 0 < start < 1 else None)


def multi_step_sam(rho: float = 0.05, ascent_steps: int = 2) -> Transformation:
    """Several ascent steps of rho in all."""
    return dj.multi_step_sam(rho, ascent_steps)


def bilateral_sam(rho: float = 0.05) -> Transformation:
    """Deng et al., 2024: looks down too, as far as up (rho_min = rho)."""
    return dj.bilateral_sam(rho, rho_min=rho)


def gam(rho: float = 0.2, gamma: float = 0.03) -> Transformation:
    """Zhang et al., CVPR 2023: first-order flatness (inner_rho = 0.1 * rho)."""
    return dj.gam(rho, inner_rho=0.1 * rho, gamma=gamma)


def le_sam(rho: float = 0.1, sigma: float = 0.05) -> Transformation:
    """LE-SAM, ICML 2026: climbs until the loss has risen by sigma, at most rho far."""
    return dj.le_sam(sigma, rho_max=rho)


def one_pass(rho: float = 0.05, ascent: Any = None) -> Transformation:
    """SAM's ascent gradient of the step before."""
    return dj.one_pass(dj.ascend(rho), ascent=ascent)


def one_pass_by_domain(rho: float = 0.05, ascent: Any = None) -> Transformation:
    """SAM's ascent gradient of the step before, from the domains' own passes."""
    return dj.one_pass_by_domain(dj.ascend(rho), ascent=ascent)


def group_dro(dro_eta: float = 0.01) -> Transformation:
    """Sagawa et al., ICLR 2020: the domains that were hard weigh more."""
    return dj.erm(descent=dj.group_dro(dro_eta))


def group_dro_ascent(rho: float = 0.05, dro_eta: float = 0.01) -> Transformation:
    """SAM that climbs GroupDRO's objective, the running counterpart of DISAM."""
    return dj.sam(rho, ascent=dj.group_dro(dro_eta))


def and_mask(agreement: float = 1.0) -> Transformation:
    """Parascandolo et al., ICLR 2021: where the domains' signs agree."""
    return dj.erm(descent=dj.and_mask(agreement))


def sand_mask(agreement: float = 0.5) -> Transformation:
    """Shahtalebi et al., 2021: AND-mask with a soft edge."""
    return dj.erm(descent=dj.sand_mask(agreement))


def agreement_sum() -> Transformation:
    """Mansilla et al., ICCV 2021: the sum where all signs agree."""
    return dj.erm(descent=dj.agreement_sum())


def pcgrad() -> Transformation:
    """Yu et al., NeurIPS 2020: without what conflicts, summed."""
    return dj.erm(descent=dj.pcgrad())


def gga_l(gamma: float = 1e-3) -> Transformation:
    """Ballas and Diou, CVPR 2025: noise, the more the less domains are aligned."""
    return dj.erm(descent=dj.alignment_noise(gamma))


def and_disam(
    rho: float = 0.05, agreement: float = 1.0, ascent: Any = None
) -> Transformation:
    """AND-mask of the domains' gradients at the point that DISAM climbs to."""
    return dj.sam(rho, ascent=ascent, descent=dj.and_mask(agreement))


def fish(walk_rate: float = 0.01) -> Transformation:
    """Shi et al., ICLR 2022: down the domains, one after another."""
    return dj.fish(walk_rate)


def pgrad(walk_rate: float = 0.01) -> Transformation:
    """Wang et al., ICLR 2023: the principal directions of that walk."""
    return dj.pgrad(walk_rate)


def polyak_sam(
    rho: float = 0.05,
    learning_rate: Any = 1.0,
    weight_decay: float = 0.0,
    ascent: Any = None,
) -> Transformation:
    """SAM with Polyak's step, ICML 2026; own_rate is the most that the step may be."""
    decay = optax.add_decayed_weights(weight_decay)
    return dj.polyak_step(optax.chain(dj.sam(rho, ascent=ascent), decay), learning_rate)


def nothing(learning_rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """After what is a whole step by itself."""
    return optax.identity()


def bsam(
    rho: float = 0.05, num_examples: float = 1e4, weight_decay: float = 0.0
) -> Transformation:
    """Moellenhoff and Khan, ICLR 2023: a Gaussian of weights, its precision scales eps."""
    return dj.bsam(num_examples, rho, weight_decay=weight_decay)


def plain_sgd(learning_rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """After what has its own momentum and weight decay."""
    return optax.sgd(learning_rate)


def sassha(rho: float = 0.1, period: int = 10) -> Transformation:
    """Shin et al., ICML 2025: a step by the curvature at w + eps."""
    return dj.sassha(rho, period)


def decayed_sgd(learning_rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """After what has its own momentum; the decay is decoupled."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate))


def tilted_sam(rho: float = 0.05, tilt: float = 1.0) -> Transformation:
    """Li et al., ICML 2025: three points around w, the worse the heavier."""
    return dj.tilted_sam(rho, tilt)


def sampa(rho: float = 0.1, alpha: float = 0.2, learning_rate: Any = 0.1) -> Transformation:
    """Xie et al., NeurIPS 2024: climbs where SGD would have gone; two passes abreast."""
    return dj.sampa(learning_rate, rho, alpha)


def genie(learning_rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """GENIE, with its authors' coupled weight decay."""
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(decay, dj.genie(learning_rate))


def once_in_a_period(h: Hyperparameters, num_domains: int) -> float:
    """A second gradient at every period-th step."""
    return 1 + 1 / h.period


def of_a_fraction(h: Hyperparameters, num_domains: int) -> float:
    """A second gradient on a fraction of the batch."""
    return 1 + h.fraction


def of_the_hardest(h: Hyperparameters, num_domains: int) -> float:
    """A forward pass, and two gradients on a fraction of the batch."""
    return 1 / 3 + 2 * h.fraction


def on_disam(method: Method, name: str, description: str) -> Method:
    """The method on DISAM's ascent objective."""
    return dataclasses.replace(method, name=name, description=description, disam=True)


# An override is a default that is not the library's. No DG paper states GSAM's alpha; 0.2
# lies between its two ImageNet values. Momentum SAM's radius is about ten times SAM's.
SAGM = Method(dj.sagm, "Wang et al., CVPR 2023")
GSAM = Method(dj.gsam, "Zhuang et al., ICLR 2022", overrides={"alpha": 0.2})
INTERVAL = Method(dj.interval_sam, "SAM at every period-th step", cost=once_in_a_period)
LOOKSAM = Method(
    dj.looksam,
    "Liu et al., CVPR 2022: SAM's turn is used again between",
    cost=once_in_a_period,
)
PART = Method(
    dj.sam,
    "SAM whose ascent is on a fraction of the examples",
    name="part_sam",
    cost=of_a_fraction,
    examples=climb_fewer,
)
KSAM = Method(
    dj.sam,
    "Ni et al., 2022: both gradients on the hardest examples of every domain",
    name="ksam",
    cost=of_the_hardest,
    examples=only_hardest,
)
_LIST = (
    Method(dj.erm, "the weighted mean loss, no perturbation", cost=1),
    Method(dj.sam, "Foret et al., ICLR 2021"),
    Method(dj.asam, "Kwon et al., ICML 2021, as released: |w| + 0.01, biases unscaled"),
    GSAM,
    SAGM,
    Method(dj.disam, "Zhang et al., ICLR 2024"),
    on_disam(SAGM, "disam+sagm", "SAGM on DISAM's ascent objective, the papers' listing"),
    on_disam(GSAM, "disam+gsam", "GSAM on DISAM's ascent objective, the papers' listing"),
    # Less than two gradients per step.
    INTERVAL,
    LOOKSAM,
    Method(late_sam, cost=1.5),
    Method(
        dj.rst,
        "Zhao et al., 2022 (RST): SAM with a probability",
        cost=lambda h, num_domains: 1 + h.probability,
    ),
    Method(
        dj.ae_sam,
        "Jiang et al., ICLR 2023: SAM where the gradient is large; cost by the data",
        cost=1.5,
    ),
    PART,
    KSAM,
    Method(
        dj.momentum_sam,
        "Becker et al., 2024: ahead along the momentum",
        overrides={"rho": 0.5},
        cost=1,
    ),
    Method(dj.noise_sam, "a random direction, the control", cost=1),
    Method(
        dj.dgsam,
        "Song et al., 2025: from domain to domain; 1 + 1 / domains gradients",
        cost=lambda h, num_domains: 1 + 1 / num_domains,
        micro_batches=True,
    ),
    Method(dj.async_sam, "2025: SAM's eps of the step before; two passes side by side"),
    Method(sampa),
    # Another eps, another use of the gradients, more points.
    Method(adaptive_sam),
    Method(dj.layerwise_sam, "a radius relative to each layer's norm"),
    Method(
        dj.linf_sam,
        "Foret et al., ICLR 2021, p = inf: the gradient's sign",
        overrides={"rho": 1e-4},
    ),
    Method(
        dj.sam_on,
        "Mueller et al., NeurIPS 2023: normalization layers alone",
        overrides={"rho": 0.05},
    ),
    Method(
        dj.unnormalized_sam,
        "Andriushchenko and Flammarion, ICML 2022: eps = rho * gradient",
    ),
    Method(dj.nuclear_sam, "Pethick et al., TMLR 2025: every matrix in the nuclear ball"),
    Method(dj.spectral_sam, "the same in the spectral ball, Muon's geometry"),
    Method(le_sam),
    Method(dj.fisher_sam, "Kim et al., ICML 2022: inversely to the squared gradient"),
    Method(dj.zsharp, "Yun, 2025: along the outliers of each matrix's gradient"),
    Method(dj.friendly_sam, "Li et al., CVPR 2024: climbs the batch's noise"),
    Method(dj.vasso, "Li and Giannakis, NeurIPS 2023: climbs a mean over steps"),
    Method(
        dj.gradient_norm_penalty,
        "Zhao et al., ICML 2022: a mean of both gradients",
        overrides={"rho": 0.05},
    ),
    Method(dj.wsam, "Yue et al., KDD 2023: extrapolates, coupled"),
    Method(dj.stable_sam, "Tan et al., JMLR 2025: with the plain gradient's length"),
    Method(multi_step_sam, cost=lambda h, num_domains: 1 + h.ascent_steps),
    Method(bilateral_sam, cost=3),
    Method(dj.cr_sam, "Wu et al., AAAI 2024: less curvature along the ascent", cost=3),
    Method(gam, cost=4),
    Method(tilted_sam, cost=6),
    # Rules from the domains' gradients, and what remembers their losses.
    Method(group_dro, cost=1),
    Method(group_dro_ascent, name="sam+group_dro"),
    *(
        Method(rule, cost=1, micro_batches=True)
        for rule in (and_mask, sand_mask, agreement_sum, pcgrad, gga_l, fish, pgrad)
    ),
    Method(
        and_disam,
        name="disam+and_mask",
        cost=lambda h, num_domains: 4 / 3 + BACKWARD * num_domains,
        disam=True,
    ),
    # What brings its optimizer.
    Method(
        dj.erm, "ICML 2025: trusts sure gradients", name="genie", cost=1, optimizer=genie
    ),
    Method(
        dj.sam,
        "GENIE on DISAM's gradients",
        name="disam+genie",
        disam=True,
        optimizer=genie,
    ),
    Method(bsam, overrides={"own_rate": 0.5}, optimizer=plain_sgd),
    Method(
        sassha,
        overrides={"own_rate": 0.15},
        cost=lambda h, num_domains: 2 + 1 / h.period,
        optimizer=decayed_sgd,
    ),
    Method(polyak_sam, overrides={"own_rate": 1.0}, optimizer=nothing),
    # DISAM's objective in the cheap ones.
    on_disam(INTERVAL, "disam+interval", "DISAM at every period-th step"),
    on_disam(LOOKSAM, "disam+looksam", "LookSAM on DISAM's ascent objective"),
    on_disam(PART, "disam+part", "DISAM whose ascent is on a fraction of the examples"),
    on_disam(KSAM, "disam+ksam", "DISAM on the hardest examples of every domain"),
    Method(
        one_pass_by_domain,
        "DISAM's ascent gradient of the step before, from the domains' own passes",
        name="disam+one_pass",
        cost=1,
        disam=True,
        micro_batches=True,
    ),
    Method(
        one_pass,
        "the same from the whole batch, for one more backward pass",
        name="disam+stale",
        cost=1 + BACKWARD,
        disam=True,
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
        method = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"method '{name}' cannot be loaded: {error}") from None
    if inspect.isfunction(method):
        # It may look at its numbers, with `if`: then they are constants of its program.
        method = Method(method, name=attribute, cost=None, static=NAMES)
    if not isinstance(method, Method):
        raise ValueError(
            f"method '{name}' must be an experiments.methods.Method, or a function of "
            "hyperparameters that returns a transformation; "
            f"{place} is a {type(method).__name__}."
        )
    if method.name in METHODS:
        raise ValueError(
            f"method '{name}' calls itself '{method.name}', as one of this package does; "
            "give it another name."
        )
    return method


def known_methods() -> dict[str, Method]:
    """All methods by name, those announced by other packages included."""
    announced = sorted(point.name for point in entry_points(group=ENTRY_POINTS))
    return METHODS | {name: find_method(name) for name in announced}
