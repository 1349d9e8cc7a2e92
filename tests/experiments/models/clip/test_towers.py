import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models.clip.towers import ImageTower, Sizes, TextTower, random_weights

SIZES = Sizes(64, 1, 8, 2, 64, 1, 77, 600, 16)


@pytest.fixture(scope="module")
def text():
    """The text tower's calls, by method, on its random weights."""
    weights = jax.jit(random_weights, static_argnums=0)(SIZES, jax.random.key(0))["text"]
    tower = TextTower(SIZES, "gelu")

    def call(*arguments, method="__call__"):
        return tower.apply({"params": weights}, *arguments, method=method)

    return jax.jit(call, static_argnames="method")


TOKENS = np.zeros((2, 77), np.int32)
TOKENS[0, :4] = 598, 5, 9, 599
TOKENS[1, :9] = 598, 1, 2, 3, 4, 5, 6, 7, 599


def test_features_are_the_same_cut_at_the_last_end_token_or_at_77(text):
    whole, cut = text(TOKENS), text(TOKENS[:, :9])
    # The same sums, but for their order: a few roundings of 2^-24.
    np.testing.assert_allclose(cut, whole, rtol=0, atol=2e-6)
    with pytest.raises(AssertionError):  # a token that is needed is cut
        np.testing.assert_allclose(text(TOKENS[:, :8]), whole, rtol=0, atol=1e-2)


def test_vectors_in_place_of_tokens_give_the_same_bits(text):
    end = jnp.array([3, 8])
    vectors = text(TOKENS[:, :9], method="embed")
    assert vectors.shape == (2, 9, 64) and vectors.dtype == jnp.float32
    encoded = text(vectors, end, method="encode")
    np.testing.assert_array_equal(encoded, text(TOKENS[:, :9]))


def test_a_feature_depends_on_the_tokens_up_to_its_end_and_on_no_others(text):
    vectors = np.array(text(TOKENS[:, :9], method="embed"))
    end = jnp.array([3, 8])
    before = text(vectors, end, method="encode")
    vectors[0, 4:] *= -5
    np.testing.assert_array_equal(text(vectors, end, method="encode"), before)
    vectors[0, 2] *= -5
    moved = np.abs(text(vectors, end, method="encode") - before).max(1)
    assert moved[0] > 0.01 and moved[1] == 0


def test_heads_have_64_numbers_but_for_the_one_model_that_differs():
    for width, heads in ((768, 12), (1024, 16), (1280, 16)):
        assert Sizes(width, 1, 14, 1, 512, 1, 77, 600, 8).image_heads == heads
    with pytest.raises(ValueError, match="image_width is 100"):
        Sizes(100, 1, 14, 1, 512, 1, 77, 600, 8)


def test_vit_b_16_has_the_numbers_that_clip_has():
    sizes = Sizes(768, 12, 16, 14, 512, 12, 77, 49408, 512)
    shapes = jax.eval_shape(lambda: random_weights(sizes, jax.random.key(0)))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert count == 149_620_737
    assert len(jax.tree.leaves(shapes)) == 302
    assert sum(x.size for x in jax.tree.leaves(shapes["image"])) == 86_192_640
    assert ImageTower(sizes, "gelu") == ImageTower(sizes, "gelu")  # compiled once for both
    assert hash(ImageTower(sizes, "gelu")) == hash(ImageTower(sizes, "gelu"))
