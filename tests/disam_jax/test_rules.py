"""Rules from the domains' gradients, against vectors of DomainBed's code and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from disam_jax import testing
from tests.three_domains import (
    CENTERS,
    CURVATURES,
    START,
    first_gradient,
    flat,
    loss_fn,
    params_of,
)

RULES = {
    "and": dj.and_mask(),
    "and, a third": dj.and_mask(0.3),
    "sand": dj.sand_mask(0.2, 1.0),
    "sum": dj.agreement_sum(),
    "pcgrad": dj.pcgrad(),
    "noise": dj.alignment_noise(0.1),
}


REST = (1.3393480538, 13.4689853269, -0.1905262678)
# float64, DomainBed's `ANDMask` and `SANDMask`, DGvGS's Agr-Sum: to the digits printed.
RECORDED = [
    (dj.and_mask(1.0), (0, 0, 0, 0, 15, 0), 1e-8),
    (dj.and_mask(0.3), (-101 / 30, -2.2, 7 / 30, 0.4, 7.5, -14 / 15), 1e-8),
    (dj.sand_mask(0.5, 10.0), (0, 0, 0, 0, 14.9999999955, 0), 1e-8),
    (
        dj.sand_mask(0.2, 1.0),
        (-0.7295276216, -0.6785391259, 0.029519375, *REST),
        1e-8,
    ),
    (dj.agreement_sum(), (0, 0, 0, 0, 22.5, 0), 1e-8),
]


@pytest.mark.parametrize(("rule", "expected", "tolerance"), RECORDED)
def test_masks_are_those_of_the_authors(x64, rule, expected, tolerance):
    found = first_gradient(dj.erm(descent=rule))
    # Theirs add 1e-10 to the mean of a mask that is 1/2: 1.5e-9 of 15.
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_pcgrad_takes_conflicts_away(x64):
    lines = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
    tx, params = dj.erm(descent=dj.pcgrad()), jnp.zeros(2)
    found, _ = tx.update(None, tx.init(params), params, loss_fn=lambda w: lines @ w)
    np.testing.assert_allclose(found, [0.5, 1.5], rtol=1e-12)


def test_pcgrad_by_products_is_the_published_loop(x64):
    gradients = jax.jacobian(lambda w: -loss_fn(w))(params_of(START))
    rule = dj.pcgrad(seed=3).at(5)
    key = jax.random.fold_in(jax.random.key(3), 5)
    order = np.argsort(jax.random.uniform(key, (3,)))
    rows = np.array(flat(gradients))
    rows[2] = -rows[2]  # so that it conflicts
    gradients = {"W": jnp.asarray(rows[:, :4].reshape(3, 2, 2)), "b": rows[:, 4:]}
    changed = rows.copy()
    for i in range(3):
        for j in np.asarray(order):
            along = changed[i] @ rows[j]
            if i != j and along < 0:
                changed[i] -= along / (rows[j] @ rows[j]) * rows[j]
    found = flat(rule.make(gradients, jnp.ones(3) / 3))
    assert not np.allclose(changed.sum(0), rows.sum(0))
    np.testing.assert_allclose(found, changed.sum(0), rtol=1e-10)


def test_alignment_noise_is_uniform_and_as_large_as_the_disagreement(x64):
    # alpha = 0.001 (1 - mean cosine) as GGA's code has it; its noise is Gaussian.
    plain = first_gradient(dj.erm())
    gradients = jax.jacobian(loss_fn)(params_of(START))
    found = many_draws(gradients) - plain[None]
    alpha = 0.00060213433996
    assert np.abs(found).max() <= alpha * (1 + 1e-8)
    # A uniform number's standard deviation is 1 / sqrt(3); 24,576 draws know it to 0.3 %.
    assert found.std() == pytest.approx(alpha / 3**0.5, rel=0.02)


def test_the_noise_follows_a_schedule(x64):
    noise = dj.alignment_noise(lambda count: 0.1 * count)
    gradients, weights = jax.jacobian(loss_fn)(params_of(START)), jnp.ones(3) / 3
    for count, gamma in ((0, 0.0), (3, 0.3)):
        found = noise.at(count).make(gradients, weights)
        expected = dj.alignment_noise(gamma).at(count).make(gradients, weights)
        np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-12)


def many_draws(gradients):
    weights = jnp.ones(3) / 3
    at = dj.alignment_noise(1e-3).at
    draws = jax.vmap(lambda count: at(count).make(gradients, weights))(jnp.arange(4096))
    return flat(draws)


@pytest.mark.parametrize("name", RULES)
def test_from_pieces_as_from_the_losses(x64, name):
    """One gradient of the batch in place of M: the domains are the micro-batches."""
    tx = dj.sam(0.1, ascent=RULES[name], descent=RULES[name])
    whole = first_gradient(tx, domain_weights=jnp.array([3.0, 1.0, 2.0]))
    pieces = first_gradient(
        tx,
        lambda w, domain: loss_fn(w)[domain],
        micro_batches=jnp.arange(3),
        domain_weights=jnp.array([[3.0], [1.0], [2.0]]),
    )
    np.testing.assert_allclose(pieces, whole, rtol=1e-12)


OBJECTIVES = {
    "disam": {"ascent": dj.variance_penalized(0.3), "descent": dj.and_mask(0.3)},
    "vrex": {"ascent": dj.agreement_sum(), "descent": dj.vrex(0.2)},
    "dro": {"ascent": dj.group_dro(0.1), "descent": dj.sand_mask(0.2, 1.0)},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_beside_a_rule_sees_the_same_domains(x64, name):
    tx = dj.sharpness_aware(dj.ascend(0.1), **OBJECTIVES[name])
    whole = first_gradient(tx)
    pieces = first_gradient(
        tx, lambda w, domain: loss_fn(w)[domain], micro_batches=jnp.arange(3)
    )
    np.testing.assert_allclose(pieces, whole, rtol=1e-12)
    plain = first_gradient(dj.sharpness_aware(dj.ascend(0.1)))
    assert not np.allclose(whole, plain, rtol=1e-3)


def test_pieces_cost_one_gradient_of_the_batch():
    tx = dj.erm(descent=dj.and_mask())
    assert testing.count_evaluations(tx, 2, micro_batches=True) == 1.0


@pytest.mark.parametrize("name", RULES)
def test_micro_batches_of_all_domains_are_the_whole_batch(x64, name):
    parts = jnp.stack([CENTERS, CENTERS + 0.5])  # [K, M, 6]

    def of(minima):
        return lambda w: jnp.sum(CURVATURES * (flat(w) - minima) ** 2, axis=1) / 2

    tx = dj.sam(0.1, descent=RULES[name])
    whole = first_gradient(tx, lambda w: (of(parts[0])(w) + of(parts[1])(w)) / 2)
    split = first_gradient(tx, lambda w, minima: of(minima)(w), micro_batches=parts)
    np.testing.assert_allclose(split, whole, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", RULES)
def test_an_absent_domain_takes_no_part(x64, name):
    def two(w):
        return loss_fn(w)[:2]

    def three(w):
        return loss_fn(w).at[2].multiply(100.0)

    tx = dj.sam(0.1, ascent=RULES[name], descent=RULES[name])
    alone = first_gradient(tx, two)
    beside = first_gradient(tx, three, domain_weights=jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(beside, alone, rtol=1e-12)


@pytest.mark.parametrize("name", ["and", "sand", "sum", "pcgrad"])
def test_where_all_domains_agree_nothing_is_changed(x64, name):
    same = jnp.zeros(3)
    tx = dj.erm(descent=RULES[name])
    found = first_gradient(tx, lambda w: loss_fn(w)[0] + same)
    scale = 3 if name in ("sum", "pcgrad") else 1  # those of a sum
    np.testing.assert_allclose(
        found, scale * first_gradient(dj.erm(), one_domain), rtol=1e-12
    )


def one_domain(w):
    return loss_fn(w)[:1]


@pytest.mark.parametrize("name", RULES)
def test_no_gradient_is_no_gradient(name):
    tx = dj.sam(0.1, ascent=RULES[name], descent=RULES[name])
    found = first_gradient(tx, lambda w: 0.0 * loss_fn(w))
    bound = 0.1 if name == "noise" else 0.0  # without a gradient there is no alignment
    assert np.abs(found).max() <= bound


def test_disam_of_a_rule_has_weights_that_nobody_can_tell():
    tx = dj.sam(0.1, ascent=dj.and_mask())
    options = {"loss_fn": loss_fn, "record": True}
    _, state = tx.update(None, tx.init(params_of(START)), params_of(START), **options)
    evaluation, _ = dj.pop_evaluation(state)
    assert np.isnan(evaluation.ascent_weights).all()
    assert np.isfinite(evaluation.losses).all()
    assert evaluation.perturbation_norm == pytest.approx(0.1)


@pytest.mark.parametrize("num", [3, 41, 49, 61])
@pytest.mark.parametrize("enabled", [False, True])
def test_all_that_agree_agree_however_many_they_are(num, enabled):
    """Compiled, division by 41 is a product with 1 / 41, and 41 of those are below 1."""
    with jax.enable_x64(enabled):
        lines = jnp.stack([jnp.ones(num), jnp.ones(num).at[0].set(-1.0)], axis=1)
        for rule, factor in ((dj.and_mask(), 2.0), (dj.agreement_sum(), num)):
            tx, params = dj.erm(descent=rule), jnp.zeros(2)
            update = jax.jit(lambda w, tx=tx: tx.update(
                None, tx.init(w), w, loss_fn=lambda w: lines @ w)[0])  # fmt: skip
            np.testing.assert_allclose(update(params), [factor, 0.0], rtol=1e-6)
        # A share that is met to the last digit is met, from a float32 schedule too.
        share = (num - 2) / num
        for tau in (share, lambda count: jnp.float32(share)):
            tx = dj.erm(descent=dj.and_mask(tau))
            found, _ = tx.update(None, tx.init(params), params, loss_fn=lambda w: lines @ w)
            np.testing.assert_allclose(found, [1.0, share], rtol=1e-6)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_masks_refuse_a_share_that_is_none(wrong):
    with pytest.raises(ValueError, match="tau must be finite"):
        dj.and_mask(wrong)


def test_sand_mask_refuses_the_default_that_is_zero_everywhere(x64):
    for one in (1.0, 1, np.float32(1.0), jnp.array(1.0)):
        with pytest.raises(ValueError, match="tau must be < 1; got 1"):
            dj.sand_mask(one)
    with pytest.raises(ValueError, match="k must be finite and > 0; got 0"):
        dj.sand_mask(0.5, 0.0)
    # With DomainBed's default every gradient is exactly zero; a schedule may pass there.
    found = first_gradient(dj.erm(descent=dj.sand_mask(lambda count: 1.0)))
    np.testing.assert_array_equal(found, 0.0)


def test_a_rule_is_no_objective_of_losses():
    with pytest.raises(TypeError, match="a rule makes a gradient"):
        dj.agreement_sum()(jnp.ones(2), jnp.ones(2))


@pytest.mark.parametrize(
    ("descent", "most"),
    [(dj.and_mask(), 1.1), (dj.pcgrad(), 1.1), (dj.sand_mask(), 1.1), ("group_dro", 1.01)],
)
def test_from_pieces_they_cost_an_erm_step(optimized, descent, most):
    inputs = jnp.ones((3, 64, 128))
    params = {"first": jnp.ones((128, 128)), "second": jnp.ones((128, 8))}

    def of_domain(params, inputs):
        return jnp.mean((jnp.tanh(inputs @ params["first"]) @ params["second"]) ** 2)

    def flops(tx, pieces):
        loss_fn = of_domain if pieces else dj.vmap_domains(of_domain)
        given = {"micro_batches": inputs, "unroll": 3} if pieces else {}
        bound = loss_fn if pieces else lambda params: loss_fn(params, inputs)
        step = jax.jit(lambda p, s: tx.update(None, s, p, loss_fn=bound, **given))
        compiled = step.lower(params, tx.init(params)).compile()
        return compiled.cost_analysis()["flops"]

    pieces = descent != "group_dro"
    tx = dj.erm(descent=descent if pieces else dj.group_dro())
    assert flops(tx, pieces) <= most * flops(dj.erm(), False)
