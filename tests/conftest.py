"""Fixtures shared by all tests."""

import jax
import pytest

# Before any array is made: the tests of sharding take up to eight of them.
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def x64():
    """Runs the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def debug_nans():
    """Makes the first NaN an error."""
    with jax.debug_nans(True):
        yield
