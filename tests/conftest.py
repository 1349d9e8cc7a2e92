"""Fixtures shared by all tests."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

# Most programs here compute little and run once: plain loops, all in one module, compile
# in a quarter of the time.
QUICKLY = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def xla_knows(flags):
    """Asked in another process: XLA ends its own at a flag that it does not know."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    env = {**os.environ, "XLA_FLAGS": flags}
    return subprocess.run(command, env=env, capture_output=True).returncode == 0


# JAX reads these when it is imported; workers and processes that tests start inherit them,
# and share one compiler cache, for they compile many programs alike.
CACHE = "JAX_COMPILATION_CACHE_DIR"
made_here = CACHE not in os.environ
if made_here:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="disam_jax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if xla_knows(QUICKLY):
        os.environ["XLA_FLAGS"] = f"{QUICKLY} {os.environ.get('XLA_FLAGS', '')}"

import jax  # noqa: E402

# Before any array is made: the tests of sharding take up to eight of them.
jax.config.update("jax_num_cpu_devices", 8)


def pytest_unconfigure():
    """Removes the cache where this process made it; a worker's is another's."""
    if made_here:
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)


@pytest.fixture(scope="module")
def optimized():
    """Compiles as a user does: for tests that read what a program costs."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


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
