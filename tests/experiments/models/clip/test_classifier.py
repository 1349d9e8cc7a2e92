import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.models.clip import load_clip
from experiments.models.clip.classifier import CosineClassifier, MarginSoftmax, unit
from experiments.models.clip.model import MEAN, STD
from tests.data.clip import made
from tests.experiments.models.clip.recorded import DATA
from tests.float32 import assert_close

# CLIPOOD's own code on these in float64: (tau, lambda) -> the loss, and the norm of its
# gradient by W of features x W at W = I, where it was recorded.
TEXTS = np.array([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 0.6, 0.8, 0]])
IMAGES = np.array([[0.9, 0.1, 0.3, 0.2], [0.2, 0.8, -0.1, 0.4], [-0.3, 0.5, 0.7, 0.1]])
LABELS = np.arange(3)
RECORDED = {
    (10.0, 0.0): (0.1124098053773447, 0.5552869518706702),
    (10.0, 0.1): (0.14997981959693443, 0.7474695963960467),
    (10.0, 0.3): (0.2913805608599514, 1.5320457085140553),
    (100.0, 0.0): (1.4995377519837054e-06, None),
    (100.0, 0.1): (1.1080990174585793e-05, None),
    (100.0, 0.3): (9.639054593029e-04, None),
}
EACH = [0.45398108, 0.41899317, 0.00116743]  # of (10, 0.3)


def losses(tau, margin, w=None, texts=TEXTS):
    weights = {"head": jnp.asarray(texts), "scale": jnp.log(tau)}
    features = unit(IMAGES @ (np.eye(4) if w is None else w))
    logits = tau * features @ unit(weights["head"]).T
    return MarginSoftmax(margin)(weights, logits, jnp.asarray(LABELS))


@pytest.mark.parametrize(("tau", "margin"), RECORDED)
def test_the_margin_softmax_is_clipood_s(x64, tau, margin):
    def mean(w):
        return losses(tau, margin, w).mean()

    value, gradient = jax.value_and_grad(mean)(np.eye(4))
    recorded, norm = RECORDED[tau, margin]
    # The loss is log-sum-exp less a logit of up to tau: both to 2^-53 of that.
    assert abs(value - recorded) < 1e-12
    if norm is not None:
        assert abs(jnp.linalg.norm(gradient) - norm) < 1e-12


def test_the_margin_softmax_of_each_example(x64):
    np.testing.assert_allclose(losses(10.0, 0.3), EACH, atol=5e-9)  # as many digits


def test_the_margin_is_asked_of_every_wrong_class_by_how_unlike_it_is(x64):
    """The other form of the same: tau lambda (1 - cos(t_y, t_k)) is added to wrong k."""
    tau, margin = 10.0, 0.3
    logits = tau * unit(IMAGES) @ TEXTS.T + tau * margin * (1 - TEXTS @ TEXTS.T)[LABELS]
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    np.testing.assert_allclose(losses(tau, margin), expected, atol=1e-12)
    # A head that moved is looked at as the model does, at length 1.
    longer = losses(tau, margin, texts=TEXTS * [[2.0], [0.5], [7.0]])
    np.testing.assert_allclose(longer, expected, atol=1e-12)


@pytest.fixture(scope="module")
def clip():
    return load_clip(DATA / "open_clip.pth", "gelu")


def test_logits_are_scaled_cosines_to_the_classes_texts(clip):
    """Of images in [0, 1], against the features that a user of the model gets."""
    images = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
    texts = clip.text_features(["owl", "", "dog"])
    weights = {"backbone": clip.weights["image"], "head": texts, "scale": np.log(20.0)}
    model = CosineClassifier(clip.sizes, clip.activation)
    logits, features = model.apply({"params": weights}, images, train=True)
    expected = np.asarray(clip.image_features((images - MEAN) / STD), np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert_close(features, expected)
    texts = np.asarray(texts, np.float64)
    cosines = expected @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    assert_close(logits, 20 * cosines)


@pytest.mark.slow
def test_low_precision_is_the_towers_alone(clip):
    weights = {
        "backbone": clip.weights["image"],
        "head": clip.text_features(["owl", "dog"]),
        "scale": clip.weights["scale"],
    }
    images = np.clip(0.3 * made.images(16) + 0.5, 0, 1)
    found = [
        CosineClassifier(clip.sizes, "gelu", jnp.dtype(dtype)).apply(
            {"params": weights}, images, train=False
        )[0]
        for dtype in ("float32", "bfloat16")
    ]
    assert [logits.dtype for logits in found] == [jnp.float32] * 2
    assert_close(found[1], found[0], 0.1)  # roundings of 2^-9 over a block
    assert (found[0] != found[1]).any()
