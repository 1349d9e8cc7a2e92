"""Methods that take the domains one by one, as micro-batches, beside NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from tests import family
from tests.family import RATE, unit
from tests.problems import LAM, RHO, WEIGHTS, start, stream
from tests.steps import STEPS, by_domain, gradient, run

pytestmark = pytest.mark.usefixtures("x64")
CLIMB = dj.variance_penalized(LAM)


def dgsam_step(problem, w, order, rho=RHO):
    """The mean of the gradients met on the way, the losses there, and the last eps."""
    eps, met, losses = np.zeros(5), [], np.zeros(3)
    for i in [*order, order[0]]:
        if len(met) < len(order):
            losses[i] = problem.losses(w + eps)[i]
        met.append(problem.grads(w + eps)[i])
        last = eps
        eps = eps + rho * unit(met[-1])
    return sum(met) / len(met), losses, last


@pytest.mark.parametrize("absent", [None, 0, 2])
def test_dgsam_walks_from_domain_to_domain(absent):
    """Against a plain loop over the order that the method's seed and count give."""
    weights = np.ones(3)
    if absent is not None:
        weights[absent] = 0.0
    tx, batch = dj.dgsam(RHO, seed=7), by_domain(weights)
    path, evaluations = run(tx, jnp.asarray(start()), batch, record=True)
    w = start()
    for t, problem in enumerate(stream(STEPS)):
        key = jax.random.fold_in(jax.random.key(7), t)
        order = [i for i in np.asarray(jax.random.permutation(key, 3)) if i != absent]
        mean, losses, eps = dgsam_step(problem, w, order)
        w = w - RATE * mean
        np.testing.assert_allclose(path[t], w, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(evaluations[t].losses, losses, rtol=1e-10)
        norm = evaluations[t].perturbation_norm
        np.testing.assert_allclose(norm, np.linalg.norm(eps), rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_what_dgsam_saw_is_in_the_order_of_the_domains(seed):
    """Whatever the order of the visits."""
    tx, w, domains = dj.dgsam(RHO, seed=seed), jnp.zeros(()), jnp.arange(1.0, 6.0)
    _, state = tx.update(
        None,
        tx.init(w),
        w,
        loss_fn=lambda w, domain: (0 * w + domain, {"of": domain}),
        micro_batches=domains,
        has_aux=True,
        record=True,
    )
    seen, _ = dj.pop_evaluation(state)
    np.testing.assert_array_equal(seen.losses, domains)
    np.testing.assert_array_equal(seen.aux["of"], domains)


def test_dgsams_radius_follows_a_schedule():
    tx = dj.dgsam(lambda count: RHO / (count + 1))
    path, _ = run(tx, jnp.asarray(start()), by_domain(np.ones(3)))
    w = start()
    for t, problem in enumerate(stream(STEPS)):
        key = jax.random.fold_in(jax.random.key(0), t)
        order = np.asarray(jax.random.permutation(key, 3))
        mean, _, _ = dgsam_step(problem, w, order, RHO / (t + 1))
        w = w - RATE * mean
        np.testing.assert_allclose(path[t], w, rtol=1e-10, atol=1e-10)


def test_one_pass_by_domain_is_one_pass_of_the_whole_batch():
    """The domains' own gradients, weighed: against `last_gradient`, the NumPy loop."""
    tx = dj.one_pass_by_domain(dj.ascend(RHO), ascent=CLIMB)
    path, _ = run(tx, jnp.asarray(start()), by_domain(WEIGHTS))
    expected = family.last_gradient(stream(STEPS), start())
    np.testing.assert_allclose(path, expected, rtol=1e-10)


@pytest.mark.parametrize("tx", [dj.dgsam(), dj.one_pass_by_domain(dj.ascend())])
def test_pieces_are_asked_for(tx):
    with pytest.raises(ValueError, match="micro_batches is missing"):
        gradient(tx, jnp.ones(2), loss_fn=lambda w: w)


PIECES = {
    "dgsam": dj.dgsam(),
    "fish": dj.fish(),
    "pgrad": dj.pgrad(),
    "by domain": dj.one_pass_by_domain(dj.ascend()),
    "by micro-batch": dj.per_micro_batch(dj.sam()),
    "sam": dj.sam(),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (jnp.ones(()), r"must have .*; got \(\)"),
        (jnp.ones(2), r"must have .*; got \(2,\)"),
        (jnp.ones((1, 1)), r"must have .*; got \(1, 1\)"),
        (jnp.ones((3, 1)), r"must have .*; got \(3, 1\)"),
        (jnp.array([[1.0], [-1.0]]), r"must be finite and >= 0; got \[\[1.0\], \[-1.0\]\]"),
        (jnp.array([[1.0], [jnp.nan]]), "must be finite and >= 0; got"),
    ],
)
def test_weights_beside_pieces_are_looked_at(name, weights, words):
    options = {"micro_batches": jnp.ones((2, 2)), "domain_weights": weights}
    with pytest.raises(ValueError, match="domain_weights " + words):
        gradient(PIECES[name], jnp.ones(2), loss_fn=lambda w, x: w @ x, **options)


def test_a_piece_at_the_perturbed_point_is_of_the_perturbed_loss():
    """With micro-batches, `perturbed_loss_fn` is the loss at w + eps."""
    (problem,) = stream(1)
    options = by_domain(None)(problem)
    loss = options["loss_fn"]

    def thrice(w, micro_batch):
        return 3.0 * loss(w, micro_batch)

    tx, w = dj.one_pass_by_domain(dj.ascend(RHO)), jnp.asarray(start())
    plain = gradient(tx, w, **options)
    found = gradient(tx, w, **options, perturbed_loss_fn=thrice)
    np.testing.assert_allclose(found, 3.0 * plain, rtol=1e-12)
