"""What the experiments' tests share."""

import jax
import pytest

# They compute little, and most of their time would go into compiling well; the backbones
# are the other way round.
COMPILED_WELL = ("test_backbones",)


@pytest.fixture(autouse=True, scope="module")
def compile_quickly(request):
    quickly = not request.module.__name__.endswith(COMPILED_WELL)
    jax.config.update("jax_disable_most_optimizations", quickly)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
