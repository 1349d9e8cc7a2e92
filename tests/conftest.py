"""Fixtures shared by all tests."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# One compiler cache for the run: its workers and the processes that tests start compile
# many programs alike. JAX reads these when it is imported.
CACHE = "JAX_COMPILATION_CACHE_DIR"
made_here = CACHE not in os.environ
if made_here:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="disam_jax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402

# Before any array is made: the tests of sharding take up to eight of them.
jax.config.update("jax_num_cpu_devices", 8)


def pytest_unconfigure():
    """Removes the cache where this process made it; a worker's is another's."""
    if made_here:
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)


def compiles_quickly(path):
    """Of tests that compute little: most of their time would go into compiling well."""
    if path.is_relative_to(Path(__file__).parent / "experiments"):
        return path.stem != "test_backbones"  # those compute much
    return path.stem != "test_cost"


@pytest.fixture(autouse=True, scope="module")
def optimizations(request):
    jax.config.update("jax_disable_most_optimizations", compiles_quickly(request.path))
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
