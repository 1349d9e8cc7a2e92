import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj

EXAMPLES = np.array([1.0, 2.0, 6.0, 5.0, 4.0])
IDS = np.array([0, 0, 2, 0, 2])


def test_domain_means_against_a_loop(x64):
    losses, weights = dj.domain_means(EXAMPLES, IDS, num_domains=4)
    for domain in range(4):
        own = EXAMPLES[domain == IDS]
        assert weights[domain] == pytest.approx(len(own) / 5)
        assert losses[domain] == pytest.approx(own.mean() if len(own) else 0.0)
    assert dj.weighted_mean(losses, weights) == pytest.approx(EXAMPLES.mean())


def test_domain_shares_are_the_weights_of_domain_means():
    _, weights = dj.domain_means(EXAMPLES, IDS, num_domains=4)
    np.testing.assert_array_equal(dj.domain_shares(IDS, num_domains=4), weights)


def test_gradient_of_an_example_is_one_over_its_domains_count(x64):
    def first_and_third(examples):
        return dj.domain_means(examples, IDS, num_domains=4)[0] @ jnp.arange(1.0, 5.0)

    grad = jax.grad(first_and_third)(jnp.array(EXAMPLES))
    np.testing.assert_allclose(grad, [1 / 3, 1 / 3, 3 / 2, 1 / 3, 3 / 2], rtol=1e-12)


def test_a_nan_example_stays_in_its_own_domain():
    examples = np.where(IDS == 2, np.nan, EXAMPLES)
    losses, _ = dj.domain_means(examples, IDS, num_domains=3)
    assert jnp.isnan(losses[2])
    assert losses[0] == pytest.approx(8 / 3)


def test_half_precision_examples_are_averaged_in_float32():
    losses, _ = dj.domain_means(
        jnp.full(10_000, 10.0, jnp.float16), jnp.zeros(10_000, jnp.int32), num_domains=1
    )
    assert losses.dtype == jnp.float32
    assert losses[0] == 10.0


def test_padding_under_jit_takes_no_part(debug_nans):
    @jax.jit
    def means(ids):
        return dj.domain_means(EXAMPLES, ids, num_domains=2)

    losses, weights = means(np.array([0, 1, -1, -1, 1]))
    np.testing.assert_allclose(losses, [1.0, 3.0])
    np.testing.assert_allclose(weights, [1 / 3, 2 / 3], rtol=1e-6)  # one division
    losses, weights = means(np.full(5, -1))
    assert not losses.any() and not weights.any()


@pytest.mark.parametrize("ids", [[0, 0, 3, 0, 2], [0, 0, -1, 0, 2]])
@pytest.mark.parametrize(
    "call",
    [
        lambda ids: dj.domain_means(EXAMPLES, ids, 3),
        lambda ids: dj.domain_shares(ids, 3),
        lambda ids: dj.hardest(EXAMPLES, ids, 3, 1),
    ],
)
def test_ids_out_of_range_are_named(ids, call):
    wrong = [i for i in ids if i not in (0, 1, 2)]
    with pytest.raises(
        ValueError, match=rf"\[0, 3\) for num_domains=3; got \[{wrong[0]}\]"
    ):
        call(np.array(ids))


@pytest.mark.parametrize("call", [dj.domain_means, functools.partial(dj.hardest, count=1)])
def test_examples_and_their_ids_have_one_shape(call):
    both = r"both have shape \[B\]; got "
    with pytest.raises(ValueError, match=both + r"\(5,\) and \(4,\)"):
        call(EXAMPLES, IDS[:4], 3)
    with pytest.raises(ValueError, match=both + r"\(5, 1\) and \(5, 1\)"):
        call(EXAMPLES[:, None], IDS[:, None], 3)
    with pytest.raises(TypeError, match="domain_ids must be integers; got float"):
        call(EXAMPLES, IDS.astype(np.float32), 3)
    with pytest.raises(ValueError, match="num_domains must be at least 1; got 0"):
        call(EXAMPLES, IDS, 0)


def test_bad_shapes_and_dtypes_are_named():
    with pytest.raises(TypeError, match="domain_ids must be integers; got float"):
        dj.domain_shares(np.array([0.0, 1.0]), 3)
    with pytest.raises(ValueError, match="num_domains must be at least 1; got 0"):
        dj.domain_shares(IDS, 0)
    with pytest.raises(ValueError, match=r"domain_ids must have shape \[B\]"):
        dj.domain_shares(IDS.reshape(1, 5), 3)


def test_vmap_domains_is_a_loop_over_domains(x64):
    def loss_fn(params, x, y):
        return jnp.mean((x @ params - y) ** 2)

    rng = np.random.default_rng(0)
    params, x, y = rng.normal(size=2), rng.normal(size=(3, 8, 2)), rng.normal(size=(3, 8))
    losses = dj.vmap_domains(loss_fn)(params, x, y)
    expected = [loss_fn(params, x[i], y[i]) for i in range(3)]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_vmap_domains_stacks_the_aux():
    def loss_fn(params, x):
        return params * x.mean(), x.max()

    losses, aux = dj.vmap_domains(loss_fn)(2.0, jnp.arange(6.0).reshape(3, 2))
    np.testing.assert_allclose(losses, [1.0, 5.0, 9.0])
    np.testing.assert_allclose(aux, [1.0, 3.0, 5.0])
