"""Methods of 2022 to 2026 beside what their authors' code, or formula, gave in float64.

The digits are of the problem in tests/three_domains.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from disam_jax import trees
from disam_jax.perturbations.matrices import ascend_nuclear
from tests import three_domains
from tests.three_domains import START, flat, gradient, loss_fn, params_of

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)


def displacement(tx, grad, params=None):
    params = grad if params is None else params
    return tx.update(grad, tx.init(params), params)[0]


def step_of(tx):
    params = params_of(START)
    return flat(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0])


def path_of(tx, steps=3):
    return three_domains.run(tx, steps)[0]


def assert_digits(found, expected, digits=10):
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.6 * 10.0**-digits)


EPS_OF_W = {
    "nuclear": (
        dj.ascend_nuclear(0.1),
        (-0.0829813761, -0.0548508777, 0.0085674698, 0.0056631169),
    ),
    "spectral": (
        dj.ascend_spectral(0.1),
        (-0.0886444931, -0.0462834079, -0.0462834079, 0.0886444931),
    ),
}


@pytest.mark.parametrize("name", EPS_OF_W)
def test_matrix_balls(name):
    tx, expected = EPS_OF_W[name]
    eps = displacement(tx, params_of(gradient(START)), params_of(START))
    assert_digits(eps["W"].ravel(), expected)
    bias = gradient(START)[4:]
    np.testing.assert_allclose(eps["b"], 0.1 * bias / np.linalg.norm(bias), rtol=1e-14)


GRADIENTS = {
    "nuclear": (
        dj.nuclear_sam(0.1),
        (-3.6156108, -2.32798538, 0.25903574, 0.40566312),
        8,
    ),
    "spectral": (
        dj.spectral_sam(0.1),
        (-3.63260015, -2.30799462, 0.09448311, 0.48864449),
        8,
    ),
    "le_sam, by the loss": (
        dj.le_sam(0.5, 0.1),
        (-3.435364803, -2.2349158845, 0.2380945903, 0.4027207183, 7.6530404027,
         -0.9481461328),
        10,
    ),
    "le_sam, at most": (
        dj.le_sam(2.0, 0.1),
        (-3.4844674457, -2.2598723431, 0.2414977438, 0.4046653774, 7.762427478,
         -0.9587337213),
        10,
    ),
    "cr_sam": (
        dj.cr_sam(0.1, 0.1, 0.01),
        (-3.4868234613, -2.26106979, 0.241661032, 0.4047586849, 7.7676760275,
         -0.9592417291),
        8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name):
    tx, expected, digits = GRADIENTS[name]
    assert_digits(step_of(tx)[: len(expected)], expected, digits)


def test_fisher_sams_eps():
    eps = displacement(dj.ascend_by_fisher(0.1, 0.2), params_of(gradient(START)))
    assert_digits(
        flat(eps),
        (-0.0304268392, -0.033005679, 0.0068149778, 0.0114438295, 0.0180765797,
         -0.0234680803),
    )  # fmt: skip


@pytest.mark.parametrize(
    "shape", [(), (5,), (1, 6), (6, 1), (4, 9), (9, 4), (3, 3, 2, 4), (2, 3, 5)], ids=str
)
@pytest.mark.parametrize("scale", [1e-120, 1.0, 1e100])
def test_a_leaf_is_the_matrix_of_its_last_axis_against_the_others(shape, scale):
    grad = np.asarray(RNG.normal(size=shape))
    u, _, vt = np.linalg.svd(grad.reshape(-1, shape[-1] if len(shape) > 1 else 1), False)
    given = jnp.asarray(scale * grad)
    top = 0.3 * np.outer(u[:, 0], vt[0]).reshape(shape)
    np.testing.assert_allclose(displacement(dj.ascend_nuclear(0.3), given), top, atol=1e-12)
    polar = 0.3 * (u @ vt).reshape(shape)
    found = displacement(dj.ascend_spectral(0.3), given)
    np.testing.assert_allclose(found, polar, atol=1e-12)


def test_equal_singular_values_and_rank_one(debug_nans):
    grad = jnp.diag(jnp.array([2.0, -2.0, 1.0]))
    eps = displacement(dj.ascend_nuclear(0.3), grad)
    assert jnp.sum(eps * grad) == pytest.approx(0.3 * 2.0, rel=1e-12)
    assert jnp.sum(jnp.linalg.svdvals(eps)) == pytest.approx(0.3, rel=1e-12)
    one = jnp.outer(jnp.arange(1.0, 4.0), jnp.array([2.0, -1.0]))
    expected = 0.3 * one / jnp.linalg.norm(one)
    for tx in (dj.ascend_nuclear(0.3), dj.ascend_spectral(0.3)):
        np.testing.assert_allclose(displacement(tx, one), expected, atol=1e-12)


@pytest.mark.parametrize(("shape", "rank"), [((256, 128), 1), ((64, 256), 4)])
def test_what_float32_leaves_of_zero_singular_values(shape, rank):
    """Rounding, some units of the last place, grows by the slope at 0 of all steps."""
    left, right = (np.linalg.qr(RNG.normal(size=(n, rank)))[0] for n in shape)
    grad = jnp.asarray(left @ right.T, jnp.float32)
    eps = displacement(dj.ascend_spectral(1.0), grad)
    grown = 3.4445**6 * (15 / 8) ** 4 * np.finfo(np.float32).eps
    assert np.linalg.norm(eps - left @ right.T) < 4 * grown < 0.01


def test_one_iteration_of_the_power_method_stays_in_the_ball():
    grad = jnp.asarray(RNG.normal(size=(8, 5)))
    eps = displacement(ascend_nuclear(0.3, iterations=1), grad)
    assert jnp.linalg.matrix_rank(eps) == 1
    assert jnp.linalg.norm(eps) == pytest.approx(0.3, rel=1e-12)
    assert 0 < jnp.sum(eps * grad) < 0.3 * jnp.linalg.svdvals(grad)[0]


ZERO = {
    "nuclear": dj.ascend_nuclear(0.1),
    "spectral": dj.ascend_spectral(0.1),
    "by loss": dj.ascend_by_loss(0.0, 0.1),
    "by fisher": dj.ascend_by_fisher(0.1),
    "outliers": optax.chain(dj.keep_outliers(), dj.ascend(0.1)),
}


@pytest.mark.parametrize("name", ZERO)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_zero_gradient_gives_zero(debug_nans, name, dtype):
    zeros = {"kernel": jnp.zeros((3, 4), dtype), "bias": jnp.zeros(4, dtype)}
    assert not any(leaf.any() for leaf in displacement(ZERO[name], zeros).values())


def test_the_radius_of_a_loss_may_be_a_schedule():
    grad = jnp.array([3.0, 4.0])
    tx = dj.ascend_by_loss(optax.cosine_decay_schedule(0.5, 2), 0.05)
    state, lengths = tx.init(grad), []
    for _ in range(3):
        eps, state = tx.update(grad, state, grad)
        lengths.append(float(jnp.linalg.norm(eps)))
    np.testing.assert_allclose(lengths, [0.05, 0.25 / 5, 0.0], atol=1e-12)


def test_without_its_numbers_each_is_sam():
    grad = {"kernel": jnp.asarray(RNG.normal(size=(3, 4))), "bias": jnp.arange(4.0)}
    expected = displacement(dj.ascend(0.3), grad)
    for tx in (
        dj.ascend_by_loss(1e9, 0.3),
        dj.ascend_by_fisher(0.3, 0.0),
    ):
        for name, found in displacement(tx, grad).items():
            np.testing.assert_allclose(found, expected[name], rtol=1e-12)
    found = step_of(dj.cr_sam(0.1, 0.0, 0.0))
    np.testing.assert_allclose(found, step_of(dj.sam(0.1)), rtol=1e-12)


def test_zsharp_is_rho_long_however_many_matrices_there_are():
    grad = {name: jnp.asarray(RNG.normal(size=(5, 8))) for name in "abcd"}
    grad["bias"] = jnp.asarray(RNG.normal(size=3))
    kept = {}
    for name, g in grad.items():
        z = (g - g.mean()) / g.std(ddof=1)
        kept[name] = np.where(np.abs(z) > np.quantile(np.abs(z), 0.9), g, 0)
    kept["bias"] = np.asarray(grad["bias"])
    length = np.sqrt(sum(np.sum(g**2) for g in kept.values()))
    eps = displacement(optax.chain(dj.keep_outliers(0.9), dj.ascend(0.1)), grad)
    for name, found in eps.items():
        np.testing.assert_allclose(found, 0.1 * kept[name] / length, atol=1e-15)
    # The authors' code: each matrix by itself, rho times the root of their number.
    assert optax.tree.norm(eps) == pytest.approx(0.1, rel=1e-12)
    same = jnp.full((2, 2), 3.0)
    np.testing.assert_allclose(displacement(dj.keep_outliers(), same), same)


# The authors' code in float64, neither noise nor drops; its first and its third step.
GENIES_FIRST = (0.1504999997, 0.2329999998, 0.3, 0.3940000004, 0.3875000005, 0.6139999998)
GENIES_THIRD = (0.2479421572, 0.2971965809, 0.2930560365, 0.3821397801, 0.1704258903,
                0.641234913)  # fmt: skip
# All its normal draws 1.
WITH_NOISE = (0.2479421569, 0.2971965806, 0.2650484275, 0.3821397801, 0.1704258879,
              0.6412349122)  # fmt: skip
# In that first step the third number stands still: its variance is 0 / 0, of which rounding
# makes infinity. Here it moves, and so goes another way; the others do not know of it.
STANDS = np.array([False, False, True, False, False, False])


def genie_by_hand(stands, rate=0.015, decay=0.95):
    """Three steps as the authors' code takes them, with what stands still in the first."""
    w, m, v, path = START, 0.0, 0.0, []
    for step in range(1, 4):
        g = gradient(w)
        m, v = decay * m + (1 - decay) * g, decay * v + (1 - decay) * g**2
        seen = 1 - decay**step
        r = (1 - decay) * (2 - seen) / (1 + decay) / seen
        mean = m / seen
        var = (v / seen - mean**2) / (1 - r) if step > 1 else np.zeros(6)
        var = np.where(var > 0, var, 1e-8)
        trust = np.tanh(np.minimum(1 / var, 10))
        moved = rate * mean * trust / (1 + r * var / (mean**2 + 1e-8))
        w = np.where(stands & (step == 1), w, w - moved)
        path.append(w)
    return path


def test_genie_is_the_authors_but_that_all_moves_in_the_first_step():
    path = path_of(optax.chain(dj.erm(), dj.genie(drop=0.0, noise=False)))
    for found, digits in ((path[0], GENIES_FIRST), (path[2], GENIES_THIRD)):
        np.testing.assert_allclose(found[~STANDS], np.array(digits)[~STANDS], atol=1e-9)
    np.testing.assert_allclose(path, genie_by_hand(~np.ones(6, bool)), rtol=1e-12)
    theirs = genie_by_hand(STANDS)
    np.testing.assert_allclose(theirs[0], GENIES_FIRST, atol=1e-9)
    np.testing.assert_allclose(theirs[2], GENIES_THIRD, atol=1e-9)


def test_genies_noise(monkeypatch):
    def ones(key, shape, dtype):
        return jnp.ones(shape, dtype)

    monkeypatch.setattr(jax.random, "normal", ones)
    path = path_of(optax.chain(dj.erm(), dj.genie(drop=0.0)))
    # A leaf's noise is as large as the mean of its numbers, that one among them.
    np.testing.assert_allclose(
        path[2][~STANDS], np.array(WITH_NOISE)[~STANDS], rtol=0, atol=1e-8
    )


def test_genies_rate_is_the_one_that_it_is_given():
    """The authors' code takes 0.015, whatever it is told."""
    paths = {rate: path_of(quiet_genie(rate), 1)[0] for rate in (0.015, 0.15)}
    moves = {rate: path - START for rate, path in paths.items()}
    np.testing.assert_allclose(moves[0.15], 10 * moves[0.015], rtol=1e-12)


def quiet_genie(rate):
    return optax.chain(dj.erm(), dj.genie(rate, drop=0.0, noise=False))


def test_genie_drops_with_the_probability_that_is_left_out():
    """Of 20 000 numbers a share of 0.3 stands still, within four standard deviations."""
    grads = jnp.ones(20_000)
    tx = dj.genie(0.1, drop=0.3, noise=False)
    moved, state = tx.update(grads, tx.init(grads))
    assert float(jnp.mean(moved == 0)) == pytest.approx(0.3, abs=4 * (0.21 / 20_000) ** 0.5)
    np.testing.assert_allclose(moved[moved != 0], -0.1 / 0.7, rtol=1e-6)
    again, _ = tx.update(grads, state)
    assert jnp.any((again == 0) != (moved == 0))


def test_weight_decay_that_stands_before_genie_is_the_authors():
    tx = optax.chain(
        dj.erm(), optax.add_decayed_weights(0.1), dj.genie(drop=0, noise=False)
    )
    found = path_of(tx, 1)[0]
    # |g| is above 0.1: the first step is SGD's but for 1e-8 / g**2.
    expected = START - 0.015 * (gradient(START) + 0.1 * START)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("noise", [False, True])
def test_genie_compiled_in_half_precision_and_of_zeros(debug_nans, noise):
    tx, params = (
        dj.genie(noise=noise),
        {"w": jnp.ones((2, 3), "bfloat16"), "z": jnp.ones(2) * 1j},
    )
    state, update = tx.init(params), jax.jit(tx.update)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):
        moved, new = update(zeros, state)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        state = new
        for name, leaf in moved.items():
            assert leaf.dtype == params[name].dtype
            assert not leaf.any()


POLYAK = {
    "sam": (
        dj.sam(0.1),
        0.2359581882,
        (0.9221886272, 0.7332353849, 0.2430166298, 0.3045158905, -1.3316083279,
         0.8262210724),
    ),
    "unnormalized": (dj.unnormalized_sam(0.1), 0.141972363, None),
}  # fmt: skip


@pytest.mark.parametrize("name", POLYAK)
def test_polyaks_step(name):
    """The authors' code takes its sums in float32: seven digits of theirs."""
    method, gamma, expected = POLYAK[name]
    params = params_of(START)
    tx = dj.polyak_step(method)
    update, state = tx.update(None, tx.init(params), params, loss_fn=loss_fn, record=True)
    seen, _ = dj.pop_evaluation(state)
    found = -flat(update) @ step_of(method) / seen.perturbed_gradient_norm**2
    assert found == pytest.approx(gamma, rel=3e-7)
    if expected is not None:
        assert jnp.mean(seen.perturbed_losses) == pytest.approx(19.443765653693, rel=1e-9)
        np.testing.assert_allclose(flat(update) + START, expected, rtol=1e-6)
        third = three_domains.run(tx, 3)[0]
        shift = third[2] - third[1]
        assert length_over(shift, method, third[1]) == pytest.approx(0.3650033, rel=3e-7)


def length_over(shift, method, w):
    """How many times the method's gradient at w the shift is."""
    params = params_of(w)
    grads = flat(method.update(None, method.init(params), params, loss_fn=loss_fn)[0])
    return -float(jnp.asarray(shift) @ grads / (grads @ grads))


def test_polyaks_step_knows_any_eps_and_any_weights():
    weights = jnp.array([0.5, 0.2, 0.3])
    tx = dj.asam(0.3)
    params = params_of(START)

    def step(tx):
        state = tx.init(params)
        found = tx.update(
            None, state, params, loss_fn=loss_fn, domain_weights=weights, record=True
        )
        return flat(found[0]), dj.pop_evaluation(found[1])[0]

    grads, seen = step(tx)
    clean = jax.grad(lambda p: weights @ loss_fn(p))(params)
    eps = flat(
        displacement(dj.ascend_adaptively(0.3, size=dj.each_weight(0.01)), clean, params)
    )
    there = weights @ loss_fn(params_of(START + eps))
    gamma = (there - 1.5 - grads @ eps) / (grads @ grads)
    assert 0 < gamma < 1
    update, _ = step(dj.polyak_step(tx, f_min=1.5))
    np.testing.assert_allclose(update, -gamma * grads, rtol=1e-12)
    assert seen.perturbed_rise == pytest.approx(float(grads @ eps), rel=1e-12)
    held, _ = step(dj.polyak_step(tx, max_learning_rate=0.01))
    np.testing.assert_allclose(held, -0.01 * grads, rtol=1e-12)
    least, _ = step(dj.polyak_step(tx, f_min=1e3))
    assert not least.any()


def test_polyaks_step_knows_any_objective_and_no_absent_domain():
    params = jnp.array([1.0, 2.0])
    tx = dj.polyak_step(dj.erm(descent=dj.vrex(1.0)))
    updates, _ = tx.update(None, tx.init(params), params, loss_fn=lambda w: w**2)
    # The mean 2.5 and the variance 2.25 of 1 and 4; slopes (1, 2) * (1 - 3, 1 + 3).
    grads = np.array([-2.0, 8.0])
    np.testing.assert_allclose(updates, -4.75 / 68 * grads, rtol=1e-12)
    tx = dj.polyak_step(dj.sam(0.0))
    updates, _ = tx.update(
        None, tx.init(params), params, domain_weights=jnp.array([1.0, 0.0]),
        loss_fn=lambda w: jnp.stack([w @ w, jnp.nan]),
    )  # fmt: skip
    np.testing.assert_allclose(updates, -5 / 20 * 2 * params, rtol=1e-12)


def test_the_bound_of_polyaks_step_follows_a_schedule():
    tx, params = dj.polyak_step(dj.erm(), lambda count: 0.01 * (count + 1)), jnp.ones(2)
    state = tx.init(params)
    for rate in (0.01, 0.02):
        updates, state = tx.update(None, state, params, loss_fn=lambda w: w @ w)
        np.testing.assert_allclose(updates, -rate * 2, rtol=1e-12)


def test_polyaks_step_of_a_chain_decays_the_weights_as_the_authors_do():
    params = params_of(START)
    plain = dj.polyak_step(dj.sam(0.1))
    decayed = dj.polyak_step(optax.chain(dj.sam(0.1), optax.add_decayed_weights(0.5)))
    found, without = (
        flat(tx.update(None, tx.init(params), params, loss_fn=loss_fn)[0])
        for tx in (decayed, plain)
    )
    np.testing.assert_allclose(found - without, -0.2359581882 * 0.5 * START, rtol=1e-6)


def test_polyaks_step_refuses_several_gradients():
    tx, params = dj.polyak_step(dj.per_micro_batch(dj.sam())), jnp.ones(2)
    batch = {
        "loss_fn": lambda w, x: jnp.sum((w - x) ** 2),
        "micro_batches": jnp.ones((3, 2)),
    }
    with pytest.raises(ValueError, match=r"recorded 3\. Put it within"):
        tx.update(None, tx.init(params), params, **batch)


def test_bsam():
    tx = dj.bsam(jnp.inf, 0.05, weight_decay=0.01, damping=0.1)
    path = path_of(optax.chain(tx, optax.sgd(0.1)))
    assert_digits(
        path[0],
        (0.1387066667, 0.2245466667, 0.2972866667, 0.39576, 0.4137, 0.6103622222),
    )
    assert_digits(
        path[2],
        (0.3100650559, 0.3344072087, 0.2852122819, 0.3764134464, 0.0342198354,
         0.6568355546),
    )  # fmt: skip


def test_bsams_noise_has_the_precision_that_s_says(monkeypatch):
    """Where all draws are 1, the gradient that is climbed is that at w + 1 / sqrt(N s)."""

    def ones(key, shape, dtype):
        return jnp.ones(shape, dtype)

    monkeypatch.setattr(jax.random, "normal", ones)
    tx = dj.bsam(25.0, 0.5, weight_decay=0.0, decay=(0.0, 0.9), first_precision=4.0)
    g = gradient(START + 0.1)
    np.testing.assert_allclose(step_of(tx), gradient(START + 0.5 * g / 4) / 4, rtol=1e-12)


def test_bsam_without_a_radius_is_a_step_by_the_precision():
    tx = dj.bsam(jnp.inf, 0.0, weight_decay=0.0, decay=(0.0, 0.9), first_precision=2.0)
    np.testing.assert_allclose(step_of(tx), gradient(START) / 2, rtol=1e-12)


def test_sassha():
    """Here the Hessian is diagonal, so that every probe is exact."""
    tx = dj.sassha(0.1, 2, decay=(0.8, 0.7), damping=0.2, power=0.75)
    path = path_of(optax.chain(tx, optax.sgd(0.05)), steps=4)
    w, mean = START, 0.0
    for t, found in enumerate(path):
        g = gradient(w)
        mean = 0.8 * mean + 0.2 * gradient(w + 0.1 * g / np.linalg.norm(g))
        m = mean / (1 - 0.8 ** (t + 1))
        w = w - 0.05 * m / (three_domains.CURVATURES.mean(0) ** 0.75 + 0.2)
        np.testing.assert_allclose(found, w, rtol=1e-12)


def test_sasshas_curvature_is_that_at_w_plus_eps_and_moves_once_in_a_period():
    """Of a sum of w**4 it is 12 * (w + eps)**2."""
    tx, params = dj.sassha(0.5, 2, decay=(0.0, 0.9), damping=0.0), jnp.array([1.0, -2.0])
    state, d = tx.init(params), 0.0
    for t in range(4):
        w = np.array([1.0, -2.0]) * (t + 1)
        grads, state = tx.update(None, state, w, loss_fn=lambda w: jnp.sum(w**4))
        there = w + 0.5 * w**3 / np.linalg.norm(w**3)
        if t % 2 == 0:
            d = 0.9 * d + 0.1 * 12 * there**2
        root = np.sqrt(d / (1 - 0.9 ** (t // 2 + 1)))
        np.testing.assert_allclose(grads, 4 * there**3 / root, rtol=1e-12)


def test_tilted_sam():
    tx = dj.tilted_sam(0.1, 0.5, 3, radius=1.0, seed=4)
    gradients, losses = [], []
    for key in jax.random.split(jax.random.fold_in(jax.random.key(4), 0), 3):
        noise = flat(trees.drawn_like(jax.random.normal, key, params_of(START)))
        noise = np.asarray(noise / max(1.0, np.linalg.norm(noise)))
        up = gradient(START + noise)
        there = START + noise + 0.1 * up / np.linalg.norm(up)
        gradients.append(gradient(there))
        losses.append(loss_fn(params_of(there)).mean())
    shares = np.exp(0.5 * np.array(losses)) / np.exp(0.5 * np.array(losses)).sum()
    assert shares.max() > 0.5  # the points differ
    np.testing.assert_allclose(step_of(tx), shares @ np.array(gradients), rtol=1e-12)


def test_the_tilt_of_losses_1_2_and_4():
    calls = []

    def loss(w):  # at w + n and at w + eps of each sample
        calls.append(1)
        sample = (len(calls) - 1) // 2
        return 2.0**sample * w[sample]

    tx, w = dj.tilted_sam(0.0, 0.5, radius=0.0), jnp.ones(3)
    grads, _ = tx.update(None, tx.init(w), w, loss_fn=loss)
    assert_digits(grads / jnp.array([1, 2, 4]), (0.1402443832, 0.2312238976, 0.6285317192))


def test_of_the_coming_batch_sampa_takes_the_gradient_ahead():
    """Its y sees `ascent_loss_fn`, and w + eps `loss_fn`, as in the authors' code."""
    tx, w = dj.sampa(0.1, 0.5, 0.25), jnp.array([3.0, 4.0])
    state = tx.init(w)
    for y, there in (([3.0, 4.0], [3.0, 4.0]), ([2.7, 3.6], [3.3, 4.4])):
        grads, state = tx.update(
            None, state, w, loss_fn=lambda w: w @ w, ascent_loss_fn=lambda w: w @ w / 2
        )
        expected = 0.75 * 2 * np.array(there) + 0.25 * np.array(y)
        np.testing.assert_allclose(grads, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dj.sampa(-0.1), "learning_rate must be finite and >= 0; got -0.1"),
        (lambda: dj.tilted_sam(tilt=-1.0), "tilt must be finite and >= 0; got -1.0"),
        (lambda: dj.tilted_sam(samples=0), "samples must be an integer >= 1; got 0"),
        (lambda: dj.sassha(period=0), "period must be an integer >= 1; got 0"),
        (
            lambda: dj.ascend_nuclear(0.1, iterations=0),
            "iterations must be an integer >= 1",
        ),
        (lambda: dj.ascend_by_loss(-1.0), "sigma must be finite and >= 0"),
        (lambda: dj.keep_outliers(2.0), "quantile must be finite .* <= 1; got 2.0"),
        (lambda: dj.genie(drop=1.0), "drop must be finite and >= 0 and < 1; got 1.0"),
        (lambda: dj.genie(decay=1.0), "decay must be finite and >= 0 and < 1; got 1.0"),
        (lambda: dj.sassha(decay=(1.0, 0.9)), "decay must be finite and >= 0 and < 1"),
        (lambda: dj.sassha(decay=(0.9, 1.0)), "decay must be finite and >= 0 and < 1"),
        (lambda: dj.bsam(0), "num_examples must be finite and > 0; got 0"),
        (lambda: dj.bsam(jnp.array(-1.0)), "num_examples must be finite and > 0"),
        (lambda: dj.bsam(9, first_precision=0.0), "first_precision must be finite"),
        (lambda: dj.polyak_step(dj.sam(), -1.0), "max_learning_rate must be finite"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_async_sam_climbs_the_clean_gradient_and_one_pass_the_perturbed_one():
    last = {
        name: path_of(optax.chain(tx, optax.sgd(0.05)))[2][-1]
        for name, tx in {
            "async": dj.async_sam(0.1),
            "one": dj.one_pass(dj.ascend(0.1)),
        }.items()
    }
    assert last["async"] == pytest.approx(0.726739091, abs=1e-9)
    assert last["one"] == pytest.approx(0.7267271794, abs=1e-10)
