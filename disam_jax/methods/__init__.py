"""The published methods: each names its parts, its paper and how it differs from a release.

All return an Optax transformation that stands first in a chain; what its `update` takes
is described once, at `StepOptions`. `ascent`, `descent` and `combine_with` are
`sharpness_aware`'s, `mask` is `perturbation`'s. Under `optax.inject_hyperparams`, which
takes every callable for a schedule and every number for one that may change, name those
that are not, as far as the method has them:
`static_args=("ascent", "descent", "mask", "period", "start", "steps", "seed")`.

core.py             SAM, GSAM, SAGM and DISAM
perturbed.py        another eps
geometries.py       another eps: the norm of its ball, its radius
averaged.py         another eps, of several steps' gradients
combined.py         another use of the two gradients
skipped.py          an ascent at some steps
more_points.py      more points than w and w + eps
one_pass.py         one point, from what the steps before it left

and those with a step of their own: looksam.py, ae_sam.py, dgsam.py, walks.py, bsam.py,
sassha.py, async_sam.py, sampa.py, tilted_sam.py, functional_sam.py, wsam_decoupled.py.
What stands after a method in the chain: genie.py.
"""

from disam_jax.methods.ae_sam import ae_sam as ae_sam
from disam_jax.methods.async_sam import async_sam as async_sam
from disam_jax.methods.averaged import friendly_sam as friendly_sam
from disam_jax.methods.averaged import vasso as vasso
from disam_jax.methods.bsam import bsam as bsam
from disam_jax.methods.combined import gradient_norm_penalty as gradient_norm_penalty
from disam_jax.methods.combined import stable_sam as stable_sam
from disam_jax.methods.combined import wsam as wsam
from disam_jax.methods.core import disam as disam
from disam_jax.methods.core import gsam as gsam
from disam_jax.methods.core import sagm as sagm
from disam_jax.methods.core import sam as sam
from disam_jax.methods.dgsam import dgsam as dgsam
from disam_jax.methods.functional_sam import functional_sam as functional_sam
from disam_jax.methods.genie import genie as genie
from disam_jax.methods.geometries import fisher_sam as fisher_sam
from disam_jax.methods.geometries import le_sam as le_sam
from disam_jax.methods.geometries import nuclear_sam as nuclear_sam
from disam_jax.methods.geometries import spectral_sam as spectral_sam
from disam_jax.methods.geometries import zsharp as zsharp
from disam_jax.methods.looksam import looksam as looksam
from disam_jax.methods.more_points import bilateral_sam as bilateral_sam
from disam_jax.methods.more_points import cr_sam as cr_sam
from disam_jax.methods.more_points import gam as gam
from disam_jax.methods.more_points import multi_step_sam as multi_step_sam
from disam_jax.methods.one_pass import momentum_sam as momentum_sam
from disam_jax.methods.one_pass import noise_sam as noise_sam
from disam_jax.methods.one_pass import one_pass as one_pass
from disam_jax.methods.one_pass import one_pass_by_domain as one_pass_by_domain
from disam_jax.methods.perturbed import asam as asam
from disam_jax.methods.perturbed import layerwise_sam as layerwise_sam
from disam_jax.methods.perturbed import linf_sam as linf_sam
from disam_jax.methods.perturbed import sam_on as sam_on
from disam_jax.methods.perturbed import unnormalized_sam as unnormalized_sam
from disam_jax.methods.sampa import sampa as sampa
from disam_jax.methods.sassha import sassha as sassha
from disam_jax.methods.skipped import interval_sam as interval_sam
from disam_jax.methods.skipped import late_sam as late_sam
from disam_jax.methods.skipped import rst as rst
from disam_jax.methods.tilted_sam import tilted_sam as tilted_sam
from disam_jax.methods.walks import fish as fish
from disam_jax.methods.walks import pgrad as pgrad
from disam_jax.methods.wsam_decoupled import wsam_decoupled as wsam_decoupled
