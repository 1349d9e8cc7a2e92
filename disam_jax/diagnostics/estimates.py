"""What is measured by random samples: their mean, and how far it may be off."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Estimate(NamedTuple):
    """The mean of random samples, and how far it may be from what they estimate.

    Attributes:
      mean: a scalar, or one for each domain or pair of domains.
      standard_error: in the mean's shape, its standard deviation, estimated from the
        samples.
    """

    mean: jax.Array
    standard_error: jax.Array


def estimate(samples: jax.Array) -> Estimate:
    """Returns the `Estimate` that samples [S, ...] make, S >= 2."""
    deviation = jnp.std(samples, axis=0, ddof=1)
    return Estimate(jnp.mean(samples, axis=0), deviation / math.sqrt(len(samples)))
