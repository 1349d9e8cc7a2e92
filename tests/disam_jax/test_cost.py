"""What a step computes, counted: never measured with a clock."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj

pytestmark = pytest.mark.usefixtures("optimized")
BATCH, WIDTH, DOMAINS = 256, 128, 4


def problem():
    rng = np.random.default_rng(0)
    sizes = [WIDTH] * 5 + [10]
    params = [
        jnp.asarray(rng.normal(size=(i, o)) / i**0.5, jnp.float32)
        for i, o in itertools.pairwise(sizes)
    ]
    return params, jnp.asarray(rng.normal(size=(BATCH, WIDTH)), jnp.float32)


def loss_fn(params, x):
    for kernel in params[:-1]:
        x = jax.nn.relu(x @ kernel)
    example_losses = jnp.sum((x @ params[-1]) ** 2, axis=1)
    return example_losses.reshape(DOMAINS, -1).mean(1)


ERM, SAM, DISAM = dj.erm(), dj.sam(), dj.disam()


@functools.cache
def flops(tx):
    tx = optax.chain(tx, optax.sgd(0.1))
    params, x = problem()

    @jax.jit
    def step(params, state, x):
        updates, state = tx.update(None, state, params, loss_fn=lambda p: loss_fn(p, x))
        return optax.apply_updates(params, updates), state

    analysis = step.lower(params, tx.init(params), x).compile().cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def disam_sagm(combine_with):
    return dj.sagm(ascent=dj.variance_penalized(0.1), combine_with=combine_with)


@pytest.mark.parametrize(
    ("tx", "bound"),
    [
        (SAM, 2.02),
        (dj.sagm(), 2.02),
        (DISAM, 2.02),
        (dj.gsam(0.05, 0.2), 2.05),
        (dj.sagm(combine_with="descent"), 2.02),
        (disam_sagm("ascent"), 2.02),
        (disam_sagm("descent"), 2.75),  # one more backward pass, no more forward
        (dj.nuclear_sam(), 2.02),  # of which a power iteration, counted once
        (dj.le_sam(), 2.02),
        (dj.fisher_sam(), 2.02),
        (dj.zsharp(), 2.03),
        (dj.sampa(0.1), 2.03),
        (dj.bsam(1e4), 2.08),  # of which the noise
    ],
    ids=[
        "sam", "sagm", "disam", "gsam", "sagm-pure", "disam+sagm", "disam+sagm-pure",
        "nuclear_sam", "le_sam", "fisher_sam", "zsharp", "sampa", "bsam",
    ],
)  # fmt: skip
def test_compiled_operations_are_two_gradients(tx, bound):
    assert 1.95 < flops(tx) / flops(ERM) <= bound


@pytest.mark.parametrize(
    ("tx", "like", "bound"),
    [
        (dj.cr_sam(), SAM, 1.51),
        (dj.polyak_step(SAM), SAM, 1.01),
        (optax.chain(ERM, dj.genie(drop=0.0, noise=False)), ERM, 1.02),
    ],
    ids=["cr_sam", "polyak_step", "genie"],
)
def test_compiled_operations_beside_what_it_stands_on(tx, like, bound):
    assert 1.0 <= flops(tx) / flops(like) <= bound


def test_disam_costs_what_sam_costs():
    assert flops(DISAM) / flops(SAM) == pytest.approx(1.0, abs=1e-4)


def test_erm_costs_one_plain_gradient():
    params, x = problem()

    @jax.jit
    def step(params, x):
        grads = jax.grad(lambda p: loss_fn(p, x).mean())(params)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, grads)

    plain = step.lower(params, x).compile().cost_analysis()["flops"]
    assert flops(ERM) / plain == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize(
    ("tx", "evaluations"),
    [(dj.erm(), 1), (dj.sam(), 2), (dj.gsam(0.1, 0.1), 2), (dj.sagm(), 2), (dj.disam(), 2)],
    ids=["erm", "sam", "gsam", "sagm", "disam"],
)
def test_loss_evaluations_per_step(tx, evaluations, record):
    calls = []

    def counted(params):
        jax.debug.callback(lambda: calls.append(1))
        return params**2

    params = jnp.arange(1.0, 4.0)
    step = jax.jit(
        lambda state: tx.update(None, state, params, loss_fn=counted, record=record)
    )
    jax.block_until_ready(step(tx.init(params)))
    jax.effects_barrier()
    assert len(calls) == evaluations


def test_a_second_step_does_not_compile_again():
    tx = optax.chain(dj.disam(lambda count: 0.1 / (count + 1)), optax.adam(1e-3))
    params, x = problem()
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)
        updates, state = tx.update(None, state, params, loss_fn=lambda p: loss_fn(p, x))
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(3):
        params, state = step(params, state)
    assert len(traces) == 1
