"""The published methods: each names its parts, its paper and how it differs from a release.

All return an Optax transformation that stands first in a chain; what its `update` takes
is described once, at `sharpness_aware`. `ascent`, `descent` and `combine_with` are
`sharpness_aware`'s, `mask` is `perturbation`'s. Under `optax.inject_hyperparams`, which
takes every callable for a schedule and every number for one that may change, name those
that are not, as far as the method has them:
`static_args=("ascent", "descent", "mask", "period", "start", "steps", "seed")`.

core.py         SAM, GSAM, SAGM and DISAM
cheaper.py      less than two gradients per step
perturbed.py    another eps
combined.py     another use of the two gradients
further.py      more points than w and w + eps
"""

from disam_jax.methods.cheaper import ae_sam as ae_sam
from disam_jax.methods.cheaper import dgsam as dgsam
from disam_jax.methods.cheaper import interval_sam as interval_sam
from disam_jax.methods.cheaper import late_sam as late_sam
from disam_jax.methods.cheaper import looksam as looksam
from disam_jax.methods.cheaper import momentum_sam as momentum_sam
from disam_jax.methods.cheaper import random_sam as random_sam
from disam_jax.methods.cheaper import randomized_sam as randomized_sam
from disam_jax.methods.combined import gradient_norm_penalty as gradient_norm_penalty
from disam_jax.methods.combined import stable_sam as stable_sam
from disam_jax.methods.combined import wsam as wsam
from disam_jax.methods.combined import wsam_decoupled as wsam_decoupled
from disam_jax.methods.core import disam as disam
from disam_jax.methods.core import gsam as gsam
from disam_jax.methods.core import sagm as sagm
from disam_jax.methods.core import sam as sam
from disam_jax.methods.further import bilateral_sam as bilateral_sam
from disam_jax.methods.further import gam as gam
from disam_jax.methods.further import multi_step_sam as multi_step_sam
from disam_jax.methods.perturbed import asam as asam
from disam_jax.methods.perturbed import friendly_sam as friendly_sam
from disam_jax.methods.perturbed import layerwise_sam as layerwise_sam
from disam_jax.methods.perturbed import linf_sam as linf_sam
from disam_jax.methods.perturbed import sam_on as sam_on
from disam_jax.methods.perturbed import unnormalized_sam as unnormalized_sam
from disam_jax.methods.perturbed import vasso as vasso
