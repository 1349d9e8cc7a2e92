"""Methods of the library as functions of hyperparameters, where the two differ in names.

A function that has `learning_rate`, `weight_decay` or `run_steps` among its arguments is
given the run's. The last ones are what stands after a method that brings its optimizer.
"""

from typing import Any

import optax

import disam_jax as dj

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


def bsam(
    rho: float = 0.05, num_examples: float = 1e4, weight_decay: float = 0.0
) -> Transformation:
    """Moellenhoff and Khan, ICLR 2023: a Gaussian of weights, its precision scales eps."""
    return dj.bsam(num_examples, rho, weight_decay=weight_decay)


def sassha(rho: float = 0.1, period: int = 10) -> Transformation:
    """Shin et al., ICML 2025: a step by the curvature at w + eps."""
    return dj.sassha(rho, period)


def tilted_sam(rho: float = 0.05, tilt: float = 1.0) -> Transformation:
    """Li et al., ICML 2025: three points around w, the worse the heavier."""
    return dj.tilted_sam(rho, tilt)


def sampa(rho: float = 0.1, alpha: float = 0.2, learning_rate: Any = 0.1) -> Transformation:
    """Xie et al., NeurIPS 2024: climbs where SGD would have gone; two passes abreast."""
    return dj.sampa(learning_rate, rho, alpha)


def nothing(learning_rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """After what is a whole step by itself."""
    return optax.identity()


def plain_sgd(learning_rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """After what has its own momentum and weight decay."""
    return optax.sgd(learning_rate)


def decayed_sgd(learning_rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """After what has its own momentum; the decay is decoupled."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate))


def genie(learning_rate: Any, weight_decay: float) -> optax.GradientTransformation:
    """GENIE, with its authors' coupled weight decay."""
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(decay, dj.genie(learning_rate))
