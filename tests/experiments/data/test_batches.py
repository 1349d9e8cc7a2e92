import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import DomainData
from experiments.data.augment import scale_pixels
from experiments.data.batches import draw_batch, draw_merged, random_shift, stack_domains

RNG = np.random.default_rng(0)
COUNTS = (7, 3, 11)
# Every image is flat in the number of its domain and position, so that it can be traced.
DATA = DomainData(
    name="made-up",
    domains=("a", "b", "c"),
    classes=("x", "y"),
    images=tuple(
        np.tile((20 * d + np.arange(n)).astype(np.uint8)[:, None, None, None], (1, 4, 4, 3))
        for d, n in enumerate(COUNTS)
    ),
    labels=tuple((np.arange(n) % 2).astype(np.int32) for n in COUNTS),
    groups=tuple(np.arange(n, dtype=np.int32) for n in COUNTS),
    flip=True,
    description="flat images",
)
KEY = jax.random.key(0)


def draw(step, domains=(0, 1, 2), batch_size=64, **changes):
    arguments = {"batch_size": batch_size, "shift": 0, "flip": False, **changes}
    return draw_batch(
        jax.tree.map(jnp.asarray, stack_domains(DATA, list(domains))),
        KEY,
        step,
        **arguments,
    )


def positions(batch):
    """The numbers of the images, a row for each domain."""
    found = np.rint(np.asarray(batch.images)[:, 0, 0, 0] * 255).astype(int)
    return found.reshape(len(np.unique(batch.domains)), -1)


def test_every_row_holds_its_own_domain_with_its_own_labels():
    batch = draw(0)
    assert batch.images.shape == (3 * 64, 4, 4, 3)
    np.testing.assert_array_equal(batch.domains, np.repeat([0, 1, 2], 64))
    for domain, (found, labels) in enumerate(
        zip(positions(batch), batch.labels.reshape(3, 64), strict=True)
    ):
        assert set(found // 20) == {domain}
        np.testing.assert_array_equal(labels, found % 20 % 2)


def test_all_images_of_a_domain_are_drawn_about_equally_often():
    found = np.concatenate([positions(draw(step, batch_size=500)) for step in range(4)], 1)
    for domain, count in enumerate(COUNTS):
        seen = np.bincount(found[domain] - 20 * domain, minlength=count)
        assert len(seen) == count
        np.testing.assert_allclose(seen, 2000 / count, rtol=0.25)


def test_left_out_domains_do_not_occur():
    assert set((positions(draw(0, domains=(2, 0))) // 20).ravel()) == {0, 2}


def test_a_batch_is_a_function_of_key_and_step():
    np.testing.assert_array_equal(draw(3).images, draw(3).images)
    assert (positions(draw(3)) != positions(draw(4))).any()


def test_a_merged_batch_holds_each_domain_by_its_share():
    data = jax.tree.map(jnp.asarray, stack_domains(DATA, [0, 1, 2]))
    batch = draw_merged(data, KEY, 0, batch_size=6300, shift=0, flip=False)
    found = np.rint(np.asarray(batch.images)[:, 0, 0, 0] * 255).astype(int)
    np.testing.assert_array_equal(found // 20, batch.domains)
    np.testing.assert_array_equal(found % 20 % 2, batch.labels)
    # 300 for each image; five standard deviations.
    for domain, count in enumerate(COUNTS):
        seen = np.bincount(found[found // 20 == domain] - 20 * domain, minlength=count)
        np.testing.assert_allclose(seen, 300, atol=5 * 300**0.5)


@pytest.mark.parametrize("draw", [draw_batch, draw_merged])
def test_room_behind_the_images_changes_no_batch(draw):
    """So runs that are trained on more or fewer images have arrays of one shape."""
    room = sum(map(len, DATA.labels)) + 5
    for domains in ([0, 1], [2], [2, 0, 1]):
        own, filled = stack_domains(DATA, domains), stack_domains(DATA, domains, room)
        assert len(filled.images) == len(filled.labels) == room
        chex.assert_trees_all_equal(
            *(
                draw(
                    jax.tree.map(jnp.asarray, x), jax.random.key(3), 7, 6, 2, True
                )._replace(key=None)
                for x in (own, filled)
            )
        )


def test_flips_half_of_the_images():
    images = RNG.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    data = jax.tree.map(jnp.asarray, stack_domains(DATA, [0]))._replace(
        images=images, starts=np.array([0]), counts=np.array([1])
    )
    batch = draw_batch(data, KEY, 0, batch_size=400, shift=0, flip=True)
    plain = np.asarray(scale_pixels(images[0]))
    mirrored = np.array([np.array_equal(x, plain[:, ::-1]) for x in batch.images])
    same = np.array([np.array_equal(x, plain) for x in batch.images])
    assert (mirrored ^ same).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.08)


def test_random_shift_moves_by_up_to_the_limit_and_repeats_the_edge():
    image = np.arange(36.0).reshape(1, 6, 6, 1)
    moved = np.asarray(random_shift(KEY, np.repeat(image, 300, 0), 2))
    padded = np.pad(image[0], ((2, 2), (2, 2), (0, 0)), mode="edge")
    possible = [padded[i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
    seen = {
        next(k for k, p in enumerate(possible) if np.array_equal(p, found))
        for found in moved
    }
    assert seen == set(range(25))


def test_pixels_are_scaled_to_zero_and_one():
    np.testing.assert_allclose(scale_pixels(np.array([0, 255], np.uint8)), [0.0, 1.0])


def test_every_step_has_a_key_of_its_own():
    keys = [jax.random.key_data(draw(step).key) for step in (0, 1)]
    assert (keys[0] != keys[1]).any()
