"""Batches from images held on the device, drawn and augmented in JAX.

A batch is a function of (seed, step) alone, so a run goes on anywhere as if it had never
stopped.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import DomainData
from experiments.data.augment import scale_pixels
from experiments.devices import Layout

Array = jax.Array | np.ndarray


class TrainingImages(NamedTuple):
    """The training images of M source domains, one after another.

    Attributes:
      images: uint8 [N, H, W, 3].
      labels: int32 [N].
      starts: int32 [M], where each domain begins.
      counts: int32 [M], how many images it has.
    """

    images: Array
    labels: Array
    starts: Array
    counts: Array


class Batch(NamedTuple):
    """A batch of examples, each with its domain.

    Attributes:
      images: float32 [N, H, W, 3] in [0, 1].
      labels: int32 [N].
      domains: int32 [N], positions among the source domains.
      key: of this step, for dropout.
    """

    images: jax.Array
    labels: jax.Array
    domains: jax.Array
    key: jax.Array


def batch_shardings(layout: Layout) -> Batch:
    """Where a batch lies: its examples spread over the devices, its key on all of them."""
    spread = layout.spread
    return Batch(spread, spread, spread, layout.replicated)  # pyright: ignore[reportArgumentType]


def stack_domains(
    data: DomainData, domains: Sequence[int], room: int | None = None
) -> TrainingImages:
    """The images of the domains with these indices, one after another.

    Args:
      data: the part to train on.
      domains: positions of the source domains.
      room: N that is filled up to, behind the last image, where no batch draws: so runs
        that hold out other images, or another domain, still share one program.
    """
    counts = np.array([len(data.labels[d]) for d in domains], np.int32)
    behind = max(0, (room or 0) - counts.sum())

    def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
        joined = np.concatenate([parts[d] for d in domains])
        return np.pad(joined, [(0, behind)] + [(0, 0)] * (joined.ndim - 1))

    return TrainingImages(
        images=stacked(data.images),
        labels=stacked(data.labels).astype(np.int32),
        starts=(np.cumsum(counts) - counts).astype(np.int32),
        counts=counts,
    )


def draw_batch(
    training: TrainingImages,
    key: jax.Array,
    step: int | jax.Array,
    batch_size: int,
    shift: int,
    flip: bool,
) -> Batch:
    """Draws batch_size examples of every domain, with replacement, and augments them.

    Args:
      training: the images to draw from.
      key: of the run.
      step: of the batch; the same key and step give the same batch.
      batch_size: examples per domain, B.
      shift: images move by up to this many pixels along each axis.
      flip: whether half of the images are mirrored.

    Returns:
      The batch, N = M * batch_size, domain after domain.
    """
    picked, *others = _keys(key, step)
    shape = (len(training.counts), batch_size)
    within = jax.random.randint(picked, shape, 0, training.counts[:, None])
    index = (training.starts[:, None] + within).reshape(-1)
    domains = jnp.repeat(jnp.arange(shape[0]), batch_size)
    return _augmented(training, index, domains, others, shift, flip)


def draw_merged(
    training: TrainingImages,
    key: jax.Array,
    step: int | jax.Array,
    batch_size: int,
    shift: int,
    flip: bool,
) -> Batch:
    """Draws batch_size examples of all domains together, with replacement.

    A domain has as many of them as its share of the images gives it, and may be absent.

    Args:
      training: the images to draw from.
      key: of the run.
      step: of the batch; the same key and step give the same batch.
      batch_size: examples in all, N.
      shift: images move by up to this many pixels along each axis.
      flip: whether half of the images are mirrored.

    Returns:
      The batch, in the order drawn.
    """
    picked, *others = _keys(key, step)
    ends = jnp.asarray(training.starts + training.counts)
    index = jax.random.randint(picked, (batch_size,), 0, ends[-1])
    domains = jnp.searchsorted(ends, index, side="right")
    return _augmented(training, index, domains, others, shift, flip)


DRAWS = {"balanced": draw_batch, "merged": draw_merged}


def _keys(key: jax.Array, step: int | jax.Array) -> jax.Array:
    """Of the examples drawn, of what is mirrored, of the shifts, and of the step."""
    return jax.random.split(jax.random.fold_in(key, step), 4)


def _augmented(
    training: TrainingImages,
    index: Array,
    domains: jax.Array,
    keys: list[jax.Array],
    shift: int,
    flip: bool,
) -> Batch:
    flipped, shifted, kept = keys
    images = scale_pixels(training.images[index])
    if flip:
        mirror = jax.random.bernoulli(flipped, shape=(len(images), 1, 1, 1))
        images = jnp.where(mirror, images[:, :, ::-1], images)
    if shift:
        images = random_shift(shifted, images, shift)
    return Batch(images, training.labels[index], domains, kept)


def random_shift(key: jax.Array, images: jax.Array, shift: int) -> jax.Array:
    """Moves each image by up to `shift` pixels; its edge is repeated where it leaves."""
    offsets = jax.random.randint(key, (len(images), 2), 0, 2 * shift + 1)
    margin = ((0, 0), (shift, shift), (shift, shift), (0, 0))
    padded = jnp.pad(images, margin, mode="edge")

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*offset, 0), images.shape[1:])

    return jax.vmap(crop)(padded, offsets)
