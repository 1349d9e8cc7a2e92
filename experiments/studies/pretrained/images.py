"""The images of a run, as the frozen part hands them on, and the batches drawn of them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.batches import Batch, TrainingImages
from experiments.training.parts import memory_parts


class Pool(NamedTuple):
    """All images of a run, one after another.

    Attributes:
      maps: what the frozen part makes of them, float16 [N, VIEWS, H, W, C].
      labels: int [N].
      domains: int [N], positions in the data.
      held: bool [N], whether the concept is held out.
    """

    maps: np.ndarray
    labels: np.ndarray
    domains: np.ndarray
    held: np.ndarray

    def training(self, sources: Sequence[int]) -> TrainingImages:
        """Those of the sources that are trained on; `images` are [N, VIEWS, H, W, C]."""
        rows = [np.flatnonzero((self.domains == d) & ~self.held) for d in sources]
        counts = np.array([len(own) for own in rows], np.int32)
        order = np.concatenate(rows)
        return TrainingImages(
            self.maps[order],
            self.labels[order].astype(np.int32),
            (np.cumsum(counts) - counts).astype(np.int32),
            counts,
        )


def pool(config: RunConfig, data: DomainData, maps: np.ndarray) -> Pool:
    """The images of a run: which are held out follows from its seed."""
    _, heldout = memory_parts(config, data)
    held = [np.isin(*pair) for pair in zip(data.groups, heldout.groups, strict=True)]
    domains = np.repeat(np.arange(len(data.domains)), [len(y) for y in data.labels])
    return Pool(maps, np.concatenate(data.labels), domains, np.concatenate(held))


def draw_views(
    training: TrainingImages,
    key: jax.Array,
    step: int | jax.Array,
    batch_size: int,
    permuted: bool = False,
) -> Batch:
    """Draws batch_size views of every domain; of one key and step they are the same."""
    picked, seen, dealt, kept = jax.random.split(jax.random.fold_in(key, step), 4)
    shape = (len(training.counts), batch_size)
    within = jax.random.randint(picked, shape, 0, training.counts[:, None])
    index = (training.starts[:, None] + within).reshape(-1)
    view = jax.random.randint(seen, index.shape, 0, training.images.shape[1])
    domains = jnp.repeat(jnp.arange(shape[0]), batch_size)
    if permuted:
        domains = jax.random.permutation(dealt, domains)
    images = jnp.asarray(training.images)[index, view].astype(jnp.float32)
    return Batch(images, jnp.asarray(training.labels)[index], domains, kept)
