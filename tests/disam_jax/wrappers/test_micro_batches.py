"""What the perturbation is computed on: the batch, a micro-batch, a domain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from tests.disam_jax.test_passes import (
    BALANCED,
    DOMAINS,
    METHODS,
    UNBALANCED,
    P,
    batch,
    counts_of,
    losses,
    mesh,
    params,
)


def by_hand(tx, micro_batches, weights, shares):
    """Each micro_batch's own step, from a plain loop, and their weighted mean."""

    @jax.jit
    def step(micro_batch, weights):
        return tx.update(
            None,
            tx.init(params()),
            params(),
            loss_fn=lambda p: losses(p, micro_batch),
            domain_weights=weights,
            record=True,
        )

    total, seen = jax.tree.map(jnp.zeros_like, params()), []
    for k, share in enumerate(shares):
        micro_batch = jax.tree.map(lambda x, k=k: x[k], micro_batches)
        grads, state = step(micro_batch, None if weights is None else weights[k])
        total = jax.tree.map(lambda t, g, s=share: t + s * g, total, grads)
        seen.append(dj.pop_evaluation(state)[0])
    return total, jax.tree.map(lambda *x: jnp.stack(x), *seen)


def assert_close(a, b):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), a, b
    )


@pytest.mark.parametrize(
    ("method", "weighted"), [(name, True) for name in METHODS] + [("disam", False)]
)
def test_per_micro_batch_is_a_loop_over_steps(x64, method, weighted):
    tx = METHODS[method]
    micro_batches = dj.micro_batches(batch(UNBALANCED), 4)
    weights = counts_of(micro_batches) if weighted else None
    each = dj.per_micro_batch(tx)
    grads, state = each.update(
        None,
        each.init(params()),
        params(),
        loss_fn=losses,
        micro_batches=micro_batches,
        domain_weights=weights,
        record=True,
    )
    seen, state = dj.pop_evaluation(state)
    assert_close((grads, seen), by_hand(tx, micro_batches, weights, [0.25] * 4))
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params()))
    assert int(state.count) == 1


def test_a_piece_counts_by_its_weights(x64):
    micro_batches = dj.micro_batches(batch(BALANCED), 2)
    weights = jnp.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]])
    each = dj.per_micro_batch(dj.sam(0.3))
    grads, _ = each.update(
        None,
        each.init(params()),
        params(),
        loss_fn=losses,
        micro_batches=micro_batches,
        domain_weights=weights,
    )
    assert_close(grads, by_hand(dj.sam(0.3), micro_batches, weights, [0.25, 0.75])[0])


def test_over_devices_a_piece_counts_by_its_weights_on_all_of_them(x64):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(4, 2, 3)), rng.uniform(size=(4, 2, 1))
    tx, w = dj.per_micro_batch(dj.sam(0.3)), jnp.zeros(3)

    def step(micro_batches, weights, loss_fn, **options):
        given = {"micro_batches": micro_batches, "domain_weights": weights, **options}
        return tx.update(None, tx.init(w), w, loss_fn=loss_fn, **given)[0]

    def here(w, x):
        return jnp.sum((w - x) ** 2)

    def on_all(w, micro_batch):
        x, weights = micro_batch
        return jnp.sum(weights * (w - x) ** 2) / jnp.sum(weights)

    parts = jnp.moveaxis(x, 1, 0), jnp.moveaxis(weights, 1, 0)
    expected = step(parts, weights.sum(0), on_all)
    over = jax.shard_map(
        lambda x, weights: step(x[0], weights[0], here, axis_name="data")[None],
        mesh=mesh(4),
        in_specs=(P("data"), P("data")),
        out_specs=P("data"),
        check_vma=False,  # so that they may differ
    )
    for device in jax.jit(over)(x, weights):
        assert_close(device, expected)


def test_sam_by_hand_on_each_domain(x64):
    """Every domain climbs on its own, written without the package."""
    x, y, _ = batch(BALANCED)
    stacked = x.reshape(DOMAINS, -1, x.shape[1]), y.reshape(DOMAINS, -1)

    def loss(p, domain):
        x, y = domain
        return jnp.mean((jnp.tanh(x @ p["a"]) @ p["b"] - y) ** 2)

    expected = jax.tree.map(jnp.zeros_like, params())
    for d in range(DOMAINS):
        domain = jax.tree.map(lambda x, d=d: x[d], stacked)
        g = jax.grad(loss)(params(), domain)
        scale = 0.3 / optax.tree.norm(g)
        there = jax.tree.map(lambda w, g, s=scale: w + s * g, params(), g)
        g = jax.grad(loss)(there, domain)
        expected = jax.tree.map(lambda t, g: t + g / DOMAINS, expected, g)
    tx = dj.per_micro_batch(dj.sam(0.3))
    grad_fn = dj.value_and_grad(loss, tx)
    (seen, grads), _ = grad_fn(params(), tx.init(params()), micro_batches=stacked)
    assert_close(grads, expected)
    assert seen.losses.shape == (DOMAINS, 1)
    np.testing.assert_allclose(seen.perturbation_norm, 0.3)


def test_one_piece_is_the_whole_batch(x64):
    tx = dj.per_micro_batch(dj.disam(0.3, 0.4))
    whole = jax.tree.map(lambda x: x[None], batch(BALANCED))
    grads, _ = tx.update(
        None, tx.init(params()), params(), loss_fn=losses, micro_batches=whole
    )
    plain, _ = dj.disam(0.3, 0.4).update(
        None,
        dj.disam().init(params()),
        params(),
        loss_fn=lambda p: losses(p, batch(BALANCED)),
    )
    assert_close(grads, plain)


def test_a_memory_keeps_the_mean_of_the_pieces(x64):
    """An ascent along the running mean of the gradients."""
    memory = optax.chain(optax.ema(0.9, debias=False), dj.ascend(0.3))
    tx = dj.per_micro_batch(dj.sharpness_aware(memory))
    micro_batches = dj.micro_batches(batch(BALANCED), 4)
    _, state = tx.update(
        None, tx.init(params()), params(), loss_fn=losses, micro_batches=micro_batches
    )
    g = jax.grad(lambda p: losses(p, batch(BALANCED)).mean())(params())
    assert_close(state.inner[0].ema, jax.tree.map(lambda g: 0.1 * g, g))


def test_a_batch_of_weight_0_moves_no_memory():
    tx, x = dj.per_micro_batch(dj.vasso(0.3, 0.4)), jnp.array([[1.0, 0.0], [3.0, 5.0]])
    w, state = jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2))
    for weights in (jnp.ones((2, 1)), jnp.zeros((2, 1))):
        before = state
        grads, state = tx.update(
            None,
            state,
            w,
            loss_fn=lambda w, x: jnp.sum((w - x) ** 2),
            micro_batches=x,
            domain_weights=weights,
        )
    assert not grads.any()
    np.testing.assert_array_equal(state.inner[0].ema, before.inner[0].ema)
    assert before.inner[0].ema.any()


def test_in_a_chain_a_scan_and_with_a_schedule():
    tx = optax.chain(
        dj.per_micro_batch(dj.disam(optax.linear_schedule(0.1, 0.0, 10), 0.1)),
        optax.clip_by_global_norm(1.0),
        optax.adam(1e-2),
    )
    micro_batches = dj.micro_batches(batch(BALANCED), 2)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(
            None, state, params, loss_fn=losses, micro_batches=micro_batches
        )
        return (optax.apply_updates(params, updates), state), None

    start = params()
    (end, state), _ = jax.lax.scan(step, (start, tx.init(start)), None, length=3)
    assert int(state[0].count) == 3
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(end))


def test_micro_batches_take_examples_in_turn():
    flat, stacked = jnp.arange(6), jnp.arange(12).reshape(2, 6)
    np.testing.assert_array_equal(dj.micro_batches(flat, 3), [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(
        dj.micro_batches(stacked, 3, axis=1),
        [[[0, 3], [6, 9]], [[1, 4], [7, 10]], [[2, 5], [8, 11]]],
    )


@pytest.mark.parametrize("num", [0, -1, 4])
def test_micro_batches_must_divide_the_batch(num):
    with pytest.raises(ValueError, match=f"num must divide the 6 examples .* got {num}"):
        dj.micro_batches(jnp.arange(6), num)


def test_missing_micro_batches():
    tx = dj.per_micro_batch(dj.sam())
    with pytest.raises(ValueError, match="micro_batches is missing"):
        tx.update(None, tx.init(params()), params(), loss_fn=lambda p: 0.0)


@pytest.mark.parametrize("axis", [-1, -2, 2, 0.5])
def test_micro_batches_are_cut_along_an_axis_counted_from_0(axis):
    words = rf"axis must be an integer in 0 \.\.\. 1; got {axis}"
    with pytest.raises(ValueError, match=words):
        dj.micro_batches(jnp.arange(12).reshape(2, 6), 2, axis=axis)
