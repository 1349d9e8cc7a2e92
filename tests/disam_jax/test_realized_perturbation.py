"""How much of a perturbation is left after a cast."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from disam_jax import methods

# Norms and products of at most 100 numbers in float32: 100 roundings of 6e-8 at most.
ROUNDING = 1e-5


def test_nothing_is_lost_in_the_dtype_of_the_parameters():
    w = {"a": jnp.linspace(-1, 1, 7), "b": jnp.ones((2, 2))}
    eps = jax.tree.map(lambda x: 0.01 * x, w)
    realized = dj.realized_perturbation(w, eps, jnp.float32)
    np.testing.assert_allclose(realized, (1.0, 1.0), rtol=ROUNDING)


def test_bfloat16_by_hand():
    """Steps of 1/128 above 1: 0.003 rounds away, 0.005 becomes a whole step."""
    realized = dj.realized_perturbation(
        jnp.ones(2), jnp.array([0.003, 0.005]), jnp.bfloat16
    )
    moved, meant = np.array([0.0, 2.0**-7]), np.array([0.003, 0.005])
    lengths = np.linalg.norm(moved), np.linalg.norm(meant)
    np.testing.assert_allclose(
        realized.length_ratio, lengths[0] / lengths[1], rtol=ROUNDING
    )
    np.testing.assert_allclose(
        realized.cosine, moved @ meant / lengths[0] / lengths[1], rtol=ROUNDING
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_zero_for_no_perturbation_and_for_a_lost_one(dtype):
    for eps in (jnp.zeros(3), jnp.full(3, 1e-9)):
        assert dj.realized_perturbation(jnp.ones(3), eps, dtype) == (0.0, 0.0)


def test_he_normal_weights_at_the_papers_radius():
    """facts: of rho = 0.05 over 25 million He-normal weights a cosine near 0.26 is left.

    The same ratio of displacement to weights on fewer of them.
    """
    rng = np.random.default_rng(0)
    fan_in, size = 1152, 1_000_000
    w = jnp.asarray(rng.normal(size=size) * (2 / fan_in) ** 0.5, jnp.float32)
    eps = jnp.asarray(rng.normal(size=size), jnp.float32)
    eps *= 0.05 * (size / 25.5e6) ** 0.5 / jnp.linalg.norm(eps)
    realized = dj.realized_perturbation(w, eps, jnp.bfloat16)
    assert 0.2 < realized.cosine < 0.35 and 2.8 < realized.length_ratio < 5


def test_an_evaluation_tells_it():
    tx, w = dj.sam(0.05), jnp.ones(100)
    _, state = tx.update(
        None,
        tx.init(w),
        w,
        loss_fn=lambda w: w @ w,
        compute_dtype=jnp.bfloat16,
        record=True,
    )
    seen, _ = dj.pop_evaluation(state)
    expected = dj.realized_perturbation(w, jnp.full(100, 0.005), jnp.bfloat16)
    np.testing.assert_allclose(seen.realized, expected, rtol=ROUNDING)
    _, state = tx.update(None, tx.init(w), w, loss_fn=lambda w: w @ w, record=True)
    assert dj.pop_evaluation(state)[0].realized is None


def traced(tx, params, **arguments):
    """What a step warns of while it is traced."""
    given = {"loss_fn": lambda w, *_: jnp.sum(jax.tree.leaves(w)[0])} | arguments
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jax.eval_shape(
            lambda state, params: tx.update(None, state, params, **given)[0],
            tx.init(params),
            params,
        )
    return [str(warning.message) for warning in caught]


def test_a_perturbation_that_a_dtype_swallows_is_warned_of():
    """And it is swallowed: the step is the plain gradient's, to the bit."""
    w = jnp.linspace(0.5, 1.5, 7, dtype=jnp.bfloat16)
    lost, plain = dj.sam(1e-5), dj.erm()
    (said,) = traced(optax.chain(lost, optax.adamw(1e-3)), w)
    assert said.startswith("rho=1e-05 over parameters in bfloat16: w + eps may round to w")
    assert "realized_perturbation" in said and not traced(plain, w)

    @jax.jit
    def gradients(w):
        def loss_fn(w):
            return jnp.sum(w**2)

        return [tx.update(None, tx.init(w), w, loss_fn=loss_fn)[0] for tx in (lost, plain)]

    np.testing.assert_array_equal(*gradients(w))


@pytest.mark.parametrize(
    "tx",
    [
        dj.sam(1e-3),
        dj.sam(0.0),
        dj.sam(optax.constant_schedule(1e-5)),  # cannot be looked at
        dj.sam(1e-5, mask={"half": False, "whole": True}),
    ],
    ids=["not small", "none", "schedule", "mask"],
)
def test_what_may_be_kept_is_not_warned_of(tx):
    assert not traced(tx, {"half": jnp.ones(2, jnp.bfloat16), "whole": jnp.ones(2)})


def test_a_traced_radius_cannot_be_looked_at():
    w, said = jnp.ones(2, jnp.bfloat16), []
    jax.eval_shape(lambda rho: said.extend(traced(dj.sam(rho), w)), 1e-5)
    assert not said


def test_which_methods_warn():
    """All whose eps `ascend` makes of length rho, also in units of the parameters' size."""
    own = {"gsam": {"alpha": 0.1}}
    own["bsam"] = {"num_examples": 1e4}
    own["sampa"] = {"learning_rate": 0.1}
    own["wsam_decoupled"] = {"optimizer": optax.sgd(0.1), "learning_rate": 0.1}
    micro_batches = {"dgsam": {"micro_batches": jnp.zeros((2, 1))}}
    takes, silent = set(), set()
    for name, make in vars(methods).items():
        if name == "functional_sam":  # of a loss in two parts; its eps is `ascend`'s too
            continue
        if inspect.isfunction(make) and "rho" in inspect.signature(make).parameters:
            takes.add(name)
            tx, w = make(rho=1e-5, **own.get(name, {})), {"norm": jnp.ones(2, jnp.float16)}
            if not traced(tx, w, **micro_batches.get(name, {})):
                silent.add(name)
    assert len(takes) > 20
    # The first two move every parameter by rho, and by rho times its gradient; the others
    # scale directions of their own.
    scaled = {"bilateral_sam", "cr_sam", "gam", "noise_sam", "bsam", "tilted_sam"}
    assert silent == {"linf_sam", "unnormalized_sam"} | scaled
