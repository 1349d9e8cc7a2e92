from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from experiments.backbones import BACKBONES, load_pretrained
from experiments.backbones.depthwise import grouped_convolution, shifted_sums
from experiments.backbones.pretrained import from_torch, target
from experiments.backbones.vit import resize_positions
from experiments.backbones.weight_files import read_weights
from experiments.models import make_classifier
from tests.data.backbones import made

RECORDED = np.load(Path(made.__file__).with_name("recorded.npz"))
IMAGES = made.images().astype(np.float32)
BOUND = 1e-4  # of the largest entry


def fresh(name, **fields):
    """The module, and its variables' shapes."""
    fields = {"batch_norm": "frozen", "dtype": jnp.float32, **fields}
    module = BACKBONES[name].make(**fields)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), IMAGES, train=False))
    return module, jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), dict(shapes))


def torch_state(recorded):
    if recorded == "efficientnet_lite0":
        return read_weights(BACKBONES[recorded].package())
    shapes = [tuple(map(int, s.split())) for s in RECORDED[f"{recorded}/state_shapes"]]
    return made.weights(dict(zip(RECORDED[f"{recorded}/state_names"], shapes, strict=True)))


def in_torch_s_order(gradient):
    """A gradient with its axes as PyTorch has them."""
    if gradient.ndim == 4:
        return gradient.transpose(3, 2, 0, 1)
    return gradient.T if gradient.ndim == 2 else gradient


def error(ours, theirs):
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("recorded", [*BACKBONES, "vit_b16_torchvision"])
def test_outputs_and_gradient_equal_pytorch_s(recorded):
    name = recorded.removesuffix("_torchvision")
    module, shapes = fresh(name)
    path_of = BACKBONES[name].path_of
    variables = from_torch(torch_state(recorded), path_of, shapes)
    head = made.head(RECORDED[f"{recorded}/features"].shape[1]).astype(np.float32)

    @jax.jit
    def run(params):
        def loss(params):
            features = module.apply({**variables, "params": params}, IMAGES, train=False)
            logits = features @ head
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, made.LABELS)
            return losses.mean(), (features, logits)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (features, logits)), gradients = run(variables["params"])
    assert error(features, RECORDED[f"{recorded}/features"]) < BOUND
    assert error(logits, RECORDED[f"{recorded}/logits"]) < BOUND
    flat = traverse_util.flatten_dict({"params": gradients})
    names = [str(n) for n in RECORDED[f"{recorded}/names"]]
    assert len(names) == len(flat)
    digests = []
    for torch_name in names:
        gradient = np.asarray(flat[target(torch_name, path_of, flat)])
        digests.append(made.digest(torch_name, in_torch_s_order(gradient)))
    theirs = RECORDED[f"{recorded}/gradients"]
    # The digest's projections are of the size of the norm over the root of the count.
    np.testing.assert_allclose(np.array(digests)[:, 0], theirs[:, 0], rtol=1e-4)
    assert np.abs(np.array(digests) - theirs).max() < BOUND * np.abs(theirs).max()


def test_live_batch_norm_gives_torch_s_training_pass():
    module, shapes = fresh("resnet18", batch_norm="live")
    variables = from_torch(torch_state("resnet18"), BACKBONES["resnet18"].path_of, shapes)
    features, moved = module.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    assert error(features, RECORDED["resnet18/live_features"]) < 1e-3  # two images a batch
    mean = moved["batch_stats"]["bn1"]["mean"]
    assert error(mean, RECORDED["resnet18/live_mean"]) < BOUND


def test_frozen_batch_norm_ignores_the_batch():
    module, shapes = fresh("resnet18")
    variables = from_torch(torch_state("resnet18"), BACKBONES["resnet18"].path_of, shapes)
    apply = jax.jit(module.apply, static_argnames=("train", "mutable"))
    trained, moved = apply(variables, IMAGES, train=True, mutable=("batch_stats",))
    np.testing.assert_array_equal(trained, apply(variables, IMAGES, train=False))
    jax.tree.map(
        np.testing.assert_array_equal, moved["batch_stats"], variables["batch_stats"]
    )


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (1, 2)])
@pytest.mark.parametrize("large", [1, 10**9])
def test_shifted_sums_are_the_grouped_convolution(
    kernel, stride, height, width, large, monkeypatch
):
    monkeypatch.setattr("experiments.backbones.depthwise.LARGE", large)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, height, width, 4)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(kernel, kernel, 1, 4)), jnp.float32)

    def run(convolve):
        y, pull = jax.vjp(lambda x, w: jnp.sin(convolve(x, w, stride)), x, w)
        return y, *pull(jnp.cos(y))

    for ours, theirs in zip(run(shifted_sums), run(grouped_convolution), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_bfloat16_computes_in_half_on_float32_parameters():
    module, shapes = fresh("resnet18", dtype=jnp.bfloat16)
    state = torch_state("resnet18")
    variables = from_torch(state, BACKBONES["resnet18"].path_of, shapes)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    features = jax.jit(module.apply, static_argnames="train")(
        variables, jnp.asarray(IMAGES, jnp.bfloat16), train=False
    )
    assert features.dtype == jnp.bfloat16
    assert 1e-4 < error(features, RECORDED["resnet18/features"]) < 0.1


def test_a_model_begins_with_the_package_s_weights_and_a_head_of_its_own():
    model = make_classifier("efficientnet_lite0", 7, batch_norm="frozen")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))
    backbone = {
        name: tree["backbone"] for name, tree in shapes.items() if "backbone" in tree
    }
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), backbone)
    loaded = load_pretrained("efficientnet_lite0", None, zeros)
    assert jax.tree.structure(loaded) == jax.tree.structure(zeros)
    stem = read_weights(BACKBONES["efficientnet_lite0"].package())["_conv_stem.weight"]
    ours = loaded["params"]["stem"]["kernel"]
    np.testing.assert_array_equal(ours, stem.transpose(2, 3, 1, 0))


def test_weights_that_do_not_fit_are_named():
    _, shapes = fresh("resnet18")
    state = torch_state("resnet18")
    state["extra.weight"] = state.pop("conv1.weight")
    state["layer1.0.conv1.weight"] = np.zeros((64, 32, 3, 3))
    message = (
        r"layer1\.0\.conv1\.weight: shape \(64, 32, 3, 3\) does not make \(3, 3, 64, 64\); "
        r"extra\.weight: not of this model; params/conv1/kernel: missing"
    )
    with pytest.raises(ValueError, match=message):
        from_torch(state, BACKBONES["resnet18"].path_of, shapes)


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("patchnet", None, "no pretrained weights for patchnet: take weights scratch"),
        ("resnet50", None, "no package ships weights for resnet50: give a file"),
        ("resnet50", "nowhere.pth", "the weights file nowhere.pth does not exist"),
    ],
)
def test_missing_weights_say_what_to_do(name, path, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained(name, path, {})


def test_positions_of_another_size_keep_the_class_token_and_a_constant():
    positions = np.concatenate([np.full((1, 1, 4), 9.0), np.full((1, 196, 4), 3.0)], 1)
    resized = resize_positions(positions, 1 + 16)
    assert resized.shape == (1, 17, 4)
    np.testing.assert_array_equal(resized[:, 0], 9.0)
    np.testing.assert_allclose(resized[:, 1:], 3.0, rtol=1e-6)
    same = np.random.default_rng(0).normal(size=(1, 17, 4)).astype(np.float32)
    np.testing.assert_allclose(resize_positions(same, 17), same, atol=1e-6)
