"""The checks of disam_jax.testing: every method passes, and each check can fail."""

import jax
import jax.numpy as jnp
import optax
import pytest

import disam_jax as dj
from disam_jax import methods, testing
from tests.methods import METHODS, wants_pieces


@pytest.mark.parametrize("name", METHODS)
def test_every_method_passes(name):
    tx, gradients = METHODS[name]
    testing.check(tx, gradients=gradients, pieces=wants_pieces(name))


def test_every_public_method_is_checked():
    constructors = {name for name in vars(methods) if not name.startswith("_")}
    modules = {"core", "cheaper", "perturbed", "combined", "further"}
    # wsam_decoupled is a whole optimizer: tests/disam_jax/test_family.py has its own test.
    assert constructors - modules - {"wsam_decoupled"} <= METHODS.keys()


def step_of(gradient):
    """A source whose gradient is made by `gradient(points)`."""

    def step(points, memory, count):
        clean = points.at().look(dj.weighted_mean)
        seen = points.evaluation(clean, clean, points.zero())
        return dj.Step(gradient(points, clean, count), memory, seen)

    return dj.gradient_source(lambda params: (), step)


def scaled(tree, factor):
    return jax.tree.map(lambda g: g * factor, tree)


def bare_norm(points, clean, count):
    square = sum(jnp.sum(g**2) for g in jax.tree.leaves(clean.gradient))
    return scaled(clean.gradient, 1 / jnp.sqrt(square))


def counts_all_domains(points, clean, count):
    return scaled(clean.gradient, jnp.sum(clean.losses))


def depends_on_python(points, clean, count):
    depends_on_python.calls += 1
    return scaled(clean.gradient, depends_on_python.calls)


depends_on_python.calls = 0


def grows():
    tx = dj.sam()

    def update(updates, state, params, **kwargs):
        updates, state = tx.update(updates, state, params, **kwargs)
        return updates, state._replace(memory=(state.memory, 0.0))

    return optax.GradientTransformationExtraArgs(tx.init, update)


def always_double():
    """Interval SAM by selection, which computes what it throws away."""

    def step(points, memory, count):
        clean = points.at().look(dj.weighted_mean)
        perturbed = points.at_perturbed(scaled(clean.gradient, 0.1))
        there = perturbed.look(dj.weighted_mean)
        gradient = jax.tree.map(
            lambda p, g: jnp.where(count % 5 == 0, p, g), there.gradient, clean.gradient
        )
        seen = points.evaluation(clean, there, points.zero())
        return dj.Step(gradient, memory, seen)

    return dj.gradient_source(lambda params: (), step)


def widens():
    tx = dj.sam()

    def update(updates, state, params, **kwargs):
        updates, state = tx.update(updates, state, params, **kwargs)
        return jax.tree.map(lambda u: u.astype(jnp.float32), updates), state

    return optax.GradientTransformationExtraArgs(tx.init, update)


@pytest.mark.parametrize(
    ("check", "tx", "message"),
    [
        (testing.check_zero_gradient, step_of(bare_norm), "all gradients are zero"),
        (testing.check_absent_domain, step_of(counts_all_domains), "domain of weight 0"),
        (testing.check_state, grows(), "changes the state"),
        (testing.check_composition, step_of(depends_on_python), "without jit"),
        (testing.check_dtypes, widens(), "parameters of .* give updates of"),
    ],
    ids=["zero gradient", "absent domain", "state", "composition", "dtypes"],
)
def test_each_check_can_fail(check, tx, message):
    with pytest.raises(AssertionError, match=message):
        check(tx)


def test_the_cost_of_what_is_thrown_away_is_found():
    testing.check_composition(always_double())
    with pytest.raises(AssertionError, match=r"should take 1.2 .* it takes 2.0"):
        testing.check_cost(always_double(), 1.2)


def test_indeterminism_is_found():
    # Noise from the host: another number at every call.
    def step(points, memory, count):
        clean = points.at().look(dj.weighted_mean)
        noise = jax.pure_callback(
            lambda: next(numbers), jax.ShapeDtypeStruct((), "float32")
        )
        seen = points.evaluation(clean, clean, points.zero())
        return dj.Step(scaled(clean.gradient, 1 + noise), memory, seen)

    numbers = iter(jnp.arange(100, dtype="float32") / 10)
    with pytest.raises(AssertionError, match="saved and restored"):
        testing.check_determinism(dj.gradient_source(lambda params: (), step))
