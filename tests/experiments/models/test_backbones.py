import functools
from pathlib import Path

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from experiments.models.backbones import BACKBONES, PRETRAINED, load_pretrained
from experiments.models.classifier import make_classifier
from experiments.models.depthwise import (
    DepthwiseConv,
    grouped_convolution,
    pixel_sums,
    shifted_sums,
)
from experiments.models.pretrained import from_torch, target
from experiments.models.vit import resize_positions
from experiments.models.weight_files import read_weights
from tests.data.backbones import made

RECORDED = np.load(Path(made.__file__).with_name("recorded.npz"))
IMAGES = made.images()
# Of the largest entry. Both sides compute in float64, where no order of summation shows;
# the record is kept in float32, whose rounding is 2^-24 = 6e-8.
BOUND = 1e-7


def fresh(name, **fields):
    """The module, and zeros for its variables."""
    fields = {"batch_norm": "frozen", "dtype": jnp.float32, **fields}
    module = BACKBONES[name].make(**fields)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), IMAGES, train=False))
    return module, jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), dict(shapes))


def recorded_variables(recorded):
    """In float64, from PyTorch's weights."""
    name = recorded.removesuffix("_torchvision")
    zeros = jax.tree.map(lambda leaf: leaf.astype(np.float64), fresh(name)[1])
    return from_torch(torch_state(recorded), BACKBONES[name].path_of, zeros)


def torch_state(recorded):
    if recorded == "efficientnet_lite0":
        return read_weights(BACKBONES[recorded].package())
    return made.weights(torch_shapes(recorded))


def torch_shapes(recorded):
    shapes = [tuple(map(int, s.split())) for s in RECORDED[f"{recorded}/state_shapes"]]
    return dict(zip(RECORDED[f"{recorded}/state_names"], shapes, strict=True))


def in_torch_s_order(gradient):
    """A gradient with its axes as PyTorch has them."""
    if gradient.ndim == 4:
        return gradient.transpose(3, 2, 0, 1)
    return gradient.T if gradient.ndim == 2 else gradient


def error(ours, theirs):
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@functools.cache  # ViT-B has two sets of names and one compilation
def evaluator(name, batch_norm, train):
    """Variables -> features, logits, moved statistics and gradient on the images."""
    module, _ = fresh(name, batch_norm=batch_norm, dtype=jnp.float64)

    def evaluate(variables):
        def loss(params):
            features, moved = module.apply(
                {**variables, "params": params}, IMAGES, train, mutable=["batch_stats"]
            )
            logits = features @ made.head(features.shape[1])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, made.LABELS)
            return losses.mean(), (features, logits, moved)

        gradient, outputs = jax.grad(loss, has_aux=True)(variables["params"])
        return *outputs, gradient

    return jax.jit(evaluate)


def check_gradient(recorded, path_of, gradient):
    """Compares every tensor's norm and entries, relative to its own norm and largest."""
    gradient = traverse_util.flatten_dict({"params": gradient})
    names = [str(name) for name in RECORDED[f"{recorded}/names"]]
    assert len(names) == len(gradient)
    for name, theirs in zip(names, RECORDED[f"{recorded}/gradients"], strict=True):
        ours = in_torch_s_order(np.asarray(gradient[target(name, path_of, gradient)]))
        norm, largest, *entries = made.digest(name, ours) - theirs
        assert abs(norm) < BOUND * theirs[0], name
        assert max(map(abs, (largest, *entries))) < BOUND * theirs[1], name


# The blocks of ResNet-18 and of ViT-S in other numbers, and under other names.
LIKE_ANOTHER = ("resnet34", "vit_b16", "vit_b16_torchvision")


@pytest.mark.parametrize(
    "recorded",
    [name for name in PRETRAINED if name not in LIKE_ANOTHER]
    + [pytest.param(name, marks=pytest.mark.slow) for name in LIKE_ANOTHER],
)
def test_outputs_and_gradient_equal_pytorch_s(x64, recorded):
    name = recorded.removesuffix("_torchvision")
    path_of = BACKBONES[name].path_of
    variables = recorded_variables(recorded)
    evaluate = evaluator(name, "frozen", train=True)
    features, logits, moved, gradient = evaluate(variables)
    assert error(features, RECORDED[f"{recorded}/features"]) < BOUND
    assert error(logits, RECORDED[f"{recorded}/logits"]) < BOUND
    check_gradient(recorded, path_of, gradient)
    statistics = variables.get("batch_stats", {})
    jax.tree.map(np.testing.assert_array_equal, moved.get("batch_stats", {}), statistics)


@pytest.mark.parametrize("recorded", LIKE_ANOTHER)
def test_every_tensor_of_pytorch_s_has_its_place(recorded):
    name = recorded.removesuffix("_torchvision")
    zeros = {
        tensor: np.broadcast_to(np.float32(0), shape)
        for tensor, shape in torch_shapes(recorded).items()
    }
    from_torch(zeros, BACKBONES[name].path_of, fresh(name)[1])  # or it lists those without


def test_live_batch_norm_gives_torch_s_training_pass(x64):
    name, path_of = "resnet18/live", BACKBONES["resnet18"].path_of
    variables = recorded_variables("resnet18")
    evaluate = evaluator("resnet18", "live", train=True)
    features, logits, moved, gradient = evaluate(variables)
    assert error(features, RECORDED[f"{name}/features"]) < BOUND
    assert error(logits, RECORDED[f"{name}/logits"]) < BOUND
    check_gradient(name, path_of, gradient)
    before, after = (
        traverse_util.flatten_dict(tree["batch_stats"]) for tree in (variables, moved)
    )
    means, variances = [], []
    for norm, count in zip(
        RECORDED[f"{name}/norms"], RECORDED[f"{name}/counts"], strict=True
    ):
        path = path_of(str(norm))
        means.append(after[*path, "mean"])
        # PyTorch moves the running variance to the batch's unbiased one, Flax the biased.
        kept = 0.9 * before[*path, "var"]
        variances.append(kept + (after[*path, "var"] - kept) * count / (count - 1))
    assert error(np.concatenate(means), RECORDED[f"{name}/running_mean"]) < BOUND
    assert error(np.concatenate(variances), RECORDED[f"{name}/running_var"]) < BOUND


def test_live_batch_norm_moves_every_statistic_of_efficientnet_lite0(x64):
    module, _ = fresh("efficientnet_lite0", batch_norm="live", dtype=jnp.float64)
    variables = recorded_variables("efficientnet_lite0")
    images = IMAGES[:, :32, :32]
    apply = jax.jit(lambda v: module.apply(v, images, True, mutable=["batch_stats"])[1])
    before, after = (
        traverse_util.flatten_dict(tree["batch_stats"])
        for tree in (variables, apply(variables))
    )
    assert all(not np.allclose(after[path], before[path]) for path in before)
    kernel = variables["params"]["stem"]["kernel"]
    stem = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    path = ("stem_norm", "BatchNorm_0", "mean")
    moved = 0.9 * before[path] + 0.1 * stem.mean((0, 1, 2))
    np.testing.assert_allclose(after[path], moved, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize(
    ("batch_norm", "train", "moves"),
    [("live", True, True), ("live", False, False), ("frozen", True, False)],
)
def test_statistics_move_in_live_training_alone(name, batch_norm, train, moves):
    module, shapes = fresh(name, batch_norm=batch_norm)

    def trace():  # the statistics are not declared mutable: moving them is an error
        jax.eval_shape(lambda: module.apply(shapes, IMAGES, train))

    if not moves:
        return trace()
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        trace()


SIZES = pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (1, 2), (3, 4)])


def assert_same_convolution(convolve, kernel, stride, height, width):
    """As the grouped one, with its gradients; in float64 sums of any order agree."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, height, width, 4)))
    w = jnp.asarray(rng.normal(size=(kernel, kernel, 1, 4)))

    @functools.partial(jax.jit, static_argnums=0)
    def run(convolve):
        y, pull = jax.vjp(lambda x, w: jnp.sin(convolve(x, w)), x, w)
        return y, *pull(jnp.cos(y))

    expected = run(lambda x, w: grouped_convolution(x, w, stride))
    for ours, theirs in zip(run(convolve), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@SIZES
@pytest.mark.parametrize("large", [1, 10**9])
def test_shifted_sums_are_the_grouped_convolution(
    x64, kernel, stride, height, width, large, monkeypatch
):
    monkeypatch.setattr("experiments.models.depthwise.LARGE", large)

    def own(x, w):
        return shifted_sums(x, w, stride)

    assert_same_convolution(own, kernel, stride, height, width)


@pytest.mark.parametrize("kernel", [3, 5])
@SIZES
def test_pixel_sums_are_the_grouped_convolution(x64, kernel, height, width):
    assert_same_convolution(pixel_sums, kernel, 1, height, width)


@pytest.mark.parametrize(("kernel", "side"), [(3, 2), (5, 2), (5, 4)])
def test_pixel_sums_keep_no_shifted_copies(kernel, side):
    x, w = jnp.ones((256, side, side, 64)), jnp.ones((kernel, kernel, 1, 64))

    def temporary(convolve):
        step = jax.jit(jax.grad(lambda x, w: jnp.sum(convolve(x, w) ** 2), (0, 1)))
        return step.lower(x, w).compile().memory_analysis().temp_size_in_bytes

    # The output and its gradient; of a third copy what stands between two pixels, for all
    # images, takes an eighth at most.
    assert temporary(pixel_sums) < 3 * x.nbytes
    assert temporary(functools.partial(shifted_sums, stride=1)) > 4 * x.nbytes


@pytest.mark.parametrize(
    ("kernel", "stride", "side"),
    [(5, 1, 2), (5, 1, 1), (3, 1, 1), (5, 2, 2), (5, 1, 3), (5, 1, 4), (5, 1, 5)],
)
def test_a_layer_is_the_grouped_convolution(kernel, stride, side):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    module = DepthwiseConv(kernel, stride)
    variables = module.init(jax.random.key(1), x)
    theirs = grouped_convolution(x, variables["params"]["kernel"], stride)
    np.testing.assert_allclose(module.apply(variables, x), theirs, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("side", [4, 9])
def test_positions_of_another_size_are_timm_s(side):
    positions = made.weight("pos_embed", (1, 1 + 36, 8)).astype(np.float32)
    resized = resize_positions(positions, 1 + side * side)
    np.testing.assert_allclose(resized, RECORDED[f"positions/{side}"], atol=1e-6)


def test_a_vit_takes_positions_of_another_size_and_no_other_tokens():
    _, shapes = fresh("vit_s16")
    state = torch_state("vit_s16")
    path_of = BACKBONES["vit_s16"].path_of
    large = {**state, "pos_embed": made.weight("pos_embed", (1, 1 + 14 * 14, 384))}
    loaded = from_torch(large, path_of, shapes)["params"]["pos_embed"]
    np.testing.assert_allclose(loaded[:, 0], large["pos_embed"][:, 0], rtol=1e-6)
    distilled = {**state, "pos_embed": np.zeros((1, 2 + 14 * 14, 384))}
    with pytest.raises(ValueError, match=r"\(1, 198, 384\): expected one class token"):
        from_torch(distilled, path_of, shapes)
