"""Checks that a method can be run through, from any test suite.

Each raises an AssertionError that says what does not hold; `check` runs them all. A method
is what `sharpness_aware`, `method_from_step` or anything with the same update makes. What
no check can know is whether the formula is the right one: test that against an independent
reference, over a few steps in float64.
"""

from disam_jax.testing.checks import check as check
from disam_jax.testing.checks import check_absent_domain as check_absent_domain
from disam_jax.testing.checks import check_composition as check_composition
from disam_jax.testing.checks import check_cost as check_cost
from disam_jax.testing.checks import check_determinism as check_determinism
from disam_jax.testing.checks import check_dtypes as check_dtypes
from disam_jax.testing.checks import check_state as check_state
from disam_jax.testing.checks import check_zero_gradient as check_zero_gradient
from disam_jax.testing.checks import count_evaluations as count_evaluations
from disam_jax.testing.problem import Problem as Problem
from disam_jax.testing.problem import run as run
