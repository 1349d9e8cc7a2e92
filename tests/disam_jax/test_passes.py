"""One step of the whole batch: at once, in micro-batches, over devices, scaled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj

DOMAINS, BATCH, FEATURES = 3, 24, 5
METHODS = {
    "erm": dj.erm(),
    "vrex": dj.erm(descent=dj.vrex(2.0)),
    "sam": dj.sam(0.3),
    "gsam": dj.gsam(0.3, 0.2),
    "disam": dj.disam(0.3, 0.4),
    "disam-counts": dj.disam(0.3, 0.4, variance="count_weighted"),
    "disam+sagm-pure": dj.sagm(
        0.3, 0.1, ascent=dj.variance_penalized(0.4), combine_with="descent"
    ),
    "disam, vrex": dj.disam(0.3, 0.4, descent=dj.vrex(1.0)),
    "disam+looksam": dj.looksam(0.3, 0.5, ascent=dj.variance_penalized(0.4)),
    "disam+ae": dj.ae_sam(0.3, ascent=dj.variance_penalized(0.4)),
    "disam, one pass": dj.one_pass(dj.ascend(0.3), ascent=dj.variance_penalized(0.4)),
}


def batch(ids):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(BATCH, FEATURES)))
    return x, jnp.asarray(rng.normal(size=BATCH)), jnp.asarray(ids)


def params():
    rng = np.random.default_rng(1)
    return {"a": jnp.asarray(rng.normal(size=(FEATURES, 4))), "b": jnp.ones(4)}


def losses(params, examples):
    x, y, ids = examples
    prediction = jnp.tanh(x @ params["a"]) @ params["b"]
    return dj.domain_means((prediction - y) ** 2, ids, DOMAINS)[0]


def with_aux(params, examples):
    return losses(params, examples), jnp.sum(examples[0]) * params["b"][0]


BALANCED = np.repeat(np.arange(DOMAINS), BATCH // DOMAINS)
UNBALANCED = np.random.default_rng(2).choice(DOMAINS, BATCH, p=[0.7, 0.25, 0.05])
ONE_ABSENT = np.where(UNBALANCED == 1, 0, UNBALANCED)
DOMAIN_IDS = {"balanced": BALANCED, "unbalanced": UNBALANCED, "one absent": ONE_ABSENT}


@functools.cache
def at_once(method, ids):
    """What the step of the whole batch gives and sees."""
    tx, examples = METHODS[method], batch(DOMAIN_IDS[ids])

    def step(params):
        return tx.update(
            None,
            tx.init(params),
            params,
            loss_fn=lambda p: losses(p, examples),
            domain_weights=dj.domain_shares(examples[2], DOMAINS),
            record=True,
        )

    return popped(jax.jit(step)(params()))


def assert_same(found, expected, tolerance=1e-12):
    found, expected = (
        dict(grads=found[0], seen=found[1]),
        dict(grads=expected[0], seen=expected[1]),
    )
    for name in ("aux", "realized"):
        found["seen"] = found["seen"]._replace(**{name: None})
        expected["seen"] = expected["seen"]._replace(**{name: None})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


def popped(result):
    grads, state = result
    return grads, dj.pop_evaluation(state)[0]


def counts_of(micro_batches):
    return jax.vmap(lambda ids: jnp.bincount(ids, length=DOMAINS))(micro_batches[2])


@pytest.mark.parametrize(
    ("method", "ids", "num", "unroll"),
    [(name, "one absent", 4, 1) for name in METHODS]
    + [("disam", "balanced", 1, 1), ("disam", "balanced", 8, 1), ("sam", "balanced", 3, 1)]
    + [("disam", "unbalanced", 3, True), ("sam", "unbalanced", 3, 2)],
)
def test_micro_batches_make_the_step_of_the_whole_batch(x64, method, ids, num, unroll):
    tx = METHODS[method]
    micro_batches = dj.micro_batches(batch(DOMAIN_IDS[ids]), num)
    step = jax.jit(
        lambda params: tx.update(
            None,
            tx.init(params),
            params,
            loss_fn=losses,
            micro_batches=micro_batches,
            domain_weights=counts_of(micro_batches),
            unroll=unroll,
            record=True,
        )
    )
    assert_same(popped(step(params())), at_once(method, ids))


def test_aux_of_micro_batches_is_stacked(x64):
    micro_batches = dj.micro_batches(batch(BALANCED), 4)
    tx = dj.disam()
    grad_fn = dj.value_and_grad(with_aux, tx, has_aux=True)
    (seen, _), _ = grad_fn(params(), tx.init(params()), micro_batches=micro_batches)
    np.testing.assert_allclose(seen.aux, jax.vmap(jnp.sum)(micro_batches[0]))


def test_without_weights_every_piece_and_domain_counts_alike(x64):
    micro_batches = dj.micro_batches(batch(BALANCED), 4)
    tx = METHODS["disam"]
    found = tx.update(
        None,
        tx.init(params()),
        params(),
        loss_fn=losses,
        micro_batches=micro_batches,
        record=True,
    )
    assert_same(popped(found), at_once("disam", "balanced"))


def compiled(method, micro_batches):
    """The step's compiled form; micro_batches of None take the batch at once."""
    tx = optax.chain(METHODS[method], optax.sgd(0.1))
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=(64, 64)) / 8, jnp.float32) for _ in range(6)]
    x = jnp.asarray(rng.normal(size=(2048, 64)), jnp.float32)

    def loss_fn(weights, x):
        for kernel in weights:
            x = jax.nn.relu(x @ kernel)
        return jnp.mean(x.reshape(2, -1, 64) ** 2, axis=(1, 2))

    def step(weights, state, x):
        if micro_batches is None:
            kwargs = {"loss_fn": lambda w: loss_fn(w, x)}
        else:
            batches = dj.micro_batches(x, micro_batches)
            kwargs = {"loss_fn": loss_fn, "micro_batches": batches, "unroll": True}
        updates, state = tx.update(None, state, weights, **kwargs)
        return optax.apply_updates(weights, updates), state

    return jax.jit(step).lower(weights, tx.init(weights), x).compile()


@pytest.mark.parametrize(
    ("method", "ratio"),
    # DISAM needs the losses of all micro-batches first: one forward pass (a third of one)
    # more at w; V-REx the same for its one gradient.
    [("erm", 1.0), ("sam", 1.0), ("gsam", 1.0), ("disam", 7 / 6), ("vrex", 4 / 3)],
)
def test_micro_batches_cost_what_the_whole_batch_costs(method, ratio):
    flops = {n: compiled(method, n).cost_analysis()["flops"] for n in (None, 4)}
    # Below it where an older compiler merges the forward passes of an unrolled loop.
    assert 0.97 < flops[4] / flops[None] < ratio + 0.03


def test_memory_is_that_of_one_micro_batch():
    rng = np.random.default_rng(0)
    tx = dj.disam()
    weights = [jnp.asarray(rng.normal(size=(64, 64)) / 8, jnp.float32) for _ in range(6)]
    x = jnp.asarray(rng.normal(size=(8192, 64)), jnp.float32)

    def loss_fn(weights, x):
        for kernel in weights:
            x = jnp.tanh(x @ kernel)
        return jnp.mean(x.reshape(2, -1, 64) ** 2, axis=(1, 2))

    def step(weights, micro_batches):
        return tx.update(
            None, tx.init(weights), weights, loss_fn=loss_fn, micro_batches=micro_batches
        )[0]

    def memory(num):
        micro_batches = x.reshape(num, -1, 64)
        compiled = jax.jit(step).lower(weights, micro_batches).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    parameters = sum(w.nbytes for w in weights)
    assert memory(16) < memory(1) / 16 + 4 * parameters


def mesh(devices):
    return jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


P = jax.sharding.PartitionSpec


def sharded_step(tx, micro_batches=None):
    """The step of one device's part of the batch."""

    def step(params, examples):
        kwargs = {"loss_fn": lambda p: losses(p, examples)}
        weights = jnp.bincount(examples[2], length=DOMAINS)
        if micro_batches:
            parts = dj.micro_batches(examples, micro_batches)
            kwargs = {"loss_fn": losses, "micro_batches": parts}
            weights = counts_of(parts)
        return tx.update(
            None,
            tx.init(params),
            params,
            domain_weights=weights,
            axis_name="data",
            record=True,
            **kwargs,
        )

    return step


@pytest.mark.parametrize(
    ("method", "ids", "micro_batches", "check"),
    [(name, "one absent", None, True) for name in METHODS]
    + [
        ("disam", ids, micro_batches, True)
        for ids in DOMAIN_IDS
        for micro_batches in (None, 3)
    ]
    + [("disam", "unbalanced", 3, False), ("sam", "unbalanced", None, False)],
)
def test_axis_name_makes_the_step_of_the_whole_batch(
    x64, method, ids, micro_batches, check
):
    tx, examples = METHODS[method], batch(DOMAIN_IDS[ids])
    over = jax.shard_map(
        sharded_step(tx, micro_batches),
        mesh=mesh(4),
        in_specs=(P(), P("data")),
        out_specs=P(),
        check_vma=check,
    )
    found = popped(jax.jit(over)(params(), examples))
    assert_same(found, at_once(method, ids))


def test_axis_name_of_pmap_and_vmap(x64):
    tx, examples = METHODS["disam"], batch(UNBALANCED)
    expected = at_once("disam", "unbalanced")
    parts = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), examples)
    for over in (jax.pmap, jax.vmap):
        step = jax.jit(over(sharded_step(tx), axis_name="data", in_axes=(None, 0)))
        grads, state = step(params(), parts)
        seen = dj.pop_evaluation(state)[0]
        for device in range(4):
            first = jax.tree.map(lambda x, d=device: x[d], (grads, seen))
            assert_same(first, expected)


def test_value_and_grad_takes_an_axis_name(x64):
    examples = batch(UNBALANCED)
    tx = METHODS["disam"]
    grad_fn = dj.value_and_grad(losses, tx, axis_name="data")

    def step(params, examples):
        weights = dj.domain_shares(examples[2], DOMAINS)  # of parts of one size
        (seen, grads), _ = grad_fn(
            params, tx.init(params), examples, domain_weights=weights
        )
        return grads, seen

    over = jax.shard_map(step, mesh=mesh(4), in_specs=(P(), P("data")), out_specs=P())
    assert_same(jax.jit(over)(params(), examples), at_once("disam", "unbalanced"))


@pytest.mark.parametrize("method", ["erm", "disam", "disam+sagm-pure"])
def test_a_loss_scale_changes_nothing_that_fits(x64, method):
    tx, examples = METHODS[method], batch(UNBALANCED)
    found = tx.update(
        None,
        tx.init(params()),
        params(),
        loss_fn=lambda p: losses(p, examples),
        domain_weights=dj.domain_shares(examples[2], DOMAINS),
        loss_scale=jnp.asarray(1024.0),
        record=True,
    )
    assert_same(popped(found), at_once(method, "unbalanced"))


def test_another_loss_at_w_plus_eps(x64):
    """Its gradient is taken where the first loss's ascent leads."""

    def first(p):
        return losses(p, batch(BALANCED))

    def second(p):
        return losses(p, batch(UNBALANCED)) ** 2

    tx = dj.sam(0.3)
    grads, state = tx.update(
        None,
        tx.init(params()),
        params(),
        loss_fn=first,
        perturbed_loss_fn=second,
        record=True,
    )
    g = jax.grad(lambda p: first(p).mean())(params())
    scale = 0.3 / optax.tree.norm(g)
    there = jax.tree.map(lambda w, g: w + scale * g, params(), g)
    expected = jax.grad(lambda p: second(p).mean())(there)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), grads, expected)
    seen = dj.pop_evaluation(state)[0]
    np.testing.assert_allclose(seen.losses, first(params()), rtol=1e-12)
    np.testing.assert_allclose(seen.perturbed_losses, second(there), rtol=1e-12)


@pytest.mark.parametrize(
    "bad", [{}, {"x": jnp.ones(())}, {"x": jnp.ones((2, 3)), "y": jnp.ones((4, 3))}]
)
def test_micro_batches_need_one_first_axis(bad):
    tx = dj.sam()
    with pytest.raises(ValueError, match=r"micro_batches must be a tree of arrays"):
        tx.update(
            None, tx.init(params()), params(), loss_fn=lambda p, b: 0.0, micro_batches=bad
        )


def test_weights_of_micro_batches_are_k_by_m():
    tx = dj.sam()
    with pytest.raises(ValueError, match=r"domain_weights must .* shape \(4, 3\)"):
        tx.update(
            None,
            tx.init(params()),
            params(),
            loss_fn=losses,
            micro_batches=dj.micro_batches(batch(BALANCED), 4),
            domain_weights=jnp.ones(3),
        )


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    "tx",
    [
        dj.dgsam(0.3),
        dj.one_pass_by_domain(dj.ascend(0.3), ascent=dj.variance_penalized(0.4)),
    ],
    ids=["walk", "by domain"],
)
def test_domains_as_pieces_may_be_spread_over_devices(x64, tx, check):
    """One domain is absent, and one device has nothing of another."""
    x, y, _ = batch(BALANCED)
    domains = x.reshape(DOMAINS, -1, FEATURES), y.reshape(DOMAINS, -1)
    weights = jnp.array([[2.0, 2, 2, 2], [3, 0, 1, 2], [0, 0, 0, 0]])

    def loss_fn(params, micro_batch):
        prediction = jnp.tanh(micro_batch[0] @ params["a"]) @ params["b"]
        return jnp.mean((prediction - micro_batch[1]) ** 2)

    def weighted_loss_fn(params, micro_batch):
        shards = [x.reshape(4, -1, *x.shape[1:]) for x in micro_batch[:2]]
        losses = jax.vmap(loss_fn, in_axes=(None, 0))(params, tuple(shards))
        return jnp.sum(losses * micro_batch[2]) / jnp.maximum(jnp.sum(micro_batch[2]), 1)

    def step(params, loss_fn, domains, weights, **kwargs):
        return tx.update(
            None,
            tx.init(params),
            params,
            loss_fn=loss_fn,
            micro_batches=domains,
            domain_weights=weights,
            record=True,
            **kwargs,
        )

    over = jax.shard_map(
        lambda params, domains, weights: step(
            params, loss_fn, domains, weights, axis_name="data"
        ),
        mesh=mesh(4),
        in_specs=(P(), P(None, "data"), P(None, "data")),
        out_specs=P(),
        check_vma=check,
    )
    found = popped(jax.jit(over)(params(), domains, weights))
    sums = weights.sum(1, keepdims=True)
    whole = popped(step(params(), weighted_loss_fn, (*domains, weights), sums))
    assert_same(found, whole)
