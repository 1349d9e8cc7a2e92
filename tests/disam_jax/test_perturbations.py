import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from tests import reference
from tests.problems import to_flat, to_tree

RNG = np.random.default_rng(0)
GRAD, PARAMS = RNG.normal(size=5), RNG.normal(size=5)
PARTS = {
    "sam": dj.ascend(0.3),
    "asam": dj.ascend_adaptively(0.3),
    "sagm": dj.ascend_and_match(0.3, 0.2),
}
# Norms of five numbers in float32, taken twice: less than 16 roundings of 6e-8.
ROUNDING = 1e-6
every_part = pytest.mark.parametrize("kind", PARTS)


def displacement(tx, grad, params):
    return tx.update(grad, tx.init(params), params)[0]


@every_part
def test_formula(x64, kind):
    eps = displacement(PARTS[kind], to_tree(GRAD), to_tree(PARAMS))
    expected = reference.EPS[kind](GRAD, PARAMS, 0.3, 0.2)
    np.testing.assert_allclose(to_flat(eps), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_length_is_rho_however_large_the_gradient(scale):
    eps = displacement(PARTS["sam"], to_tree(scale * GRAD), to_tree(PARAMS))
    np.testing.assert_allclose(jnp.linalg.norm(to_flat(eps)), 0.3, rtol=ROUNDING)


def test_adaptive_length_is_rho_in_units_of_the_parameters():
    eps = displacement(PARTS["asam"], to_tree(GRAD), to_tree(PARAMS))
    relative = to_flat(eps) / np.abs(PARAMS)
    np.testing.assert_allclose(jnp.linalg.norm(relative), 0.3, rtol=ROUNDING)


@every_part
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_zero_gradient_gives_zero(debug_nans, kind, dtype):
    zero = to_tree(np.zeros(5), dtype)
    eps = displacement(PARTS[kind], zero, to_tree(PARAMS, dtype))
    assert not to_flat(eps).any()
    assert not to_flat(displacement(PARTS[kind], zero, zero)).any()


@every_part
def test_norm_is_taken_in_float32(kind):
    # In float16 the squares of these overflow, and their sum keeps two digits.
    grad = {"w": jnp.full(1000, 300.0, jnp.float16)}
    params = {"w": jnp.ones(1000, jnp.float16)}
    eps = displacement(PARTS[kind], grad, params)["w"]
    assert eps.dtype == jnp.float32
    offset = 0.2 * 300 if kind == "sagm" else 0.0
    # 1000 terms in whatever order: 1000 roundings of 6e-8 at most.
    np.testing.assert_allclose(eps, 0.3 / 1000**0.5 - offset, rtol=6e-5)


@every_part
@pytest.mark.parametrize("as_function", [False, True])
def test_masked_leaves_neither_move_nor_count(x64, kind, as_function):
    mask = {"a": True, "b": {"c": False}}
    make = {
        "sam": lambda mask: dj.ascend(0.3, mask=mask),
        "asam": lambda mask: dj.ascend_adaptively(0.3, mask=mask),
        "sagm": lambda mask: dj.ascend_and_match(0.3, 0.2, mask=mask),
    }[kind]
    tx = make((lambda params: mask) if as_function else mask)
    eps = displacement(tx, to_tree(GRAD), to_tree(PARAMS))
    expected = reference.EPS[kind](GRAD[:2], PARAMS[:2], 0.3, 0.2)
    np.testing.assert_allclose(eps["a"], expected, rtol=1e-12)
    assert not eps["b"]["c"].any()
    assert eps["b"]["c"].dtype == jnp.float64


def test_a_mask_may_be_a_prefix():
    tx = dj.ascend(0.3, mask={"a": False, "b": True})
    eps = displacement(tx, to_tree(GRAD), to_tree(PARAMS))
    assert not eps["a"].any()
    np.testing.assert_allclose(jnp.linalg.norm(eps["b"]["c"]), 0.3, rtol=ROUNDING)


def test_a_mask_of_nothing_leaves_all_in_place(debug_nans):
    tx = dj.ascend(0.3, mask=lambda params: jax.tree.map(lambda _: False, params))
    assert not to_flat(displacement(tx, to_tree(GRAD), to_tree(PARAMS))).any()


def test_a_mask_of_numbers_is_refused():
    tx = dj.ascend(0.3, mask={"a": 1.0, "b": False})
    with pytest.raises(TypeError, match=r"mask must hold bools; got 1\.0 \(float\)"):
        displacement(tx, to_tree(GRAD), to_tree(PARAMS))


def test_parameters_are_asked_for():
    tx = dj.ascend(0.3)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(GRAD, tx.init(PARAMS))


@every_part
def test_derivative_at_a_zero_gradient_is_finite(debug_nans, kind):
    def first(grad):
        return to_flat(displacement(PARTS[kind], to_tree(grad), to_tree(PARAMS)))[0]

    assert jnp.isfinite(jax.grad(first)(jnp.zeros(5))).all()


def test_a_schedule_advances_with_the_perturbations_own_count():
    tx = dj.ascend(lambda count: 0.1 * (count + 1))
    params, state = to_tree(PARAMS), dj.ascend(0.1).init(to_tree(PARAMS))
    for step in range(3):
        eps, state = tx.update(to_tree(GRAD), state, params)
        length = jnp.linalg.norm(to_flat(eps))
        np.testing.assert_allclose(length, 0.1 * (step + 1), rtol=ROUNDING)
