"""Measures on any loss and any parameters, whatever trained them.

A loss function is `(params) -> losses [M]` or `(params) -> scalar`, as for the methods, and
sees half-precision parameters in float32. It is compiled once per function object and
shapes, as by `jax.jit`, and forgotten with it; what it closes over is part of it. With
`jax.tree_util.Partial(loss_fn, batch=batch)` it is compiled once for all batches.
"""

from disam_jax.diagnostics.average import average_sharpness as average_sharpness
from disam_jax.diagnostics.batches import over_batches as over_batches
from disam_jax.diagnostics.blocks import block as block
from disam_jax.diagnostics.climbs import sharpness as sharpness
from disam_jax.diagnostics.curvature import empirical_fisher as empirical_fisher
from disam_jax.diagnostics.curvature import gauss_newton as gauss_newton
from disam_jax.diagnostics.curvature import gradient_covariance as gradient_covariance
from disam_jax.diagnostics.curves import convergence_degree as convergence_degree
from disam_jax.diagnostics.curves import loss_spread as loss_spread
from disam_jax.diagnostics.curves import scaled_losses as scaled_losses
from disam_jax.diagnostics.density import SpectralDensity as SpectralDensity
from disam_jax.diagnostics.density import spectral_density as spectral_density
from disam_jax.diagnostics.distances import hessian_distance as hessian_distance
from disam_jax.diagnostics.estimates import Estimate as Estimate
from disam_jax.diagnostics.gradients import Conflict as Conflict
from disam_jax.diagnostics.gradients import angle as angle
from disam_jax.diagnostics.gradients import gradient_conflict as gradient_conflict
from disam_jax.diagnostics.gradients import gradient_variance as gradient_variance
from disam_jax.diagnostics.hessian import Eigenpairs as Eigenpairs
from disam_jax.diagnostics.hessian import hessian_product as hessian_product
from disam_jax.diagnostics.hessian import hessian_top_eigenvalues as hessian_top_eigenvalues
from disam_jax.diagnostics.hessian import (
    hessian_top_eigenvectors as hessian_top_eigenvectors,
)
from disam_jax.diagnostics.logits import normalized_logits as normalized_logits
from disam_jax.diagnostics.surfaces import filter_normalized as filter_normalized
from disam_jax.diagnostics.surfaces import loss_surface as loss_surface
from disam_jax.diagnostics.trace import hessian_trace as hessian_trace
from disam_jax.diagnostics.worst_case import worst_case_sharpness as worst_case_sharpness
