import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from tests import reference
from tests.methods import COMPOSED, wants_micro_batches
from tests.methods import METHODS as REGISTERED
from tests.problems import (
    ALPHA,
    LAM,
    METHODS,
    RHO,
    WEIGHTS,
    loss_fn,
    start,
    stream,
    to_flat,
    to_tree,
)

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
PROBLEM = stream()[0]
ALL = {name: tx for name, (tx, _) in REGISTERED.items()} | COMPOSED


def gradient(tx, problem=PROBLEM, weights=WEIGHTS, w=None):
    params = to_tree(start() if w is None else w)
    updates, _ = tx.update(
        None, tx.init(params), params, loss_fn=loss_fn(problem), domain_weights=weights
    )
    return np.asarray(to_flat(updates))


def record(tx, problem=PROBLEM, weights=WEIGHTS):
    params = to_tree(start())
    _, state = tx.update(
        None,
        tx.init(params),
        params,
        loss_fn=loss_fn(problem),
        domain_weights=weights,
        record=True,
    )
    return dj.pop_evaluation(state)[0]


def assert_same(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# The formulas.


@every_method
@pytest.mark.parametrize("weights", [WEIGHTS, np.ones(3) / 3, np.array([0.7, 0.0, 0.3])])
def test_gradient_is_the_papers(x64, method, weights):
    assert_same(
        gradient(method.tx(), weights=weights), method.gradient(PROBLEM, start(), weights)
    )


@every_method
def test_both_doors_give_the_same_bits(method):
    params = to_tree(start())
    tx = method.tx()
    grad_fn = dj.value_and_grad(lambda p, problem: loss_fn(problem)(p), tx)
    (_, grads), _ = grad_fn(params, tx.init(params), PROBLEM, domain_weights=WEIGHTS)
    np.testing.assert_array_equal(to_flat(grads), gradient(tx))


def test_erm_is_the_weighted_gradient(x64):
    expected = sum(a * g for a, g in zip(WEIGHTS, PROBLEM.grads(start()), strict=True))
    assert_same(gradient(dj.erm()), expected)


def test_vrex_descends_the_mean_plus_the_variance(x64):
    w, beta = start(), 0.8
    losses, grads = PROBLEM.losses(w), PROBLEM.grads(w)
    mean = sum(losses) / 3
    expected = sum(
        (a + 2 * beta / 3 * (x - mean)) * g
        for a, x, g in zip(WEIGHTS, losses, grads, strict=True)
    )
    assert_same(gradient(dj.erm(descent=dj.vrex(beta))), expected)


# Limit cases.


def test_disam_with_lam_zero_is_sam(x64):
    assert_same(gradient(dj.disam(RHO, 0.0)), gradient(dj.sam(RHO)))


@pytest.mark.parametrize("combine_with", ["ascent", "descent"])
@pytest.mark.parametrize("factory", [dj.sagm, dj.gsam])
def test_combinations_with_lam_zero_are_the_plain_methods(x64, factory, combine_with):
    combined = factory(
        RHO, ALPHA, ascent=dj.variance_penalized(0.0), combine_with=combine_with
    )
    assert_same(gradient(combined), gradient(factory(RHO, ALPHA)))


@pytest.mark.parametrize("variance", ["uniform", "count_weighted"])
def test_disam_of_one_domain_is_sam(x64, variance):
    one = reference.Quadratics.random(0, num_domains=1)
    weights = np.ones(1)
    disam = dj.disam(RHO, LAM, variance=variance)
    assert_same(gradient(disam, one, weights), gradient(dj.sam(RHO), one, weights))


def test_disam_of_equal_losses_is_sam(x64):
    same = reference.Quadratics.random(0, num_domains=1)
    equal = reference.Quadratics(
        *(np.repeat(x, 3, 0) for x in (same.hessians, same.centers))
    )
    assert_same(gradient(dj.disam(RHO, LAM), equal), gradient(dj.sam(RHO), equal))


def test_a_scalar_loss_is_one_domain(x64):
    params = to_tree(start())
    tx = dj.disam(RHO, LAM)

    def scalar(p):
        return loss_fn(PROBLEM)(p)[0]

    updates, _ = tx.update(None, tx.init(params), params, loss_fn=scalar)
    one = reference.Quadratics(PROBLEM.hessians[:1], PROBLEM.centers[:1])
    assert_same(to_flat(updates), gradient(dj.sam(RHO), one, np.ones(1)))


@every_method
def test_rho_and_alpha_zero_is_the_base_step(x64, method):
    zeros = {name: 0.0 for name in method.hyperparameters if name != "lam"}
    erm = gradient(dj.erm())
    listing = "lam" in method.hyperparameters and not method.reference.get("pure")
    if method.kind == "sagm" and listing:  # half of the ascent gradient is descended
        variance = method.reference.get("variance", "uniform")
        ascent = dj.variance_penalized(LAM, variance)
        erm = (erm + gradient(dj.erm(descent=ascent))) / 2
    assert_same(gradient(method.tx(**zeros)), erm)


def test_gsam_with_alpha_zero_is_sam(x64):
    assert_same(gradient(dj.gsam(RHO, 0.0)), gradient(dj.sam(RHO)))


def test_uniform_and_count_weighted_agree_for_equal_weights(x64):
    weights = np.ones(3) / 3
    assert_same(
        gradient(dj.disam(RHO, LAM), weights=weights),
        gradient(dj.disam(RHO, LAM, variance="count_weighted"), weights=weights),
    )


@every_method
def test_relabelled_domains_change_nothing(x64, method):
    order = np.array([2, 0, 1])
    relabelled = reference.Quadratics(PROBLEM.hessians[order], PROBLEM.centers[order])
    assert_same(gradient(method.tx(), relabelled, WEIGHTS[order]), gradient(method.tx()))


@every_method
def test_an_absent_domain_changes_nothing_even_when_its_loss_overflows(x64, method):
    present = reference.Quadratics(PROBLEM.hessians[:2], PROBLEM.centers[:2])
    broken = reference.Quadratics(
        PROBLEM.hessians, np.concatenate([PROBLEM.centers[:2], np.full((1, 5), 1e300)])
    )
    assert_same(
        gradient(method.tx(), broken, np.array([0.6, 0.4, 0.0])),
        gradient(method.tx(), present, np.array([0.6, 0.4])),
    )


def test_weights_are_scaled_to_sum_one(x64):
    tx = dj.disam(RHO, LAM)
    assert_same(gradient(tx, weights=np.array([5.0, 3.0, 2.0])), gradient(tx))
    assert_same(gradient(tx, weights=None), gradient(tx, weights=np.ones(3) / 3))
    assert not gradient(tx, weights=np.zeros(3)).any()


@every_method
def test_every_hyperparameter_changes_the_gradient(x64, method):
    for name, value in method.hyperparameters.items():
        changed = gradient(method.tx(**{name: 2 * value}))
        assert np.abs(changed - gradient(method.tx())).max() > 1e-4, name


def test_every_choice_changes_the_gradient(x64):
    choices = [
        dj.sam(RHO),
        dj.sam(RHO, adaptive=True),
        dj.sam(RHO, mask={"a": True, "b": False}),
        dj.sam(RHO, descent=dj.vrex(1.0)),
        dj.gsam(RHO, ALPHA),
        dj.sagm(RHO, ALPHA),
        dj.disam(RHO, LAM),
        dj.disam(RHO, LAM, variance="count_weighted"),
        dj.sagm(RHO, ALPHA, ascent=dj.variance_penalized(LAM)),
        dj.sagm(RHO, ALPHA, ascent=dj.variance_penalized(LAM), combine_with="descent"),
        dj.erm(),
    ]
    gradients = [gradient(tx) for tx in choices]
    for i, a in enumerate(gradients):
        for b in gradients[:i]:
            assert np.abs(a - b).max() > 1e-6


# Edges.


@every_method
def test_zero_gradient_gives_zero_and_no_nan(debug_nans, method):
    problem = reference.Quadratics(PROBLEM.hessians, np.repeat(start()[None], 3, 0))
    evaluation = record(method.tx(), problem)
    assert not gradient(method.tx(), problem).any()
    assert evaluation.perturbation_norm == 0
    assert evaluation.cosine == 0


def test_the_step_can_be_differentiated(x64):
    def final_loss(rho):
        params = to_tree(start())
        tx = dj.disam(rho, LAM)
        updates, _ = tx.update(None, tx.init(params), params, loss_fn=loss_fn(PROBLEM))
        moved = optax.apply_updates(params, optax.tree.scale(-0.1, updates))
        return jnp.sum(loss_fn(PROBLEM)(moved))

    h = 1e-5
    slope = (final_loss(RHO + h) - final_loss(RHO - h)) / (2 * h)
    assert_same(jax.grad(final_loss)(RHO), slope, 1e-7)


def test_any_optax_transformation_is_a_perturbation(x64):
    tx = dj.sharpness_aware(optax.scale(0.1))  # unnormalized SAM
    w = start()
    g = sum(a * g for a, g in zip(WEIGHTS, PROBLEM.grads(w), strict=True))
    expected = sum(a * g for a, g in zip(WEIGHTS, PROBLEM.grads(w + 0.1 * g), strict=True))
    assert_same(gradient(tx), expected)


# What is reported.


@every_method
def test_evaluation_is_what_the_step_saw(x64, method):
    w, seen = start(), record(method.tx())
    arguments = {**method.hyperparameters, **method.reference}
    _, eps = reference.gradient(PROBLEM, w, WEIGHTS, method.kind, **arguments)
    lam, variance = arguments.get("lam", 0.0), arguments.get("variance", "uniform")
    beta = reference.disam_weights(PROBLEM.losses(w), WEIGHTS, lam, variance)
    at_w, at_eps = PROBLEM.grads(w), PROBLEM.grads(w + eps)
    clean_weights = WEIGHTS if arguments.get("pure") else beta
    clean = sum(b * g for b, g in zip(clean_weights, at_w, strict=True))
    perturbed = sum(a * g for a, g in zip(WEIGHTS, at_eps, strict=True))
    assert_same(seen.losses, PROBLEM.losses(w))
    assert_same(seen.perturbed_losses, PROBLEM.losses(w + eps))
    assert_same(seen.ascent_weights, beta)
    assert_same(seen.perturbation_norm, np.linalg.norm(eps))
    assert_same(seen.gradient_norm, np.linalg.norm(clean))
    assert_same(seen.perturbed_gradient_norm, np.linalg.norm(perturbed))
    cosine = clean @ perturbed / np.linalg.norm(clean) / np.linalg.norm(perturbed)
    assert_same(seen.cosine, cosine)
    assert seen.aux is None


def test_evaluation_of_erm_has_no_perturbation():
    seen = record(dj.erm())
    np.testing.assert_array_equal(seen.losses, seen.perturbed_losses)
    assert seen.perturbation_norm == 0
    np.testing.assert_allclose(seen.cosine, 1.0, rtol=1e-6)


@every_method
def test_aux_is_that_of_the_pass_at_w(method):
    params = to_tree(start())

    def with_aux(p):
        return loss_fn(PROBLEM)(p), to_flat(p)

    tx = method.tx()
    _, state = tx.update(
        None, tx.init(params), params, loss_fn=with_aux, has_aux=True, record=True
    )
    np.testing.assert_array_equal(dj.pop_evaluation(state)[0].aux, to_flat(params))


def test_pop_finds_the_evaluation_deep_inside_and_restores_the_tree():
    params = to_tree(start())
    injected = optax.inject_hyperparams(dj.disam)(0.1, 0.2)
    tx = optax.chain(optax.chain(injected, optax.identity()), optax.adam(1e-3))
    before = tx.init(params)
    _, state = tx.update(None, before, params, loss_fn=loss_fn(PROBLEM), record=True)
    assert jax.tree.structure(state) != jax.tree.structure(before)
    evaluation, state = dj.pop_evaluation(state)
    assert evaluation.losses.shape == (3,)
    assert jax.tree.structure(state) == jax.tree.structure(before)
    with pytest.raises(ValueError, match="must hold one evaluation; found 0"):
        dj.pop_evaluation(state)


def test_value_and_grad_takes_a_chain_and_keyword_arguments():
    params = to_tree(start())
    tx = optax.chain(dj.sam(RHO), optax.clip_by_global_norm(1e-3))

    def scaled(p, *, scale):
        return scale * loss_fn(PROBLEM)(p)

    (evaluation, grads), _ = dj.value_and_grad(scaled, tx)(
        params, tx.init(params), scale=2.0
    )
    np.testing.assert_allclose(np.linalg.norm(to_flat(grads)), 1e-3, rtol=1e-5)
    np.testing.assert_allclose(evaluation.losses, 2 * loss_fn(PROBLEM)(params), rtol=1e-6)


# Errors.


def update(tx=None, **arguments):
    tx = dj.sam(0.1) if tx is None else tx
    params = to_tree(start())
    return tx.update(None, tx.init(params), params, **arguments)


def test_missing_loss_fn():
    with pytest.raises(ValueError, match=r"loss_fn is missing.*value_and_grad"):
        update()


def test_missing_params():
    tx = dj.sam(0.1)
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(None, tx.init(1.0), loss_fn=lambda p: p)


@pytest.mark.parametrize("shape", [(3, 2), (1, 1)])
def test_losses_must_be_a_scalar_or_a_vector(shape):
    with pytest.raises(
        ValueError, match=rf"scalar or vector of domain losses; got float32\[{shape[0]}, "
    ):
        update(loss_fn=lambda p: p["a"][0] * jnp.ones(shape))


def test_there_must_be_a_domain():
    with pytest.raises(ValueError, match=r"got float32\[0\]\. .* of one at least"):
        update(loss_fn=lambda p: p["a"][0] * jnp.ones(0))


def test_losses_must_be_floats():
    with pytest.raises(ValueError, match="got int32"):
        update(loss_fn=lambda p: jnp.ones(3, jnp.int32))


@pytest.mark.parametrize("weights", [np.ones(2) / 2, np.ones((3, 1)), 1.0])
def test_weights_of_another_length(weights):
    with pytest.raises(ValueError, match=r"one entry per domain loss, shape \(3,\); got"):
        update(loss_fn=loss_fn(PROBLEM), domain_weights=weights)


@pytest.mark.parametrize("weights", [[0.5, 0.6, -0.1], [0.5, np.nan, 0.5]])
def test_impossible_weights(weights):
    with pytest.raises(ValueError, match="domain_weights must be finite and >= 0; got"):
        update(loss_fn=loss_fn(PROBLEM), domain_weights=np.array(weights))


def test_aux_must_be_announced():
    with pytest.raises(TypeError, match="losses alone with has_aux=False; got tuple"):
        update(loss_fn=lambda p: (p["a"][0], 1))
    with pytest.raises(TypeError, match=r"a pair \(losses, aux\) with has_aux=True; got"):
        update(loss_fn=lambda p: p["a"][0], has_aux=True)


def test_unknown_combine_with():
    with pytest.raises(ValueError, match="'ascent' or 'descent'; got 'clean'"):
        dj.sharpness_aware(dj.ascend(0.1), combine_with="clean")


def test_value_and_grad_of_another_optimizer():
    with pytest.raises(ValueError, match="must be a method of this package"):
        dj.value_and_grad(lambda p: p, optax.sgd(0.1))


@every_method
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_needs_no_implicit_promotion(method, dtype):
    params = to_tree(start(), dtype)
    tx = method.tx()

    def losses(p):
        return jnp.stack([jnp.sum(to_flat(p) * scale) for scale in (1.0, 2.0, 3.0)])

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        updates, _ = tx.update(None, tx.init(params), params, loss_fn=losses, record=True)
    assert jnp.isfinite(to_flat(updates)).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("dtype", "x64"),
    [("float32", False), ("bfloat16", False), ("float32", True), ("float64", True)],
)
def test_no_method_needs_implicit_promotion(name, dtype, x64):
    tx = ALL[name]

    def losses(p, scale=1.0):
        return scale * jnp.sum(p["kernel"] ** 2) + jnp.sum(p["norm"])

    options = {"loss_fn": losses, "record": True}
    with (
        jax.enable_x64(x64),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        params = {"kernel": jnp.ones((2, 2), dtype), "norm": jnp.ones(1, dtype)}
        if wants_micro_batches(name):
            weights = jnp.ones((3, 1), jnp.int32)  # counts
            options |= {"micro_batches": jnp.ones(3, dtype), "domain_weights": weights}
        updates, _ = jax.eval_shape(
            lambda state: tx.update(None, state, params, **options), tx.init(params)
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_genie_needs_no_implicit_promotion(dtype):
    tx = dj.genie(0.1)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        params = {"kernel": jnp.ones((2, 2), dtype)}
        step = jax.eval_shape(tx.update, params, tx.init(params))[0]
    assert step["kernel"].dtype == dtype
