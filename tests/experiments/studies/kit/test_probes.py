"""What is measured is what was meant, on the images that were meant."""

from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.data.open_classes import base_classes
from experiments.studies.kit.probes import Trained, _domain_gradients, unseen_concepts
from experiments.studies.kit.run import Spec, train_spec
from experiments.training.parts import memory_parts

CLIP = Path(__file__).parents[3] / "data/clip"


def test_gradients_of_domains_are_of_batches_and_of_all_images_together():
    # Of |w - x|^2 / 2 the gradient is w - mean x.
    images = np.random.default_rng(0).normal(size=(4, 3, 5, 2))  # B, M, size, features

    def loss(params, batch):
        return jnp.mean(jnp.sum((params["w"] - batch[0]) ** 2, -1)) / 2

    params = {"w": jnp.array([1.0, -2.0])}
    labels = jnp.zeros((4, 3, 5), jnp.int32)
    found = _domain_gradients(loss, params, (jnp.asarray(images), labels))
    away = np.asarray(params["w"]) - images
    g = away.mean(2)
    for name, expected in (
        ("batch_losses", (away**2).sum(-1).mean(-1) / 2),
        ("batch_grams", g @ g.swapaxes(1, 2)),
        ("domain_losses", (away**2).sum(-1).mean((0, 2)) / 2),
        ("domain_gram", g.mean(0) @ g.mean(0).T),
    ):
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("data", "unseen"), [("emoji_styles", "noto"), ("rotated_digits", "0")]
)
def test_unseen_concepts_are_those_that_no_source_shows(data, unseen):
    config = make_config(data=data, method="sam", unseen=unseen, seed=3)
    whole = load(data, image_size=16)
    d = whole.domain_index(unseen)
    sources = [i for i in range(len(whole.domains)) if i != d]
    # In place of its class, an image is labelled by its group.
    train, heldout = (
        SimpleNamespace(
            images=part.images,
            labels=part.groups,
            groups=part.groups,
            domain_index=part.domain_index,
        )
        for part in memory_parts(config, whole)
    )
    trained = Trained(config, None, None, train, heldout, sources)  # pyright: ignore[reportArgumentType]
    images, groups = unseen_concepts(trained)
    of_sources = np.concatenate([train.groups[i] for i in sources])
    expected = np.setdiff1d(whole.groups[d], of_sources)
    np.testing.assert_array_equal(np.sort(groups), expected)
    assert len(images) == len(groups) > 100


def of_the_smallest_clip(**changes):
    small = {
        "model": "clip",
        "weights": str(CLIP / "open_clip.pth"),
        "activation": "gelu",
        "image_size": 16,
        "batch_size": 2,
        "shift": 0,
        "open_classes": 0.5,
        **changes,
    }
    return make_config(
        data="emoji_styles", method="erm", unseen="mono", seed=0, overrides=small
    )


def test_open_classes_are_scored_by_halves_for_both_weights():
    config = of_the_smallest_clip(tuning="linear", steps=2, bma=0.5, learning_rate=0.1)
    outcome = train_spec(Spec(config, probes=("scores", "averaged_scores")))
    [look] = outcome["looks"]
    data = load("emoji_styles", image_size=16)
    share = np.isin(data.labels[3], base_classes(data.classes, 0.5)).mean()
    for prefix in ("", "averaged_"):
        base, new = (look[f"{prefix}{half}_accuracy"] for half in ("base", "new"))
        whole = look[f"{prefix}out_of_domain_accuracy"]
        assert whole == pytest.approx(share * base + (1 - share) * new)
    assert look["averaged_in_domain_loss"] != look["in_domain_loss"]
    assert outcome["steps"] == [2] and look["step"] == 2


def test_zero_shot_is_looked_at_before_any_step():
    outcome = train_spec(Spec(of_the_smallest_clip(tuning="zero_shot", bma=0.0)))
    [look] = outcome["looks"]
    assert look["step"] == 0 and outcome["losses"] == [] and "new_accuracy" in look
