"""The same step on 1, 2, 4 and 8 devices: JAX's shardings change where, not what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import disam_jax as dj

pytestmark = pytest.mark.usefixtures("x64")
DOMAINS, PER_DOMAIN, FEATURES, WIDTH, STEPS = 4, 16, 8, 64, 20
METHODS = {
    "sam": dj.sam(0.05),
    "asam": dj.sam(0.5, adaptive=True),
    "gsam": dj.gsam(0.05, 0.2),
    "sagm": dj.sagm(0.05, 1e-3),
    "disam": dj.disam(0.05, 0.1),
}


def initial_params():
    rng = np.random.default_rng(0)
    return {
        "first": rng.normal(size=(FEATURES, WIDTH)) / FEATURES**0.5,
        "second": rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5,
        "bias": np.zeros(WIDTH),
        "last": rng.normal(size=WIDTH) / WIDTH**0.5,
    }


def batches():
    """A stream of [M, B, F] examples; every domain has a scale of its own."""
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        x = rng.normal(size=(DOMAINS, PER_DOMAIN, FEATURES))
        yield x * np.arange(1, DOMAINS + 1)[:, None, None] ** 0.5


def example_losses(params, x):
    h = jnp.tanh(x @ params["first"])
    h = jnp.tanh(h @ params["second"] + params["bias"])
    return (h @ params["last"] - jnp.sin(x.sum(-1))) ** 2


def stacked(params, x):
    return jnp.mean(example_losses(params, x), axis=1), None


COUNTS = [40, 13, 10, 1]  # of a flat batch, cut between domains nowhere in particular


def flat(params, x):
    ids = jnp.repeat(jnp.arange(DOMAINS), np.array(COUNTS))
    order = jax.random.permutation(jax.random.key(0), len(ids))
    x = x.reshape(-1, FEATURES)
    return dj.domain_means(example_losses(params, x), ids[order], DOMAINS)


def fsdp(mesh, tree):
    """Each large array cut along its first axis."""

    def place(leaf):
        cut = jnp.ndim(leaf) > 0 and leaf.shape[0] % mesh.size == 0
        spec = PartitionSpec(mesh.axis_names) if cut else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


def run(method, loss_fn, shape=(1, 1), sharded=False):
    """20 steps; returns the parameters, the evaluations and the state's shardings."""
    count = int(np.prod(shape))
    mesh = jax.make_mesh(
        shape,
        ("domain", "batch"),
        axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[:count],
    )
    everywhere = NamedSharding(mesh, PartitionSpec())
    spread = NamedSharding(mesh, PartitionSpec("domain", "batch"))
    place = functools.partial(fsdp, mesh)
    if not sharded:
        place = functools.partial(jax.device_put, device=everywhere)
    tx = optax.chain(METHODS[method], optax.sgd(0.02, momentum=0.9))
    params = place(initial_params())
    state = place(tx.init(params))

    @jax.jit
    def step(params, state, x):
        def losses(params):
            return loss_fn(params, x)[0]

        _, weights = loss_fn(params, x)
        updates, state = tx.update(
            None, state, params, loss_fn=losses, domain_weights=weights, record=True
        )
        seen, state = dj.pop_evaluation(state)
        return optax.apply_updates(params, updates), state, seen

    before = jax.tree.map(lambda x: x.sharding, (params, state))
    evaluations = []
    for x in batches():
        params, state, seen = step(params, state, jax.device_put(x, spread))
        evaluations.append(jax.device_get(seen))
    after = jax.tree.map(lambda x: x.sharding, (params, state))
    placed = jax.tree.map(
        lambda a, b, leaf: a.is_equivalent_to(b, leaf.ndim), before, after, (params, state)
    )
    assert all(jax.tree.leaves(placed))
    return jax.device_get(params), evaluations


@functools.cache
def on_one_device(method, loss_fn):
    return run(method, loss_fn)


MESHES = [(1, 2), (4, 1), (2, 4), (1, 8)]


@pytest.mark.parametrize(
    ("method", "loss_fn", "shape", "sharded"),
    [("disam", stacked, shape, False) for shape in MESHES]
    + [("disam", flat, shape, True) for shape in [(1, 2), (2, 4)]]
    + [(name, flat, (2, 4), False) for name in METHODS],
)
def test_any_devices_make_the_run_of_one(method, loss_fn, shape, sharded):
    params, evaluations = run(method, loss_fn, shape, sharded)
    expected_params, expected = on_one_device(method, loss_fn)
    for ours, theirs in zip(evaluations, expected, strict=True):
        for name in ("losses", "perturbed_losses", "perturbation_norm", "gradient_norm"):
            np.testing.assert_allclose(
                getattr(ours, name), getattr(theirs, name), rtol=1e-10, atol=1e-12
            )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-10),
        params,
        expected_params,
    )
