"""Comparing what is computed in float32, within a bound that holds on any machine.

A sum of n terms in another order is off by some sqrt(n) roundings, each of 2^-24 of what is
summed. The networks here have at most eight layers, forth and back, and sums of at most 768
terms: 16 sqrt(768) 2^-24 = 2.6e-5 of an array's largest entry. (An entry near zero may be a
sum that cancels: its own size bounds nothing.) What a wrong formula does is percents.
"""

import jax
import numpy as np

BOUND = 1e-4


def assert_close(found, expected, bound=BOUND):
    """Every leaf within `bound` of its largest entry."""

    def compare(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * np.abs(b).max())

    jax.tree.map(compare, found, expected)
