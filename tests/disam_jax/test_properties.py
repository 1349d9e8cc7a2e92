"""Properties that hold for random trees, dtypes, domain counts and weights."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings

import disam_jax as dj
from tests import reference

settings.register_profile("disam_jax", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("disam_jax")

# Not the smallest numbers there are: XLA takes those for 0, and the domain for absent.
weight = st.one_of(st.just(0.0), st.floats(1e-9, 1))
# Each number of domains is compiled anew; these hold one, few, many and an odd one.
losses_and_weights = st.sampled_from((1, 2, 3, 7, 12)).flatmap(
    lambda m: st.tuples(
        hnp.arrays(np.float64, m, elements=st.floats(0, 20)),
        hnp.arrays(np.float64, m, elements=weight).filter(lambda w: w.max() > 0.1),
    )
)
variances = st.sampled_from(["uniform", "count_weighted"])
dtypes = st.sampled_from(["float16", "bfloat16", "float32", "float64"])
# And each shape.
shapes = st.lists(
    st.sampled_from([(), (1,), (3,), (2, 3), (4, 1, 2)]), min_size=1, max_size=4
)
# Norms of at most 40 numbers in float32, taken twice: 100 roundings of 6e-8 at most.
ROUNDING = 1e-5


def random_tree(shapes, dtype, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(scale * rng.normal(size=shape), dtype) for shape in shapes]


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in tree])


@given(losses_and_weights, variances, st.floats(0, 10))
def test_ascent_weights_sum_to_one_and_are_the_papers(case, variance, lam):
    losses, weights = case[0], case[1] / case[1].sum()
    with jax.enable_x64(True):
        beta = jax.grad(dj.variance_penalized(lam, variance))(
            jnp.asarray(losses), jnp.asarray(weights)
        )
    expected = reference.disam_weights(losses, weights, lam, variance)
    np.testing.assert_allclose(beta, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.asarray(beta).sum(), 1.0, rtol=1e-9, atol=1e-9)


@given(shapes, dtypes, st.integers(0, 99), st.floats(0.01, 10), st.floats(0.01, 100))
def test_displacement_has_length_rho(shapes, dtype, seed, rho, scale):
    with jax.enable_x64(True):
        grad = random_tree(shapes, dtype, seed, scale)
        tx = dj.ascend(rho)
        eps, _ = tx.update(grad, tx.init(grad), grad)
    np.testing.assert_allclose(np.linalg.norm(flat(eps)), rho, rtol=ROUNDING)
    cosine = flat(eps) @ flat(grad) / np.linalg.norm(flat(eps)) / np.linalg.norm(flat(grad))
    np.testing.assert_allclose(cosine, 1.0, rtol=ROUNDING)


@given(shapes, dtypes, st.integers(0, 99), st.data())
def test_masked_leaves_stay(shapes, dtype, seed, data):
    mask = data.draw(st.lists(st.booleans(), min_size=len(shapes), max_size=len(shapes)))
    with jax.enable_x64(True):
        grad = random_tree(shapes, dtype, seed)
        tx = dj.ascend(0.5, mask=mask)
        eps, _ = tx.update(grad, tx.init(grad), grad)
    assert [leaf.shape for leaf in eps] == [leaf.shape for leaf in grad]
    for moves, leaf in zip(mask, eps, strict=True):
        assert moves or not leaf.any()
    if any(mask):
        np.testing.assert_allclose(np.linalg.norm(flat(eps)), 0.5, rtol=ROUNDING)


@given(losses_and_weights, st.integers(0, 99), variances, dtypes)
def test_relabelled_domains_and_scaled_weights_change_nothing(case, seed, variance, dtype):
    scales, weights = case
    order = np.random.default_rng(seed).permutation(len(scales))
    tx = dj.disam(0.1, 0.3, variance=variance)
    # The gradient's own rounding to the dtype; the loss is computed in float64.
    tolerance = {"float16": 1e-2, "bfloat16": 1e-1, "float32": 1e-4, "float64": 1e-9}[dtype]

    def gradient(scales, weights):
        params = random_tree([(3,), (2, 2)], dtype, seed)

        def loss_fn(params):
            size = sum(jnp.sum(jnp.sin(leaf.astype(float)) ** 2) for leaf in params)
            return jnp.asarray(scales) * size

        updates, _ = tx.update(
            None, tx.init(params), params, loss_fn=loss_fn, domain_weights=weights
        )
        assert all(leaf.dtype == dtype for leaf in updates)
        return flat(updates)

    with jax.enable_x64(True):
        expected = gradient(scales, weights)
        actual = gradient(scales[order], 7 * weights[order])
    bound = tolerance * (1 + np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, atol=bound, rtol=0)


@given(
    st.sampled_from((1, 7, 40)).flatmap(
        lambda n: hnp.arrays(np.float64, n, elements=st.floats(-5, 5))
    ),
    st.sampled_from((1, 3, 6)),
    st.integers(0, 99),
)
def test_domain_means_against_a_loop(examples, num_domains, seed):
    ids = np.random.default_rng(seed).integers(0, num_domains, len(examples))
    with jax.enable_x64(True):
        losses, weights = dj.domain_means(examples, ids, num_domains)
        np.testing.assert_array_equal(weights, dj.domain_shares(ids, num_domains))
    for domain in range(num_domains):
        own = examples[ids == domain]
        np.testing.assert_allclose(losses[domain], own.mean() if len(own) else 0, atol=1e-9)
        np.testing.assert_allclose(weights[domain], len(own) / len(examples))
    pooled = np.asarray(losses) @ np.asarray(weights)
    np.testing.assert_allclose(pooled, examples.mean(), atol=1e-9)


@given(losses_and_weights, st.floats(0, 2), variances)
def test_no_nan_wherever_losses_are_equal_or_zero(case, lam, variance):
    _, weights = case
    params = jnp.zeros(3)
    tx = dj.gsam(0.1, 0.2, ascent=dj.variance_penalized(lam, variance))
    with jax.debug_nans(True):
        updates, _ = tx.update(
            None,
            tx.init(params),
            params,
            loss_fn=lambda w: jnp.sum(w**2) * jnp.ones(len(weights)),
            domain_weights=weights,
            record=True,
        )
    assert not updates.any()
