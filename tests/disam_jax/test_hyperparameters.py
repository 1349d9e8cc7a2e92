import inspect

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from disam_jax import methods, testing

CONSTRUCTORS = {
    "sam-rho": lambda value: dj.sam(value),
    "asam-rho": lambda value: dj.sam(value, adaptive=True),
    "gsam-rho": lambda value: dj.gsam(value, 0.1),
    "gsam-alpha": lambda value: dj.gsam(0.1, value),
    "sagm-rho": lambda value: dj.sagm(value, 0.1),
    "sagm-alpha": lambda value: dj.sagm(0.1, value),
    "disam-rho": lambda value: dj.disam(value, 0.1),
    "disam-lam": lambda value: dj.disam(0.1, value),
    "variance_penalized-lam": lambda value: dj.variance_penalized(value),
    "vrex-beta": lambda value: dj.vrex(value),
    "ascend-rho": lambda value: dj.ascend(value),
    "ascend_adaptively-rho": lambda value: dj.ascend_adaptively(value),
    "ascend_and_match-alpha": lambda value: dj.ascend_and_match(0.1, value),
    "subtract_orthogonal-alpha": lambda value: dj.subtract_orthogonal(value),
}
every_constructor = pytest.mark.parametrize("name", CONSTRUCTORS)


@every_constructor
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, jnp.array(-1.0), np.float32(-2)])
def test_negative_and_non_finite_values_are_named(name, value):
    argument = name.split("-")[-1]
    with pytest.raises(ValueError, match=rf"^{argument} must be finite and >= 0; got .*"):
        CONSTRUCTORS[name](value)


@every_constructor
@pytest.mark.parametrize("value", ["0.1", None, True, [0.1]])
def test_other_types_are_named(name, value):
    argument = name.split("-")[-1]
    with pytest.raises(
        TypeError, match=rf"^{argument} must be a number.*{value!r}".replace("[", r"\[")
    ):
        CONSTRUCTORS[name](value)


@every_constructor
def test_vectors_are_refused(name):
    with pytest.raises(ValueError, match=r"must be a scalar; got shape \(3,\)"):
        CONSTRUCTORS[name](jnp.ones(3))


@every_constructor
@pytest.mark.parametrize(
    "value", [0, 0.0, 1, np.float32(0.1), jnp.array(0.1), lambda _: 0.1]
)
def test_numbers_arrays_and_schedules_are_taken(name, value):
    CONSTRUCTORS[name](value)


@every_constructor
def test_an_array_of_outside_is_looked_at_inside_jit(name):
    value, wrong = jnp.float32(0.1), jnp.float32(-0.1)
    jax.eval_shape(lambda: CONSTRUCTORS[name](value) and 0)
    with pytest.raises(ValueError, match=name.split("-")[1]):
        jax.eval_shape(lambda: CONSTRUCTORS[name](wrong) and 0)


@every_constructor
def test_traced_values_are_taken(name):
    def build(value):
        CONSTRUCTORS[name](value)
        return value

    jax.jit(build)(0.1)


@pytest.mark.parametrize("make", [dj.variance_penalized, dj.vrex])
def test_unknown_variance_lists_the_known(make):
    with pytest.raises(ValueError, match="'uniform' or 'count_weighted'; got 'unbiased'"):
        make(0.1, variance="unbiased")
    with pytest.raises(ValueError, match="'uniform' or 'count_weighted'; got 'unbiased'"):
        dj.disam(0.1, 0.1, variance="unbiased")


ALWAYS = {"interval_sam": {"period": 1}, "late_sam": {"start": 0}, "looksam": {"period": 1}}
ALWAYS |= {
    "rst": {"probability": 1.0},
    "ae_sam": {"threshold": -1e3},
    "gsam": {"alpha": 0.2},
    "bsam": {"num_examples": float("inf")},
    "sampa": {"learning_rate": 0.1},
}


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, function in vars(methods).items()
        if inspect.isfunction(function)
        and "rho" in inspect.signature(function).parameters
        # An optimizer, and a method of losses in two parts.
        and name not in ("wsam_decoupled", "functional_sam")
    ],
)
def test_every_methods_radius_follows_a_schedule(name):
    """From 0 at the first step to a radius at the second."""

    def gradients(rho):
        tx = getattr(dj, name)(rho=rho, **ALWAYS.get(name, {}))
        problem = testing.Problem.random(micro_batches=name == "dgsam")
        params = problem.start()
        state, found = tx.init(params), []
        for _ in range(2):
            grads, state = tx.update(None, state, params, **problem.arguments())
            found.append(jax.flatten_util.ravel_pytree(grads)[0])
            params = jax.tree.map(lambda leaf: 2 * leaf, params)  # another gradient
        return found

    scheduled, never = gradients(lambda count: 0.5 * (count > 0)), gradients(0.0)
    np.testing.assert_array_equal(scheduled[0], never[0])
    assert not np.array_equal(scheduled[1], never[1])
