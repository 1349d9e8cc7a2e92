"""Fixtures shared by all tests."""

import jax
import pytest


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
