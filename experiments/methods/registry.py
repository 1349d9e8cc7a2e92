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

import disam_jax as dj
from experiments.fields import check_known
from experiments.methods import functions
from experiments.methods.examples import climb_fewer, only_hardest
from experiments.methods.method import NAMES, Hyperparameters, Method

ENTRY_POINTS = "disam_jax.methods"
BACKWARD = 2 / 3  # of a gradient: a second way back through one forward pass


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
    Method(functions.late_sam, cost=1.5),
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
    Method(functions.sampa),
    # Another eps, another use of the gradients, more points.
    Method(functions.adaptive_sam),
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
    Method(functions.le_sam),
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
    Method(functions.multi_step_sam, cost=lambda h, num_domains: 1 + h.ascent_steps),
    Method(functions.bilateral_sam, cost=3),
    Method(dj.cr_sam, "Wu et al., AAAI 2024: less curvature along the ascent", cost=3),
    Method(functions.gam, cost=4),
    Method(functions.tilted_sam, cost=6),
    # Rules from the domains' gradients, and what remembers their losses.
    Method(functions.group_dro, cost=1),
    Method(functions.group_dro_ascent, name="sam+group_dro"),
    *(
        Method(rule, cost=1, micro_batches=True)
        for rule in (
            functions.and_mask,
            functions.sand_mask,
            functions.agreement_sum,
            functions.pcgrad,
            functions.gga_l,
            functions.fish,
            functions.pgrad,
        )
    ),
    Method(
        functions.and_disam,
        name="disam+and_mask",
        cost=lambda h, num_domains: 4 / 3 + BACKWARD * num_domains,
        disam=True,
    ),
    # What brings its optimizer.
    Method(
        dj.erm,
        "ICML 2025: trusts sure gradients",
        name="genie",
        cost=1,
        optimizer=functions.genie,
    ),
    Method(
        dj.sam,
        "GENIE on DISAM's gradients",
        name="disam+genie",
        disam=True,
        optimizer=functions.genie,
    ),
    Method(functions.bsam, overrides={"own_rate": 0.5}, optimizer=functions.plain_sgd),
    Method(
        functions.sassha,
        overrides={"own_rate": 0.15},
        cost=lambda h, num_domains: 2 + 1 / h.period,
        optimizer=functions.decayed_sgd,
    ),
    Method(functions.polyak_sam, overrides={"own_rate": 1.0}, optimizer=functions.nothing),
    # DISAM's objective in the cheap ones.
    on_disam(INTERVAL, "disam+interval", "DISAM at every period-th step"),
    on_disam(LOOKSAM, "disam+looksam", "LookSAM on DISAM's ascent objective"),
    on_disam(PART, "disam+part", "DISAM whose ascent is on a fraction of the examples"),
    on_disam(KSAM, "disam+ksam", "DISAM on the hardest examples of every domain"),
    Method(
        functions.one_pass_by_domain,
        "DISAM's ascent gradient of the step before, from the domains' own passes",
        name="disam+one_pass",
        cost=1,
        disam=True,
        micro_batches=True,
    ),
    Method(
        functions.one_pass,
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
