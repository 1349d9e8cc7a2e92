"""Parameters of every kind: what has a gradient takes part, what has none is named."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from tests.methods import COMPOSED, KINDS, METHODS, wants_micro_batches
from tests.slow import slow_but

ALL = {name: tx for name, (tx, _) in METHODS.items()} | COMPOSED
# The steps are told nothing of complex numbers: one of each kind, and what looks at leaves.
QUICK = {*KINDS, "asam", "layerwise_sam", "sam_on", "zsharp", "before genie", "polyak"}
CENTERS = np.array([[0.5, -1.0], [2.0, 0.3], [-0.7, 0.1]])


def losses(z, center):
    """Of two complex numbers z; not symmetric in their coordinates."""
    away = z - (1 + 2j) * center
    return jnp.sum(away.real**2 + 3 * away.imag**2 + 0.3 * away.real**3) / 10


def run(tx, micro_batches, params, to_complex, steps=3):
    """Some steps of plain descent, compiled; `to_complex` makes z of the parameters."""

    @jax.jit
    def step(params, state):
        def of_piece(params, center):
            return losses(to_complex(params), center)

        def of_all(params):
            return jnp.stack([of_piece(params, center) for center in CENTERS])

        arguments = {"loss_fn": of_all}
        if micro_batches:
            arguments = {"loss_fn": of_piece, "micro_batches": jnp.asarray(CENTERS)}
        grads, state = tx.update(None, state, params, record=True, **arguments)
        seen, state = dj.pop_evaluation(state)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, grads), state, seen

    state = tx.init(params)
    for _ in range(steps):
        params, state, seen = step(params, state)
    return params, seen


@pytest.mark.parametrize(
    "name",
    # A complex leaf of one axis is a bias by its axes, and named like one of a norm.
    slow_but(QUICK, [name for name in ALL if name not in ("masked", "noise_sam")]),
)
def test_complex_numbers_are_their_real_coordinates(x64, name):
    z = jnp.array([0.4 + 0.2j, -1.0 + 0.5j])
    tx, micro_batches = ALL[name], wants_micro_batches(name)
    found, seen = run(tx, micro_batches, {"norm": z}, lambda params: params["norm"])
    coordinates = {"norm": {"x": z.real, "y": z.imag}}
    expected, expected_seen = run(
        tx,
        micro_batches,
        coordinates,
        lambda params: jax.lax.complex(params["norm"]["x"], params["norm"]["y"]),
    )
    expected = expected["norm"]
    assert found["norm"].dtype == z.dtype
    np.testing.assert_allclose(found["norm"].real, expected["x"], rtol=1e-12)
    np.testing.assert_allclose(found["norm"].imag, expected["y"], rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
        seen,
        expected_seen,
    )


def test_a_complex_number_is_climbed_uphill():
    tx, z = dj.sam(0.1), jnp.array([3j])
    grads, state = tx.update(
        None, tx.init(z), z, loss_fn=lambda z: jnp.sum(jnp.abs(z) ** 2), record=True
    )
    evaluation, _ = dj.pop_evaluation(state)
    assert evaluation.perturbed_losses == pytest.approx(3.1**2, rel=1e-6)
    assert evaluation.gradient_norm == pytest.approx(6.0, rel=1e-6)
    # What descends |z|^2 is against z itself, where jax.grad gives its conjugate.
    np.testing.assert_allclose(grads, [6.2j], rtol=1e-6)


def test_a_perturbation_by_itself_takes_complex_gradients():
    grad = jnp.array([3 + 4j])
    tx = dj.ascend(0.5)
    eps, _ = tx.update(grad, tx.init(grad), grad)
    np.testing.assert_allclose(eps, [0.3 + 0.4j], rtol=1e-6)


def test_measures_of_complex_parameters(x64):
    def loss(params):
        return losses(params["z"], CENTERS[0])

    def of_coordinates(params):
        return losses(jax.lax.complex(*params), CENTERS[0])

    z, key, measure = (
        jnp.array([0.4 + 0.2j, -1.0 + 0.5j]),
        jax.random.key(0),
        dj.diagnostics,
    )
    pair = (z.real, z.imag)
    for found, expected in (
        (
            measure.sharpness(loss, {"z": z}, 0.1),
            measure.sharpness(of_coordinates, pair, 0.1),
        ),
        (
            measure.hessian_top_eigenvalues(loss, {"z": z}, 4, key),
            measure.hessian_top_eigenvalues(of_coordinates, pair, 4, key),
        ),
        (
            measure.hessian_trace(loss, {"z": z}, key).mean,
            measure.hessian_trace(of_coordinates, pair, key).mean,
        ),
        (measure.angle({"z": z}, {"z": 1j * z}), np.pi / 2),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def mixed():
    return {
        "array": jnp.array([3.0, 4.0]),
        "number": 1.0,
        "numpy": np.ones((2, 1), np.float32),
        "nothing": None,
        "empty": jnp.zeros((0, 3)),
        "norm": {"half": jnp.ones(2, jnp.bfloat16), "nothing": None},
    }


def loss_of_mixed(params, *micro_batch):
    assert params["nothing"] is None and params["norm"]["nothing"] is None
    leaves = [
        leaf.astype(jnp.float32) for leaf in map(jnp.asarray, jax.tree.leaves(params))
    ]
    return sum(jnp.sum(leaf**2) for leaf in leaves)


@pytest.mark.parametrize("name", [name for name in ALL if name != "masked"])
def test_none_numbers_empty_leaves_and_mixed_dtypes(name):
    tx, params = ALL[name], mixed()
    arguments = {"micro_batches": jnp.zeros((2, 1))} if wants_micro_batches(name) else {}

    def step(state, params):
        return tx.update(None, state, params, loss_fn=loss_of_mixed, **arguments)

    state = tx.init(params)
    updates, after = jax.eval_shape(step, state, params)
    for before, update in zip(
        jax.tree.leaves(params), jax.tree.leaves(updates), strict=True
    ):
        assert update.shape == np.shape(before)
        assert update.dtype == jnp.result_type(before)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_a_mask_with_none_and_its_length():
    params = mixed()
    mask = {name: name in ("array", "number") for name in params} | {"nothing": None}
    tx = dj.sam(rho=0.5, mask=mask)
    _, state = tx.update(None, tx.init(params), params, loss_fn=loss_of_mixed, record=True)
    evaluation, _ = dj.pop_evaluation(state)
    expected = (26**0.5 + 0.5) ** 2 + 4  # of 3, 4 and 1 alone, and four ones beside them
    assert evaluation.perturbed_losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (jnp.arange(3), r"params\['of'\]\['it'\] is of dtype int32"),
        (jnp.array(True), "of dtype bool"),
        (jax.random.key(0), "of dtype key"),
        (np.uint8([1]), "of dtype uint8"),
        (3, r"3 \(int\)"),
        (True, r"True \(bool\)"),
        ("relu", r"'relu' \(str\)"),
        (jnp.tanh, "is <"),
    ],
    ids=["int32", "bool array", "key", "uint8", "int", "bool", "string", "function"],
)
@pytest.mark.parametrize("door", ["init", "update", "measure"])
def test_a_leaf_without_a_gradient_is_named(door, leaf, words):
    params, tx = {"w": jnp.ones(2), "of": {"it": leaf}}, dj.disam()
    with pytest.raises(TypeError, match=words):
        if door == "init":
            tx.init(params)
        elif door == "update":
            tx.update(None, tx.init(jnp.ones(2)), params, loss_fn=lambda params: 0.0)
        else:
            dj.diagnostics.sharpness(lambda params: 0.0, params, 0.1)


@pytest.mark.parametrize(
    "rho",
    [np.float64(0.05), jnp.float64, optax.linear_schedule],
    ids=["numpy", "jax", "schedule"],
)
def test_a_wide_hyperparameter_widens_nothing(x64, rho):
    if rho is jnp.float64:
        rho = jnp.float64(0.05)
    if rho is optax.linear_schedule:
        rho = optax.linear_schedule(0.0, np.float64(0.1), 3)
    params = jnp.ones(2, jnp.float32)
    number = 0.5 if callable(rho) else rho
    for tx in (
        dj.disam(rho, rho),
        dj.sagm(rho, rho),
        dj.vasso(rho, number),
        dj.friendly_sam(rho, number, number),
        dj.momentum_sam(rho, number),
        dj.looksam(rho, rho, period=2),
        dj.gradient_norm_penalty(rho, rho),
        dj.sharpness_aware(dj.ascend(rho), combine=dj.interpolate(rho), when=dj.every(2)),
        dj.ae_sam(rho, decay=number),
    ):
        state = tx.init(params)
        updates, after = jax.eval_shape(
            lambda state, tx=tx: tx.update(
                None, state, params, loss_fn=lambda w: jnp.sum(w**2)
            ),
            state,
        )
        assert updates.dtype == jnp.float32
        expected = jax.tree.map(lambda leaf: leaf.dtype, state)
        assert jax.tree.map(lambda leaf: leaf.dtype, after) == expected


@pytest.mark.parametrize("name", ["sam", "layerwise_sam", "asam", "gsam", "stable_sam"])
def test_a_step_can_be_differentiated_where_a_leaf_is_zero(debug_nans, name):
    """As biases are at the start, and meta-learning goes through the step."""
    tx, params = ALL[name], {"norm": jnp.ones((2, 1)), "bias": jnp.zeros(2)}

    def after(params):
        def loss_fn(params):
            return jnp.sum((params["norm"] + params["bias"] - 2) ** 2)

        grads, _ = tx.update(None, tx.init(params), params, loss_fn=loss_fn)
        return sum(
            jnp.sum((w - 0.1 * g) ** 2)
            for w, g in zip(params.values(), (grads["norm"], grads["bias"]), strict=True)
        )

    for leaf in jax.tree.leaves(jax.grad(after)(params)):
        assert np.isfinite(leaf).all()
