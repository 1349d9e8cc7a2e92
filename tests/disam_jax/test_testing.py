"""The checks of disam_jax.testing: every method passes, and each check can fail."""

from inspect import isfunction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from disam_jax import methods, testing
from tests.methods import METHODS, wants_micro_batches
from tests.slow import slow_but

# `sharpness_aware` with another eps, combination or policy than others that are here.
AS_SAM = {
    "gsam", "sagm", "asam", "layerwise_sam", "linf_sam", "sam_on", "unnormalized_sam",
    "spectral_sam", "le_sam", "fisher_sam", "zsharp", "friendly_sam",
    "gradient_norm_penalty", "wsam", "stable_sam", "late_sam", "rst",
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(METHODS.keys() - AS_SAM, METHODS))
def test_every_method_passes(name):
    tx, gradients = METHODS[name]
    testing.check(tx, gradients=gradients, micro_batches=wants_micro_batches(name))


@pytest.mark.parametrize("name", sorted(AS_SAM))
def test_another_eps_in_the_step_of_sam_passes(name):
    tx, gradients = METHODS[name]
    testing.check_zero_gradient(tx)
    testing.check_dtypes(tx)
    testing.check_cost(tx, gradients)


def test_every_public_method_is_checked():
    constructors = {name for name, value in vars(methods).items() if isfunction(value)}
    # The first two are optimizers, tested in test_family.py and test_field.py, the third
    # wants a loss in two parts, test_composed.py; the others need a perturbation and stand
    # there as "disam, one pass" and "disam, by domain".
    others = {"wsam_decoupled", "genie", "functional_sam", "one_pass", "one_pass_by_domain"}
    assert constructors - others <= METHODS.keys()


def step_of(gradient):
    """A method whose gradient is made by `gradient(loss)`."""

    def step(loss, state, count):
        clean = loss.at().value_and_grad(dj.weighted_mean)
        seen = loss.evaluation(clean)
        return dj.Step(gradient(loss, clean, count), state, seen)

    return dj.method_from_step(lambda params: (), step)


def scaled(tree, factor):
    return jax.tree.map(lambda g: g * factor, tree)


def bare_norm(loss, clean, count):
    square = sum(jnp.sum(g**2) for g in jax.tree.leaves(clean.gradient))
    return scaled(clean.gradient, 1 / jnp.sqrt(square))


def counts_all_domains(loss, clean, count):
    return scaled(clean.gradient, jnp.sum(clean.losses))


def depends_on_python(loss, clean, count):
    depends_on_python.calls += 1
    return scaled(clean.gradient, depends_on_python.calls)


depends_on_python.calls = 0


def grows():
    tx = dj.sam()

    def update(updates, state, params, **kwargs):
        updates, state = tx.update(updates, state, params, **kwargs)
        return updates, state._replace(inner=(state.inner, 0.0))

    return optax.GradientTransformationExtraArgs(tx.init, update)


def always_double():
    """Interval SAM by selection, which computes what it throws away."""

    def step(loss, state, count):
        clean = loss.at().value_and_grad(dj.weighted_mean)
        perturbed = loss.at(scaled(clean.gradient, 0.1))
        there = perturbed.value_and_grad(dj.weighted_mean)
        gradient = jax.tree.map(
            lambda p, g: jnp.where(count % 5 == 0, p, g), there.gradient, clean.gradient
        )
        seen = loss.evaluation(clean, there, loss.no_eps())
        return dj.Step(gradient, state, seen)

    return dj.method_from_step(lambda params: (), step)


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
    def step(loss, state, count):
        clean = loss.at().value_and_grad(dj.weighted_mean)
        noise = jax.pure_callback(
            lambda: next(numbers), jax.ShapeDtypeStruct((), "float32")
        )
        seen = loss.evaluation(clean)
        return dj.Step(scaled(clean.gradient, 1 + noise), state, seen)

    numbers = iter(jnp.arange(100, dtype="float32") / 10)
    with pytest.raises(AssertionError, match="saved and restored"):
        testing.check_determinism(dj.method_from_step(lambda params: (), step))


def test_a_step_need_not_tell_what_it_saw():
    def step(loss, state, count):
        here = loss.at().value_and_grad(loss.descent)
        return dj.Step(here.gradient, state, None)

    tx, params = dj.method_from_step(lambda params: (), step), jnp.ones(2)
    grads, state = tx.update(None, tx.init(params), params, loss_fn=lambda w: w @ w)
    np.testing.assert_array_equal(grads, 2.0)
    with pytest.raises(ValueError, match="must hold one evaluation; found 0"):
        dj.pop_evaluation(state)
