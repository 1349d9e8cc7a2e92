"""What goes wrong in a user's hands is an error that names the cause and the mend."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from tests.methods import COMPOSED, METHODS, wants_micro_batches

# Whole optimizers, which have one door.
OPTIMIZERS = {"scaled", "decoupled", "before genie", "polyak"}
ALL = {name: tx for name, (tx, _) in METHODS.items()} | COMPOSED
PARAMS = {"w": jnp.ones(2), "bias": jnp.ones(1)}


def loss_fn(params):
    return jnp.sum(params["w"] ** 2) + jnp.sum(params["bias"] ** 2)


def not_called(params, *micro_batch):
    raise AssertionError("the parameters are looked at first")


def larger_leaves(params):
    return jax.tree.map(lambda leaf: leaf.size > 1, params)


def update(tx, updates=None, **arguments):
    given = {"loss_fn": loss_fn} | arguments
    return tx.update(updates, tx.init(PARAMS), PARAMS, **given)


@pytest.mark.parametrize("tx", [dj.sam(), dj.disam(), dj.gam(), dj.erm()])
def test_gradients_that_come_in_are_refused(tx):
    with pytest.raises(ValueError, match="stands first in a chain"):
        update(tx, PARAMS)


def test_after_an_optimizer_the_place_is_named():
    tx = optax.chain(optax.sgd(0.1), dj.sagm())
    with pytest.raises(ValueError, match="stands first in a chain"):
        update(tx, PARAMS)


def test_steps_gathered_around_a_method_are_refused():
    tx = optax.MultiSteps(optax.chain(dj.disam(), optax.sgd(0.1)), 2)
    grads = jax.grad(loss_fn)(PARAMS)
    with pytest.raises(ValueError, match=r"optax\.MultiSteps"):
        tx.update(grads, tx.init(PARAMS), PARAMS, loss_fn=loss_fn)


LABELS = {"w": "a", "bias": "b"}
AROUND = {
    "masked": lambda tx: optax.masked(tx, {"w": True, "bias": False}),
    "masked by a function": lambda tx: optax.masked(tx, larger_leaves),
    "partition": lambda tx: optax.partition({"a": tx, "b": optax.sgd(0.1)}, LABELS),
    "multi_transform": lambda tx: optax.multi_transform(
        {"a": optax.chain(tx, optax.adam(0.1)), "b": optax.set_to_zero()}, LABELS
    ),
}
AROUND |= {
    "in a chain": lambda tx: optax.chain(AROUND["masked"](tx), optax.adam(0.1)),
    "in MultiSteps": lambda tx: optax.MultiSteps(AROUND["partition"](tx), 2),
}
HIDES = (
    r"params\['bias'\] is an optax\.MaskedNode.* around the method.*the tree of that part "
    r"alone and close the loss over the rest.*mask=.*put the mask after the method"
)


@pytest.mark.parametrize("name", ALL)
def test_a_mask_around_a_method_is_named(name):
    for around in AROUND.values():
        with pytest.raises(ValueError, match=HIDES):
            around(ALL[name]).init(PARAMS)


@pytest.mark.parametrize("name", [name for name in ALL if name != "masked"])
def test_a_masked_tree_is_named_at_both_doors(name):
    """As where the state was made of all parameters, or read from a file."""
    tx, params = ALL[name], PARAMS | {"norm": jnp.ones(1)}
    hidden, state, arguments = params | {"bias": optax.MaskedNode()}, tx.init(params), {}
    if wants_micro_batches(name):
        arguments = {"micro_batches": jnp.zeros((2, 1))}
    with pytest.raises(ValueError, match=HIDES):
        tx.update(None, state, hidden, loss_fn=not_called, **arguments)
    if name not in OPTIMIZERS:
        with pytest.raises(ValueError, match=HIDES):
            dj.value_and_grad(not_called, tx)(hidden, state, **arguments)


def test_what_is_empty_is_not_masked():
    params = PARAMS | {"none": None, "no_leaves": {"of": ()}}
    tx = optax.chain(dj.disam(), optax.masked(optax.sgd(0.1), larger_leaves))
    state = tx.init(params)
    updates, _ = jax.eval_shape(
        lambda params: tx.update(None, state, params, loss_fn=loss_fn), params
    )
    assert jax.tree.structure(updates) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("domain_weight", "domain_weights"),
        ("domainweights", "domain_weights"),
        ("Domain_Weights", "domain_weights"),
        ("weights", "domain_weights"),
        ("microbatches", "micro_batches"),
        ("micro_batch", "micro_batches"),
        ("loss", "loss_fn"),
        ("loss_func", "loss_fn"),
        ("ascent_loss", "ascent_loss_fn"),
        ("perturbed_loss", "perturbed_loss_fn"),
        ("has_auxs", "has_aux"),
        ("axis_names", "axis_name"),
        ("lossscale", "loss_scale"),
        ("compute_dtypes", "compute_dtype"),
        ("records", "record"),
    ],
)
@pytest.mark.parametrize("tx", [dj.disam(), optax.chain(dj.sam(), optax.sgd(0.1))])
def test_a_keyword_that_is_nearly_ours_is_refused(tx, slip, meant):
    with pytest.raises(TypeError, match=f"'{slip}'; did you mean '{meant}'"):
        update(tx, **{slip: 1.0})


def test_the_keywords_of_others_pass():
    others = dict.fromkeys(
        ("value", "grad", "value_fn", "obj_fn", "step", "key", "temperature"), 1.0
    )
    np.testing.assert_array_equal(
        update(dj.sam(), **others)[0]["w"], update(dj.sam())[0]["w"]
    )


def test_a_gradient_function_refuses_slips_that_its_loss_does_not_name():
    """What takes any keyword would take a slip without a word."""

    def swallows(params, **kwargs):
        return loss_fn(params)

    def names(params, weights):
        return loss_fn(params) * weights

    tx = dj.sam()
    slip = "did you mean 'domain_weights'.* If it is loss_fn's own, name it in its sig"
    with pytest.raises(TypeError, match=slip):
        dj.value_and_grad(swallows, tx)(PARAMS, tx.init(PARAMS), domain_weight=1.0)
    dj.value_and_grad(names, tx)(PARAMS, tx.init(PARAMS), weights=1.0)
    parts = dj.composed_loss(names, lambda outputs, weights: outputs)
    dj.value_and_grad(parts, tx)(PARAMS, tx.init(PARAMS), weights=1.0)


@pytest.mark.parametrize(
    ("tx", "words"),
    [
        (optax.adam(1e-3), "must be a method of this package"),
        (optax.chain(dj.sam(), optax.adam(1e-3)), "ends in an optimizer"),
        (optax.chain(dj.sam(), optax.sgd(0.1)), "ends in an optimizer"),
        (
            optax.chain(dj.disam(), optax.clip(1.0), optax.adamw(lambda count: 0.0)),
            "ends in an optimizer",
        ),
        (optax.chain(dj.dgsam(), optax.lion(1e-3)), "ends in an optimizer"),
        (dj.wsam_decoupled(optax.sgd(0.1), 0.1), "ends in an optimizer"),
    ],
)
def test_a_gradient_function_is_of_a_method(tx, words):
    with pytest.raises(ValueError, match=words):
        dj.value_and_grad(loss_fn, tx)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "tail",
    [
        optax.clip_by_global_norm(1.0),
        optax.add_decayed_weights(1e-2),
        optax.masked(optax.clip(1.0), {"w": True, "bias": False}),
    ],
    ids=["clip", "decay", "masked"],
)
def test_what_changes_a_gradient_may_stand_after_the_method(tail, compiled):
    tx = optax.chain(dj.sam(), tail)

    def take(params):
        return dj.value_and_grad(loss_fn, tx)(params, tx.init(params))[0][1]

    grads = (jax.jit(take) if compiled else take)(PARAMS)
    assert jnp.all(grads["w"] > 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dj.sharpness_aware(0.05), "perturbation must be an Optax transformation"),
        (lambda: dj.value_and_grad(loss_fn, 0.05), "tx must be a method"),
        (lambda: dj.value_and_grad(dj.sam(), loss_fn), "tx must be a method"),
        (lambda: dj.value_and_grad(None, dj.sam()), "loss_fn must be a function"),
    ],
)
def test_what_is_no_part_is_named(make, words):
    with pytest.raises(TypeError, match=words):
        make()


MAKERS = {
    "descent": (dj.variance_penalized, dj.vrex, dj.group_dro, dj.and_mask, dj.pcgrad),
    "combine": (dj.interpolate, dj.subtract_orthogonal),
    "when": (dj.every, dj.starting_at, dj.with_probability),
}
MAKERS["ascent"] = (*MAKERS["descent"], dj.sand_mask, dj.agreement_sum, dj.alignment_noise)


def wrong_part(name, part):
    words = rf"{name} must be a function such as disam_jax\..*\) returns; got "
    with pytest.raises(TypeError, match=words) as caught:
        dj.sharpness_aware(dj.ascend(), **{name: part})
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "maker"), [(name, maker) for name in MAKERS for maker in MAKERS[name]]
)
def test_a_part_that_was_not_called_is_named(name, maker):
    assert f"<function {maker.__name__} " in wrong_part(name, maker)
    assert wrong_part(name, maker).endswith("which makes one: call it.")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("part", [0.5, 5, "every(5)", True])
def test_a_part_that_is_no_function_is_named(name, part):
    assert wrong_part(name, part).endswith(f"got {part!r}.")


@pytest.mark.parametrize(
    "make",
    [
        lambda: dj.erm(descent=dj.group_dro),
        lambda: dj.disam(descent=dj.vrex),
        lambda: dj.one_pass(dj.ascend(), ascent=dj.vrex),
        lambda: dj.ae_sam(combine=dj.interpolate),
        lambda: dj.ae_sam(combine=0.5),
    ],
)
def test_every_slot_is_looked_at(make):
    with pytest.raises(TypeError, match="must be a function such as disam_jax"):
        make()


@pytest.mark.parametrize("output", [None, {"loss": 1.0}, "1.0"])
def test_a_loss_that_is_no_number_is_named(output):
    with pytest.raises(TypeError, match="loss_fn must return"):
        update(dj.sam(), loss_fn=lambda params: output)


@pytest.mark.parametrize(
    ("factory", "name", "value"),
    [
        (dj.looksam, "period", 5),
        (dj.interval_sam, "period", 5),
        (dj.multi_step_sam, "steps", 2),
        (dj.late_sam, "start", 2),
    ],
)
def test_a_static_integer_under_inject_hyperparams_is_named(factory, name, value):
    tx = optax.inject_hyperparams(factory)(rho=0.05, **{name: value})
    named = "step" if name == "start" else name
    with pytest.raises(TypeError, match=rf"static_args=\('{named}',\)"):
        tx.init(PARAMS)


@pytest.mark.parametrize(
    "make",
    [
        lambda schedule: dj.momentum_sam(decay=schedule),
        lambda schedule: dj.vasso(theta=schedule),
        lambda schedule: dj.friendly_sam(sigma=schedule),
        lambda schedule: dj.asam(eta=schedule),
        lambda schedule: dj.wsam(gamma=schedule),
        lambda schedule: dj.ae_sam(decay=schedule),
        lambda schedule: dj.gam(beta=(schedule, 0.5)),
    ],
)
def test_a_schedule_where_none_is_taken_is_named(make):
    with pytest.raises(TypeError, match="takes a number and no schedule"):
        make(optax.constant_schedule(0.1))


def test_rank_promotion_may_be_an_error():
    x = jnp.ones((2, 3, 4))

    def losses(params, x):
        return jnp.mean(x, axis=-1) * jnp.sum(params**2)

    with jax.numpy_rank_promotion("raise"):
        for tx in (dj.disam(), dj.gsam(0.1, 0.1), dj.looksam()):
            params = jnp.ones(2)
            arguments = {"loss_fn": losses, "micro_batches": x}
            weights = jnp.ones((2, 3))
            tx.update(None, tx.init(params), params, domain_weights=weights, **arguments)
            tx.update(None, tx.init(params), params, record=True, **arguments)
        dj.domain_means(jnp.ones(4), jnp.array([0, 0, 1, 1]), 2)
        dj.hardest(jnp.ones(4), jnp.array([0, 0, 1, 1]), 2, 1)
        dj.diagnostics.hessian_top_eigenvalues(
            lambda w: jnp.sum(w["a"] ** 2), {"a": jnp.ones((2, 2))}, 1, jax.random.key(0)
        )


def test_testing_is_there_with_the_package():
    assert dj.testing.check_absent_domain


def test_an_ascent_over_the_lowest_losses_climbs_an_absent_domain():
    """Which has loss 0 where `domain_means` makes it."""

    def lowest(losses, weights):
        return jnp.mean(jnp.sort(losses)[:2])

    tx = dj.sam(0.5, ascent=lowest)
    with pytest.raises(AssertionError, match="domain of weight 0"):
        dj.testing.check_absent_domain(tx)


@pytest.mark.parametrize(
    "tx",
    [dj.interval_sam(period=2), dj.looksam(), dj.late_sam(start=1), dj.ae_sam()],
    ids=["interval", "looksam", "late", "ae"],
)
def test_outside_of_jit_no_conditional_is_compiled(monkeypatch, tx):
    params, state = PARAMS, tx.init(PARAMS)
    step = jax.jit(lambda state: tx.update(None, state, params, loss_fn=loss_fn))
    expected = [step(state)]
    expected.append(step(expected[0][1]))

    def refuse(*args):
        raise AssertionError("it would be compiled at each call")

    monkeypatch.setattr(jax.lax, "cond", refuse)
    for compiled in expected:
        grads, state = tx.update(None, state, params, loss_fn=loss_fn)
        np.testing.assert_allclose(grads["w"], compiled[0]["w"], rtol=1e-6)
