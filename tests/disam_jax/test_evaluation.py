"""The record of a step is what `Evaluation` says, whatever is evaluated where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from tests.methods import CLIMB

W = jnp.array([3.0, 4.0])
CENTERS = jnp.array([[1.0, 0.0], [0.0, 2.0]])
RHO = 0.5


def loss_fn(w):
    return jnp.sum((w - CENTERS) ** 2, axis=1)


def ascent_loss_fn(w):
    return 10 * loss_fn(w) + 3


def perturbed_loss_fn(w):
    return 7 * loss_fn(w) + 1


def recorded(tx, steps=1, **arguments):
    state = tx.init(W)
    for _ in range(steps):
        _, state = tx.update(None, state, W, loss_fn=loss_fn, record=True, **arguments)
        evaluation, state = dj.pop_evaluation(state)
    return evaluation


def climbed(ascent, losses, points):
    """What eps is for SAM's radius and an ascent objective of these losses."""

    def objective(w):
        found = losses(w)
        return ascent(found, jnp.full_like(found, 0.5))

    grad = jax.grad(objective)(points)
    return RHO * grad / jnp.linalg.norm(grad)


@pytest.mark.parametrize("combine_with", ["ascent", "descent"])
@pytest.mark.parametrize("ascent", [dj.weighted_mean, CLIMB], ids=["mean", "variance"])
@pytest.mark.parametrize("given", ["neither", "ascent", "perturbed", "both"])
def test_losses_are_of_the_function_and_the_point_that_they_are_said_to_be(
    x64, given, ascent, combine_with
):
    arguments = {}
    if given in ("ascent", "both"):
        arguments["ascent_loss_fn"] = ascent_loss_fn
    if given in ("perturbed", "both"):
        arguments["perturbed_loss_fn"] = perturbed_loss_fn
    w = W.astype(jnp.float64)
    tx = dj.sharpness_aware(dj.ascend(RHO), ascent=ascent, combine_with=combine_with)
    _, state = tx.update(None, tx.init(w), w, loss_fn=loss_fn, record=True, **arguments)
    evaluation, _ = dj.pop_evaluation(state)

    climbs = arguments.get("ascent_loss_fn", loss_fn)
    descends = arguments.get("perturbed_loss_fn", loss_fn)
    eps = climbed(ascent, climbs, w)
    seen_at_w = combine_with == "descent" or climbs is loss_fn
    expected = {
        "losses": loss_fn(w) if seen_at_w else np.full(2, np.nan),
        "perturbed_losses": descends(w + eps),
        "ascent_losses": climbs(w),
        "ascent_weights": jax.grad(ascent)(climbs(w), jnp.full(2, 0.5)),
        "perturbation_norm": RHO,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(
            getattr(evaluation, name), value, rtol=1e-12, err_msg=name
        )


@pytest.mark.parametrize(
    "tx",
    [
        dj.bilateral_sam(RHO),
        dj.gam(RHO, RHO),
        dj.wsam(RHO),
        dj.stable_sam(RHO),
        dj.gradient_norm_penalty(RHO),
        dj.ae_sam(RHO),
    ],
    ids=["bilateral", "gam", "wsam", "stable", "penalty", "ae"],
)
def test_what_descends_its_own_gradient_at_w_knows_its_losses(tx):
    evaluation = recorded(tx, ascent_loss_fn=ascent_loss_fn)
    np.testing.assert_allclose(evaluation.losses, loss_fn(W), rtol=1e-6)
    np.testing.assert_allclose(evaluation.ascent_losses, ascent_loss_fn(W), rtol=1e-6)


def test_a_step_without_an_ascent_records_one_point():
    tx = dj.looksam(RHO, period=2)
    evaluation = recorded(tx, 2, ascent_loss_fn=ascent_loss_fn)
    for name in ("losses", "perturbed_losses", "ascent_losses"):
        np.testing.assert_allclose(getattr(evaluation, name), loss_fn(W), rtol=1e-6)
    assert evaluation.perturbation_norm == 0
    np.testing.assert_allclose(evaluation.ascent_weights, [0.5, 0.5])


UNSEEN = {
    "another ascent": (dj.sam(RHO), {"ascent_loss_fn": ascent_loss_fn}),
    "a rule climbed": (dj.sam(RHO, ascent=dj.and_mask()), {}),
    "a rule descended": (dj.erm(descent=dj.pcgrad()), {}),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_was_not_seen_is_no_fault(debug_nans, name):
    tx, options = UNSEEN[name]
    assert recorded(tx, **options).losses.shape == (2,)  # of a step that is not compiled
    options["loss_fn"] = loss_fn
    step = jax.jit(lambda state: tx.update(None, state, W, **options)[0])
    assert jnp.all(jnp.isfinite(step(tx.init(W))))


def test_what_a_micro_batch_did_not_see_is_no_fault(debug_nans):
    tx = dj.per_micro_batch(dj.sam(RHO))
    fns = (lambda w, x: jnp.sum((w - x) ** 2), lambda w, x: jnp.sum(w * x))
    options = dict(zip(("loss_fn", "ascent_loss_fn"), fns, strict=True))
    grads, _ = tx.update(None, tx.init(W), W, micro_batches=CENTERS, **options)
    assert jnp.all(jnp.isfinite(grads))


def test_a_cosine_is_at_most_1():
    """Of a gradient and itself rounding may make it more, as of some of these."""
    for w in np.random.default_rng(0).normal(size=(16, 7)).astype(np.float32):
        tx, params = dj.erm(), jnp.asarray(w)
        options = {"loss_fn": lambda w: jnp.sum(w**2), "record": True}
        _, state = tx.update(None, tx.init(params), params, **options)
        assert dj.pop_evaluation(state)[0].cosine <= 1
        assert dj.realized_perturbation(jnp.zeros(7), params, jnp.float32).cosine <= 1


def test_the_gradients_and_their_angle():
    w = W
    eps = climbed(dj.weighted_mean, ascent_loss_fn, w)
    evaluation = recorded(dj.sam(RHO), ascent_loss_fn=ascent_loss_fn)
    grads = [
        jax.grad(lambda w, f=f: jnp.mean(f(w)))(there)
        for f, there in ((ascent_loss_fn, w), (loss_fn, w + eps))
    ]
    norms = [np.linalg.norm(grad) for grad in grads]
    assert evaluation.gradient_norm == pytest.approx(norms[0], rel=1e-6)
    assert evaluation.perturbed_gradient_norm == pytest.approx(norms[1], rel=1e-6)
    cosine = np.dot(*grads) / (norms[0] * norms[1])
    assert evaluation.cosine == pytest.approx(cosine, rel=1e-5)
