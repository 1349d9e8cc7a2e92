import jax
import jax.numpy as jnp
import numpy as np
import pytest

from disam_jax.diagnostics.compiled import scan


@pytest.fixture
def programs():
    """Grows by a name whenever XLA compiles a program."""
    names = []

    def note(name, seconds, **others):
        if name.endswith("backend_compile_duration"):
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


def test_a_longer_loop_compiles_nothing_more(programs):
    """Outside of `jit`, where what was found is put together too."""
    step = jax.jit(lambda carry, x: (carry + x, {"square": x * x}))
    scan(step, jnp.int32(0), np.arange(3, dtype=np.int32))
    assert programs  # or the next line tells nothing
    programs.clear()
    total, found = scan(step, jnp.int32(0), np.arange(7, dtype=np.int32))
    assert not programs
    assert total == 21
    np.testing.assert_array_equal(found["square"], np.arange(7) ** 2)


def test_what_a_step_closes_over_may_be_traced():
    def sums(offset):
        return scan(lambda carry, x: (None, offset + x), None, np.arange(3))[1]

    np.testing.assert_array_equal(jax.vmap(sums)(np.arange(2)), [[0, 1, 2], [1, 2, 3]])
