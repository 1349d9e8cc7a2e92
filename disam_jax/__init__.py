"""Sharpness-aware minimization under domain shift, for JAX and Optax.

To read it in the order of the data: a loss function gives the losses of the domains
(domains.py); a pass (passes/) evaluates them at some parameters and finds the way back; a
step (step.py) is what a method does with such passes; sharpness.py has the step of the four
choices, each in a file of its own: objectives.py, perturbations/, combinations.py, when.py.
Where an objective stands a rule may, rules.py; composed.py is a loss in two parts.
methods/ are those choices under their published names, wrappers/ what stands around a
method, evaluation.py what a step reports, diagnostics/ what can be measured at any
parameters, testing/ what any method must hold.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from disam_jax import nnx as nnx

# The methods.
from disam_jax.methods import disam as disam
from disam_jax.methods import gsam as gsam
from disam_jax.methods import sagm as sagm
from disam_jax.methods import sam as sam
from disam_jax.methods import asam as asam
from disam_jax.methods import layerwise_sam as layerwise_sam
from disam_jax.methods import linf_sam as linf_sam
from disam_jax.methods import sam_on as sam_on
from disam_jax.methods import unnormalized_sam as unnormalized_sam
from disam_jax.methods import nuclear_sam as nuclear_sam
from disam_jax.methods import spectral_sam as spectral_sam
from disam_jax.methods import le_sam as le_sam
from disam_jax.methods import fisher_sam as fisher_sam
from disam_jax.methods import zsharp as zsharp
from disam_jax.methods import friendly_sam as friendly_sam
from disam_jax.methods import vasso as vasso
from disam_jax.methods import gradient_norm_penalty as gradient_norm_penalty
from disam_jax.methods import wsam as wsam
from disam_jax.methods import wsam_decoupled as wsam_decoupled
from disam_jax.methods import stable_sam as stable_sam
from disam_jax.methods import multi_step_sam as multi_step_sam
from disam_jax.methods import bilateral_sam as bilateral_sam
from disam_jax.methods import cr_sam as cr_sam
from disam_jax.methods import gam as gam
from disam_jax.methods import tilted_sam as tilted_sam
from disam_jax.methods import interval_sam as interval_sam
from disam_jax.methods import looksam as looksam
from disam_jax.methods import late_sam as late_sam
from disam_jax.methods import rst as rst
from disam_jax.methods import ae_sam as ae_sam
from disam_jax.methods import momentum_sam as momentum_sam
from disam_jax.methods import noise_sam as noise_sam
from disam_jax.methods import async_sam as async_sam
from disam_jax.methods import sampa as sampa
from disam_jax.methods import dgsam as dgsam
from disam_jax.methods import fish as fish
from disam_jax.methods import pgrad as pgrad
from disam_jax.methods import functional_sam as functional_sam
from disam_jax.methods import bsam as bsam
from disam_jax.methods import sassha as sassha
from disam_jax.sharpness import erm as erm

# What stands after a method, or around it, in place of an optimizer.
from disam_jax.methods import genie as genie
from disam_jax.wrappers.polyak_step import polyak_step as polyak_step

# The engine, and what it reports.
from disam_jax.sharpness import sharpness_aware as sharpness_aware
from disam_jax.passes.options import StepOptions as StepOptions
from disam_jax.wrappers.gradient_function import value_and_grad as value_and_grad
from disam_jax.evaluation import Evaluation as Evaluation
from disam_jax.evaluation import pop_evaluation as pop_evaluation
from disam_jax.evaluation import realized_perturbation as realized_perturbation

# A step of one's own, that evaluates the losses wherever it likes.
from disam_jax.step import Step as Step
from disam_jax.step import method_from_step as method_from_step
from disam_jax.methods import one_pass as one_pass
from disam_jax.methods import one_pass_by_domain as one_pass_by_domain

# At which steps to ascend.
from disam_jax.when import every as every
from disam_jax.when import starting_at as starting_at
from disam_jax.when import with_probability as with_probability

# A batch in micro-batches, and float16.
from disam_jax.wrappers.loss_scale import scale_loss as scale_loss
from disam_jax.wrappers.micro_batches import micro_batches as micro_batches
from disam_jax.wrappers.micro_batches import per_micro_batch as per_micro_batch

# From a loss function to domain losses and weights.
from disam_jax.domains import domain_means as domain_means
from disam_jax.domains import domain_shares as domain_shares
from disam_jax.domains import hardest as hardest
from disam_jax.composed import composed_loss as composed_loss
from disam_jax.domains import vmap_domains as vmap_domains

# Objectives: (losses, weights) -> scalar.
from disam_jax.objectives import Remembering as Remembering
from disam_jax.objectives import domain_variance as domain_variance
from disam_jax.objectives import group_dro as group_dro
from disam_jax.objectives import variance_penalized as variance_penalized
from disam_jax.objectives import vrex as vrex
from disam_jax.objectives import weighted_mean as weighted_mean

# Rules: the domains' gradients -> gradient.
from disam_jax.rules import Rule as Rule
from disam_jax.rules import agreement_sum as agreement_sum
from disam_jax.rules import alignment_noise as alignment_noise
from disam_jax.rules import and_mask as and_mask
from disam_jax.rules import pcgrad as pcgrad
from disam_jax.rules import sand_mask as sand_mask

# Perturbations: ascent gradient -> displacement.
from disam_jax.perturbations.ascend import ascend as ascend
from disam_jax.perturbations.ascend import ascend_and_match as ascend_and_match
from disam_jax.perturbations.ascend import ascend_by_loss as ascend_by_loss
from disam_jax.perturbations.ascend import ascend_unnormalized as ascend_unnormalized
from disam_jax.perturbations.ascend import perturbation as perturbation
from disam_jax.perturbations.sized import ascend_adaptively as ascend_adaptively
from disam_jax.perturbations.matrices import ascend_nuclear as ascend_nuclear
from disam_jax.perturbations.matrices import ascend_spectral as ascend_spectral
from disam_jax.perturbations.sized import ascend_by_fisher as ascend_by_fisher
from disam_jax.perturbations.sized import ascend_by_sign as ascend_by_sign
from disam_jax.perturbations.sized import each_layer as each_layer
from disam_jax.perturbations.sized import each_weight as each_weight
from disam_jax.perturbations.directions import away_from_mean as away_from_mean
from disam_jax.perturbations.directions import keep_outliers as keep_outliers
from disam_jax.perturbations.masks import normalization_layers as normalization_layers

# Combinations: (gradient at w, gradient at w + eps) -> gradient.
from disam_jax.combinations import average as average
from disam_jax.combinations import interpolate as interpolate
from disam_jax.combinations import renormalize as renormalize
from disam_jax.combinations import subtract_orthogonal as subtract_orthogonal
from disam_jax.combinations import take_perturbed as take_perturbed

# For new parts whose hyperparameter may be a schedule.
from disam_jax.hyperparameters import follow_learning_rate as follow_learning_rate
from disam_jax.hyperparameters import follow_schedule as follow_schedule

# Measures on any loss and any parameters, and what any method must hold.
from disam_jax import diagnostics as diagnostics
from disam_jax import testing as testing

__version__ = _version("disam_jax")


def __getattr__(name: str) -> _Any:
    """The door for Flax NNX, imported when it is asked for: Flax is no dependency."""
    if name == "nnx":
        return _import_module("disam_jax.nnx")
    raise AttributeError(f"module 'disam_jax' has no attribute {name!r}")
