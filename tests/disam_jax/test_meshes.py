"""On meshes of every kind, whatever lies where: the numbers of one device."""

import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import disam_jax as dj
from tests.methods import COMPOSED, KINDS, METHODS, wants_micro_batches

ALL = {name: tx for name, (tx, _) in METHODS.items()} | COMPOSED
# JAX tells when it traces a program whether sharded and varying arrays fit: tried for
# all. One of each kind of step is compiled, and its numbers compared (`KINDS`).
DOMAINS, PER_DOMAIN, WIDTH, STEPS = 3, 4, 8, 2
# Each leaf is cut in another way; the loss works on them where they lie.
CUTS = {
    "first": P("a", None),
    "last": P(None, "b"),
    "both": P("a", "b"),
    "norm": P(("a", "b")),
    "bias": P(None),
}


@functools.cache
def problem():
    rng = np.random.default_rng(0)
    shapes = {name: (WIDTH,) if name in ("norm", "bias") else (WIDTH,) * 2 for name in CUTS}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return params, rng.normal(size=(DOMAINS, PER_DOMAIN))


def losses(params, x):
    """[...] for x [..., B]: of every example another point is the minimum."""
    size = sum(jnp.sum((w - 0.1) ** 2) for w in params.values())
    curve = sum(jnp.sum(jnp.sin(w)) for w in params.values())
    return jnp.mean(x**2 * size + x * curve, axis=-1) / 100


def make_step(name, **options):
    """(params, state, x) -> after the step, with what it recorded."""
    tx = ALL[name]

    def step(params, state, x):
        arguments = {"loss_fn": losses, "micro_batches": x}
        if not wants_micro_batches(name):
            arguments = {"loss_fn": lambda params: losses(params, x)}
        grads, state = tx.update(None, state, params, record=True, **arguments, **options)
        seen, state = dj.pop_evaluation(state)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, grads), state, seen

    return step


def run(name, step, place=lambda leaf, array: array, place_batch=lambda x: x):
    """A few steps; returns the parameters and the last evaluation."""
    given, x = problem()
    params = {leaf: place(leaf, jnp.asarray(array)) for leaf, array in given.items()}
    state, x = ALL[name].init(params), place_batch(jnp.asarray(x))
    for _ in range(STEPS):
        params, state, seen = step(params, state, x)
    return params, seen


@functools.cache
def on_one_device(name):
    return jax.device_get(run(name, jax.jit(make_step(name))))


def make_mesh(kind):
    return jax.make_mesh(
        (2, 2), ("a", "b"), axis_types=(kind,) * 2, devices=jax.devices()[:4]
    )


def assert_same(actual, expected):
    jax.tree.map(
        # In float64 another order of 300 sums changes 1e-13 at most.
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11),
        jax.device_get(actual),
        expected,
    )


def run_on(mesh, name, step):
    with jax.set_mesh(mesh):
        return run(
            name,
            step,
            lambda leaf, array: jax.device_put(array, NamedSharding(mesh, CUTS[leaf])),
            lambda x: jax.device_put(x, NamedSharding(mesh, P(None, "b"))),
        )


@pytest.mark.parametrize("name", ALL)
def test_every_method_takes_explicitly_sharded_parameters(name):
    mesh = make_mesh(AxisType.Explicit)

    def traced(params, state, x):
        return jax.eval_shape(make_step(name), params, state, x)

    params, _ = run_on(mesh, name, traced)
    for leaf, cut in CUTS.items():
        assert params[leaf].sharding.spec == cut, leaf


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, AxisType.Explicit) for name in KINDS]
    + [(name, AxisType.Auto) for name in ("disam", "gsam", "looksam", "dgsam")],
    ids=str,
)
def test_sharded_parameters_take_the_step_of_one_device(x64, name, kind):
    mesh = make_mesh(kind)
    params, seen = run_on(mesh, name, jax.jit(make_step(name)))
    for leaf, cut in CUTS.items():
        there = NamedSharding(mesh, cut)
        assert params[leaf].sharding.is_equivalent_to(there, params[leaf].ndim), leaf
    assert_same((params, seen), on_one_device(name))


@pytest.mark.parametrize("name", ["disam", "looksam"])
def test_steps_that_are_not_compiled_are_too(x64, name):
    found = run_on(make_mesh(AxisType.Explicit), name, make_step(name))
    assert_same(found, on_one_device(name))


def by_device(name, axis_name, check_vma):
    """The step with each device's part of the batch, under shard_map."""
    axes = (axis_name,) if isinstance(axis_name, str) else axis_name
    return jax.shard_map(
        make_step(name, axis_name=axis_name),
        mesh=make_mesh(AxisType.Auto),
        in_specs=(P(), P(), P(None, axes)),
        out_specs=P(),
        check_vma=check_vma,
    )


@pytest.mark.parametrize("name", ALL)
def test_every_method_takes_axis_names(name):
    given, x = problem()
    params = jax.tree.map(jnp.asarray, given)
    step = by_device(name, ("a", "b"), check_vma=True)
    after = jax.eval_shape(step, params, ALL[name].init(params), x)[0]
    assert jax.tree.structure(after) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("name", "axis_name", "check_vma"),
    [(name, ("a", "b"), True) for name in KINDS]
    + [
        (name, axis_name, check_vma)
        for name in ("disam", "looksam", "dgsam")
        for axis_name, check_vma in [("a", True), ("b", False), (("b", "a"), False)]
    ],
    ids=str,
)
def test_each_device_s_part_of_a_batch(x64, name, axis_name, check_vma):
    step = jax.jit(by_device(name, axis_name, check_vma))
    assert_same(run(name, step), on_one_device(name))


def measures(params, batches):
    def domain_losses(params):
        return losses(params, batches)

    def loss(params, batch=batches[0]):
        return losses(params, batch)

    key, measure = jax.random.key(0), dj.diagnostics
    directions = [measure.filter_normalized(key, params)]
    return {
        "sharpness": measure.sharpness(domain_losses, params, 0.1, steps=2),
        "variance": measure.gradient_variance(loss, params, batches),
        "angle": measure.angle(params, directions[0]),
        "eigenvalues": measure.hessian_top_eigenvalues(loss, params, 2, key, iterations=12),
        "trace": measure.hessian_trace(loss, params, key, samples=2),
        "realized": dj.realized_perturbation(params, directions[0], jnp.bfloat16),
    }


def longer_measures(params, batches):
    def domain_losses(params):
        return losses(params, batches)

    def loss(params):
        return losses(params, batches[0])

    key, measure = jax.random.key(0), dj.diagnostics
    directions = [measure.filter_normalized(key, params)]
    return {
        "pooled": measure.sharpness(domain_losses, params, 0.1, ascent=dj.weighted_mean),
        "conflict": measure.gradient_conflict(domain_losses, params),
        "surface": measure.loss_surface(
            domain_losses, params, directions, [np.arange(2.0)]
        ),
        "worst case": measure.worst_case_sharpness(
            domain_losses, params, 0.1, key, steps=2, norm="linf", adaptive=True
        ),
        "average": measure.average_sharpness(domain_losses, params, 0.1, key, samples=2),
        "density": measure.spectral_density(loss, params, key, samples=1, iterations=4),
        "distance": measure.hessian_distance(domain_losses, params, key, samples=2),
    }


@pytest.mark.parametrize(
    "measures", [measures, pytest.param(longer_measures, marks=pytest.mark.slow)]
)
def test_measures_of_sharded_parameters(x64, measures):
    params, x = problem()
    params = jax.tree.map(jnp.asarray, params)
    expected = jax.device_get(measures(params, jnp.asarray(x)))
    mesh = make_mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        params = {
            name: jax.device_put(leaf, NamedSharding(mesh, CUTS[name]))
            for name, leaf in params.items()
        }
        found = jax.device_get(measures(params, jnp.asarray(x)))
    # Eigenvalues are seen through 12 images of a random vector: their condition is 1e3.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), found, expected)


@pytest.mark.parametrize("entered", [True, False])
def test_the_hardest_of_a_sharded_batch(entered):
    example_losses = jnp.array([0.1, 0.9, 0.5, 0.2, 0.7, 0.3, 0.8, 0.4])
    ids = jnp.array([0, 0, 0, 1, 1, 2, 2, 2])
    expected = dj.hardest(example_losses, ids, 3, 2)
    mesh = make_mesh(AxisType.Explicit)
    cut = NamedSharding(mesh, P(("a", "b")))
    with jax.set_mesh(mesh) if entered else contextlib.nullcontext():
        found = jax.jit(dj.hardest, static_argnums=(2, 3))(
            jax.device_put(example_losses, cut), jax.device_put(ids, cut), 3, 2
        )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


COLLECTIVE = re.compile(r"= (\S+|\(.*?\)) (all-[a-z]+|collective-[a-z]+|reduce-scatter)\(")


@pytest.mark.parametrize("name", ["sam", "asam", "gsam", "sagm", "disam", "stable_sam"])
def test_a_norm_of_sharded_parameters_exchanges_scalars_alone(name):
    mesh, size = make_mesh(AxisType.Auto), 512
    cuts = {"first": P("a"), "last": P(None, ("a", "b"))}
    tx = ALL[name]

    def step(params, state):
        def loss_fn(params):
            squares = jax.tree.map(lambda w: jnp.sum((w - 1) ** 2), params)
            return jnp.stack([squares["first"], squares["last"]])

        grads, state = tx.update(None, state, params, loss_fn=loss_fn, record=True)
        return grads, dj.pop_evaluation(state)

    params = {
        name: jax.ShapeDtypeStruct(
            (size, size), jnp.float32, sharding=NamedSharding(mesh, cut)
        )
        for name, cut in cuts.items()
    }
    compiled = jax.jit(step).lower(params, jax.eval_shape(tx.init, params)).compile()
    found = COLLECTIVE.findall(compiled.as_text())
    assert found, "the norms are over all devices"
    for shape, collective in found:
        assert collective == "all-reduce"
        # Scalars, and the two domain losses.
        assert all(dims in ("", "2") for dims in re.findall(r"f32\[(.*?)\]", shape)), shape
    part = sum(size * size * 4 // count for count in (2, 4))  # a device's, in bytes
    # Two gradients, w + eps and what is made of them; nothing that lies in parts is whole.
    assert compiled.memory_analysis().temp_size_in_bytes <= 4 * part + 2**14


@pytest.mark.parametrize(
    ("tx", "cut", "largest"),
    [
        (dj.ascend_nuclear(), P("a"), 256),
        (dj.ascend_nuclear(), P(None, ("a", "b")), 512),
        (dj.ascend_nuclear(), P("a", "b"), 256),
        (dj.ascend_spectral(), P(("a", "b")), 256 * 256),  # the Gram matrix
    ],
    ids=["nuclear-rows", "nuclear-columns", "nuclear-both", "spectral-rows"],
)
def test_a_sharded_matrix_is_exchanged_nowhere(tx, cut, largest):
    grad = jax.ShapeDtypeStruct(
        (512, 256), jnp.float32, sharding=NamedSharding(make_mesh(AxisType.Auto), cut)
    )
    compiled = jax.jit(lambda g: tx.update(g, tx.init(g), g)[0]).lower(grad).compile()
    for shape, collective in COLLECTIVE.findall(compiled.as_text()):
        assert collective == "all-reduce"
        (dims,) = re.findall(r"f32\[(.*?)\]", shape)
        assert np.prod([int(n) for n in dims.split(",") if n], dtype=int) <= largest


@pytest.mark.parametrize("cut", [P(None, None, "a", "b"), P("a"), P(("a", "b"))], ids=str)
def test_sharded_kernels_and_vectors_move_as_on_one_device(x64, cut):
    mesh = make_mesh(AxisType.Explicit)
    shape = (3, 3, 4, 6) if len(cut) > 2 else (8, 6)[: 2 if cut == P("a") else 1]
    grad = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    for tx in (dj.ascend_nuclear(), dj.ascend_spectral(), dj.keep_outliers(0.5)):
        expected = tx.update(grad, tx.init(grad), grad)[0]
        with jax.set_mesh(mesh):
            placed = jax.device_put(grad, NamedSharding(mesh, cut))
            found = jax.jit(tx.update)(placed, tx.init(placed), placed)[0]
        assert_same(found, np.asarray(expected))
