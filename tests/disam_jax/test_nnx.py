"""The optimizer for Flax NNX: its step is the one that is written by hand."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

import disam_jax as dj
from tests.float32 import assert_close

DOMAINS, BATCH, FEATURES, CLASSES = 3, 8, 5, 4
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(DOMAINS, BATCH, FEATURES)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, CLASSES, size=(DOMAINS, BATCH)))
RHO, METHOD = 0.5, dj.disam(rho=0.5, lam=0.1)


class Model(nnx.Module):
    """Everything that changes when it is called: statistics, random streams."""

    def __init__(self, rngs):
        self.first = nnx.Linear(FEATURES, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(6, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


def domain_losses(logits, y):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y.reshape(-1))
    return losses.reshape(y.shape).mean(axis=1)


def loss_fn(model, x, y):
    return domain_losses(model(x.reshape(-1, FEATURES)), y)


def door(model, method=METHOD, wrt=nnx.Param, then=None):
    return dj.nnx.Optimizer(model, optax.chain(method, then or optax.adam(1e-2)), wrt=wrt)


def numbers(module):
    """What is in a module's variables, keys as numbers."""

    def number(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(number, nnx.as_pure(nnx.state(module)))


def assert_same(module, other):
    jax.tree.map(np.testing.assert_array_equal, numbers(module), numbers(other))


def test_it_takes_the_step_that_is_written_by_hand():
    """Both without jit, operation by operation: to the last bit."""
    model, by_hand = Model(nnx.Rngs(0)), Model(nnx.Rngs(0))
    optimizer = door(model)
    theirs = nnx.Optimizer(by_hand, optax.adam(1e-2), wrt=nnx.Param)

    def pure(params, graph, rest):
        model = nnx.merge(graph, params, rest, copy=True)
        return loss_fn(model, X, Y), nnx.state(model, nnx.Not(nnx.Param))

    grad_fn = dj.value_and_grad(pure, METHOD, has_aux=True)
    sharpness = METHOD.init(nnx.state(by_hand, nnx.Param))
    for _ in range(2):
        evaluation = optimizer.update(model, loss_fn, X, Y)
        split, params, rest = nnx.split(by_hand, nnx.Param, ...)
        (expected, grads), sharpness = grad_fn(params, sharpness, split, rest)
        theirs.update(by_hand, grads)
        nnx.update(by_hand, expected.aux)
        assert_same(model, by_hand)
        jax.tree.map(np.testing.assert_array_equal, evaluation, expected._replace(aux=None))


def test_what_moves_moves_once_under_jit_and_not_in_evaluation():
    model = Model(nnx.Rngs(0))
    tx = optax.chain(METHOD, optax.adam(1e-2))
    optimizer = dj.nnx.Optimizer(model, tx, wrt=nnx.Param, graph=False)
    step = nnx.jit(
        lambda model, optimizer: optimizer.update(model, loss_fn, X, Y), graph=False
    )
    hidden, count = model.first(X.reshape(-1, FEATURES)), model.dropout.rngs.count[...]
    evaluation = step(model, optimizer)
    assert_close(evaluation.perturbation_norm, RHO)
    assert_close(model.norm.mean[...], 0.1 * hidden.mean(0))
    assert_close(model.norm.var[...], 0.9 + 0.1 * hidden.var(0))
    assert model.dropout.rngs.count[...] == count + 1
    assert optimizer.step[...] == optimizer.opt_state[0].count[...] == 1

    model.eval()
    mean = model.norm.mean[...]
    step(model, optimizer)
    np.testing.assert_array_equal(model.norm.mean[...], mean)
    assert model.dropout.rngs.count[...] == count + 1


def test_both_passes_have_one_dropout_mask():
    """Of a mean of inputs that are dropped, nothing but the mask differs between steps."""

    class Dropped(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.ones(64))
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self):
            return self.dropout(self.weight[...]).mean()

    model = Dropped()
    optimizer = door(model, dj.sam(RHO), then=optax.set_to_zero())
    seen = [optimizer.update(model, lambda model: model()) for _ in range(2)]
    for evaluation in seen:  # linear in the weights: with one mask the gradients are one
        assert_close(evaluation.cosine, 1.0)
    assert seen[0].losses != seen[1].losses


def test_wrt_is_what_is_perturbed_and_what_is_trained():
    rngs = nnx.Rngs(0)
    base = nnx.Linear(FEATURES, CLASSES, rngs=rngs)
    model = nnx.LoRA(FEATURES, 2, CLASSES, base_module=base, rngs=rngs)
    frozen = numbers(base)
    optimizer = door(model, wrt=nnx.LoRAParam)
    evaluation = optimizer.update(model, loss_fn, X, Y)
    assert_close(evaluation.perturbation_norm, RHO)  # of nothing else
    assert np.any(model.lora_b[...])
    jax.tree.map(np.testing.assert_array_equal, numbers(base), frozen)
    assert set(optimizer.opt_state[1][0].mu) == {"lora_a", "lora_b"}


def test_shared_weights_are_perturbed_once():
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(FEATURES, FEATURES, rngs=rngs)
            self.second = self.first
            self.last = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

        def __call__(self, x):
            return self.last(self.second(jnp.tanh(self.first(x))))

    model = Tied(nnx.Rngs(0))
    evaluation = door(model).update(model, loss_fn, X, Y)
    assert model.first is model.second
    assert_close(evaluation.perturbation_norm, RHO)


def test_micro_batches_take_the_whole_batch_step():
    whole, parts = (nnx.Linear(FEATURES, CLASSES, rngs=nnx.Rngs(0)) for _ in range(2))
    weights = jnp.array([1.0, 0.5, 2.0])
    expected = door(whole).update(whole, loss_fn, X, Y, domain_weights=weights)
    found = door(parts).update(
        parts,
        lambda model, micro_batch: loss_fn(model, *micro_batch),
        micro_batches=dj.micro_batches((X, Y), 2, axis=1),
        domain_weights=jnp.stack([weights, weights]),
    )
    assert_close(found.losses, expected.losses)
    assert_close(dict(numbers(parts)), dict(numbers(whole)))


def test_the_statistics_of_micro_batches_are_averaged():
    """A running mean is linear in the batch, so it is the whole batch's."""
    model = Model(nnx.Rngs(0))
    hidden, count = model.first(X.reshape(-1, FEATURES)), model.dropout.rngs.count[...]
    door(model).update(
        model,
        lambda model, micro_batch: (loss_fn(model, *micro_batch), micro_batch[0].sum()),
        micro_batches=dj.micro_batches((X, Y), 2, axis=1),
        has_aux=True,
    )
    assert_close(model.norm.mean[...], 0.1 * hidden.mean(0))
    assert model.dropout.rngs.count[...] == count + 1


@pytest.mark.parametrize(
    ("weights", "expected"), [((1, 1), 1.0), ((1, 3), 1.25), ((1, 0), 0.5)]
)
def test_the_statistics_of_micro_batches_weigh_as_their_losses(weights, expected):
    """Of the means 1 and 3, half of them; what is absent takes no part, even as NaN."""
    model = nnx.BatchNorm(2, momentum=0.5, rngs=nnx.Rngs(0))
    x = jnp.stack([jnp.ones((4, 2)), jnp.full((4, 2), 3.0 if weights[1] else jnp.inf)])
    door(model, dj.sam(RHO)).update(
        model,
        lambda model, x: (model(x), jnp.sum(model.scale[...]))[1],  # a finite gradient
        micro_batches=x,
        domain_weights=jnp.array(weights, jnp.float32)[:, None],
    )
    np.testing.assert_array_equal(model.mean[...], expected)


def test_what_is_new_or_not_touched_in_micro_batches():
    rngs = nnx.Rngs(0)
    base = nnx.Linear(FEATURES, CLASSES, rngs=rngs)
    model = nnx.LoRA(FEATURES, 2, CLASSES, base_module=base, rngs=rngs)
    frozen = numbers(base)

    def loss(model, micro_batch):
        model.seen = nnx.Variable(micro_batch[0].mean())
        return loss_fn(model, *micro_batch)

    parts = tuple(leaf[:, None] for leaf in (X, Y))
    weights = jnp.array([[1.0], [0.3], [0.7]])
    door(model, wrt=nnx.LoRAParam).update(
        model, loss, micro_batches=parts, domain_weights=weights
    )
    assert_close(model.seen[...], jnp.sum(weights[:, 0] * X.mean((1, 2))) / 2)
    jax.tree.map(np.testing.assert_array_equal, numbers(base), frozen)


def test_what_overflows_leaves_the_statistics_alone():
    """With the weights and the scale that fits next; counts go on."""
    norm, dropout = nnx.BatchNorm(2, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1))
    model = nnx.Sequential(norm, dropout)
    tx = dj.scale_loss(optax.chain(dj.sam(RHO), optax.sgd(0.1)))
    optimizer = dj.nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = numbers(norm)
    optimizer.update(model, lambda model, x: jnp.mean(model(x)), jnp.full((4, 2), jnp.inf))
    assert optimizer.opt_state.skipped[...] == 1
    jax.tree.map(np.testing.assert_array_equal, numbers(norm), before)
    assert dropout.rngs.count[...] == 1


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
def test_what_a_pass_sows_is_kept_step_after_step():
    class Sowing(nnx.Linear):
        def __call__(self, x):
            self.sow(nnx.Intermediate, "seen", x)
            return super().__call__(x)

    model = Sowing(2, 1, rngs=nnx.Rngs(0))
    optimizer = door(model)
    for step in range(3):
        x = jnp.full((4, 2), float(step))
        optimizer.update(model, lambda model, x: jnp.mean(model(x)), x)
    assert isinstance(model.seen, nnx.Intermediate)
    np.testing.assert_array_equal(model.seen.get_value()[-1], x)


def test_what_is_frozen_is_held_once():
    """Not once for each micro-batch, as what the pass changes of it must be."""
    width, num = 256, 8
    base = nnx.Linear(width, width, use_bias=False, rngs=nnx.Rngs(0))
    model = nnx.LoRA(width, 1, width, base_module=base, rngs=nnx.Rngs(0))
    optimizer = door(model, wrt=nnx.LoRAParam)
    graph, state = nnx.split((model, optimizer))

    @jax.jit
    def step(state, x):
        model, optimizer = nnx.merge(graph, state)
        optimizer.update(model, lambda model, x: jnp.mean(model(x) ** 2), micro_batches=x)
        return nnx.state((model, optimizer))

    compiled = step.lower(state, jnp.ones((num, 1, width))).compile()
    frozen = base.kernel[...].nbytes
    assert compiled.memory_analysis().temp_size_in_bytes < num // 2 * frozen


def test_a_loss_scale_stands_around_the_chain():
    models = [nnx.Linear(FEATURES, CLASSES, rngs=nnx.Rngs(0)) for _ in range(2)]
    chain = optax.chain(METHOD, optax.sgd(0.1))
    for model, tx in zip(models, (chain, dj.scale_loss(chain)), strict=True):
        dj.nnx.Optimizer(model, tx, wrt=nnx.Param).update(model, loss_fn, X, Y)
    assert_close(*(dict(numbers(model)) for model in models))


def test_a_loss_in_two_parts():
    """functional_sam looks between them; where the loss is linear it has SAM's ascent."""
    composed = dj.composed_loss(
        lambda model, x, y: model(x.reshape(-1, FEATURES)),
        lambda logits, x, y: domain_losses(logits, y),
    )
    models = [Model(nnx.Rngs(0)) for _ in range(2)]
    for model, loss in zip(models, (composed, loss_fn), strict=True):
        door(model).update(model, loss, X, Y)
    assert_same(*models)
    evaluation = door(models[0], dj.functional_sam(RHO)).update(models[0], composed, X, Y)
    assert_close(evaluation.perturbation_norm, RHO)


def test_a_saved_state_goes_on_to_the_same_bits():
    model = Model(nnx.Rngs(0))
    method = dj.sam(optax.linear_schedule(0.1, 0.5, 4))
    optimizer = door(model, method)
    optimizer.update(model, loss_fn, X, Y)
    saved = jax.tree.map(jnp.copy, (nnx.state(model), nnx.state(optimizer)))
    optimizer.update(model, loss_fn, X, Y)

    again = Model(nnx.Rngs(1))
    restored = door(again, method)
    nnx.update(again, saved[0])
    nnx.update(restored, saved[1])
    restored.update(again, loss_fn, X, Y)
    assert_same((model, optimizer), (again, restored))


def test_parameters_and_their_states_stay_where_they_are():
    mesh = jax.make_mesh((2,), ("model",), axis_types=(AxisType.Auto,))
    kernel_init = nnx.with_partitioning(
        nnx.initializers.lecun_normal(), (None, "model"), mesh=mesh
    )
    with jax.set_mesh(mesh):
        model = nnx.Linear(FEATURES, CLASSES, kernel_init=kernel_init, rngs=nnx.Rngs(0))
        optimizer = door(model)
        nnx.jit(lambda model, optimizer: optimizer.update(model, loss_fn, X, Y))(
            model, optimizer
        )
    for kernel in (model.kernel, optimizer.opt_state[1][0].mu["kernel"]):
        assert kernel[...].sharding.spec == PartitionSpec(None, "model")


def test_muon_after_it():
    """Muon takes the kernel, Adam the bias, in trees with holes; as of plain arrays."""
    model = nnx.Linear(FEATURES, CLASSES, rngs=nnx.Rngs(0))
    params = {"kernel": model.kernel[...], "bias": model.bias[...]}
    muon = optax.contrib.muon(1e-2)
    door(model, then=muon).update(model, loss_fn, X, Y)

    def plain(params):
        logits = X.reshape(-1, FEATURES) @ params["kernel"] + params["bias"]
        return domain_losses(logits, Y)

    tx = optax.chain(METHOD, muon)
    updates, _ = tx.update(None, tx.init(params), params, loss_fn=plain)
    assert_close(dict(numbers(model)), optax.apply_updates(params, updates))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: door(m, optax.clip(1.0)), "tx must begin with a method"),
        (lambda m: door(m, optax.MultiSteps(dj.sam(), 2)), "give the chain alone and its"),
        (
            lambda m: door(m).update(m, nnx.state(m, nnx.Param)),
            "loss_fn must be a function",
        ),
        (lambda m: door(m).update(m, loss_fn, X, Y, weights=jnp.ones(3)), "domain_weights"),
        (lambda m: door(m).update(m, lambda m: (X.mean(), X)), "has_aux=False"),
    ],
)
def test_what_is_wrong_is_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(nnx.Linear(FEATURES, CLASSES, rngs=nnx.Rngs(0)))


def test_without_flax_the_door_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.delitem(sys.modules, "disam_jax.nnx", raising=False)
    monkeypatch.delattr(dj, "nnx", raising=False)
    with pytest.raises(ImportError, match="pip install 'flax"):
        _ = dj.nnx
    assert not hasattr(dj, "linen")
