"""What is measured is what was meant, on the images that were meant."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.studies.kit.probes import Trained, _domain_gradients, unseen_concepts
from experiments.training.parts import memory_parts


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
