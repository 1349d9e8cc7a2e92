"""Batches from images on the disk, read ahead by grain, a function of (seed, step) alone.

A source is any random-access object: `source[i]` has `image`, the bytes of a file, and
`label`, and may have `filename`; a TFDS data source is one.

Threads, not processes, read ahead: PIL frees the interpreter while it decodes and resizes,
and nothing has to be pickled.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from experiments.data.transforms import VIEWS, decode, random_resized_crop

THREADS = min(os.cpu_count() or 1, 16)  # each keeps two batches, and all share one GIL

Examples = Sequence[Sequence[int]]  # (domain, position in its source) of each


class ImageBatch(NamedTuple):
    """Examples on the host.

    Attributes:
      images: uint8 [N, S, S, 3].
      labels: int32 [N].
      domains: int32 [N], positions among the sources.
    """

    images: np.ndarray
    labels: np.ndarray
    domains: np.ndarray


def balanced(
    sources: Sequence[Any],
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    indices: Sequence[np.ndarray],
    min_crop: float = 0.7,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """Batches with batch_size examples of every source, source after source.

    Each source is shuffled anew for every pass over it; a small one is passed more often.
    DomainBed draws with replacement instead.

    Args:
      sources: one per domain.
      batch_size: examples of each source in a global batch, B.
      image_size: side of the images in pixels, S.
      seed: of the order and the crops.
      indices: per source, the positions to take.
      min_crop: smallest share of the area that a crop keeps.
      process_index: which share of each global batch to read.
      process_count: of how many shares; one after another they are the batch of one
        process.

    Returns:
      `stream[step]` is the ImageBatch of that step.

    Raises:
      ValueError: a source has no examples, batch_size does not divide among the
        processes, or min_crop is no share. When read: a record cannot be decoded; the
        message names its file.
    """
    share = _share(batch_size * len(indices), process_index, process_count)
    orders = [
        _shuffled(len(part), seed, d).repeat().batch(batch_size)
        for d, part in enumerate(indices)
    ]

    def examples(step: int) -> Examples:
        return [
            (d, i)
            for d, order in enumerate(orders)
            for i in indices[d][order[step]].tolist()
        ]

    return _stream(sources, examples, share, image_size, seed, min_crop)


def merged(
    sources: Sequence[Any],
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    indices: Sequence[np.ndarray],
    min_crop: float = 0.7,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """Batches of the sources shuffled together, as the DISAM release loads them.

    A batch holds batch_size examples in all, any number of each source; the last ones of a
    pass that fill no batch are dropped. Arguments, result and errors are those of
    `balanced`, and there must be batch_size examples.
    """
    share = _share(batch_size, process_index, process_count)
    domains = np.repeat(np.arange(len(indices)), [len(part) for part in indices])
    pool = np.stack([domains, np.concatenate(indices)], axis=1)
    if len(pool) < batch_size:
        raise ValueError(
            f"batch_size must be at most {len(pool)}, the examples there are; "
            f"got {batch_size}."
        )
    order = _shuffled(len(pool), seed, len(sources))
    order = order.batch(batch_size, drop_remainder=True).repeat()

    def examples(step: int) -> Examples:
        return pool[order[step]].tolist()

    return _stream(sources, examples, share, image_size, seed, min_crop)


def iterate(
    stream: grain.MapDataset, start: int = 0, *, threads: int = THREADS
) -> Iterator[ImageBatch]:
    """The batches from step `start` on, read ahead in threads.

    Args:
      stream: of `balanced` or `merged`.
      start: the first step.
      threads: that read, each a batch at a time; 0 reads a batch when it is asked for.

    Returns:
      An iterator, endless as the stream is.
    """
    return iter(stream.slice(slice(start, None)).to_iter_dataset(_ahead(threads)))


def evaluation_chunks(
    source: Any,
    indices: np.ndarray,
    image_size: int,
    chunk: int,
    threads: int = THREADS,
    view: str = "whole",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The examples at `indices` in order, read ahead in threads.

    Args:
      source: of one domain.
      indices: positions in it.
      image_size: side of the images in pixels, S.
      chunk: examples at a time; the last chunk may be shorter.
      threads: that read, each a chunk at a time.
      view: of an image, a key of `VIEWS`.

    Returns:
      An iterator of images, uint8 [n, S, S, 3], and labels, int32 [n].

    Raises:
      ValueError: when read, a record cannot be decoded; the message names its file.
    """

    def read(start: int) -> tuple[np.ndarray, np.ndarray]:
        records = [source[int(i)] for i in indices[start : start + chunk]]
        images = [VIEWS[view](_decoded(record), image_size) for record in records]
        labels = [record["label"] for record in records]
        return np.stack(images), np.array(labels, np.int32)

    starts = grain.MapDataset.range(0, len(indices), chunk)
    return iter(starts.map(read).to_iter_dataset(_ahead(threads)))


def _ahead(threads: int) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)


def _shuffled(count: int, seed: int, which: int) -> grain.MapDataset:
    """0..count - 1; each pass over them is shuffled by itself.

    Grain computes each place when it is asked for: 20 us among 1670, 1 ms among 32.
    """
    if not count:
        raise ValueError(f"source {which} has no examples to train on")
    # A seed of its own: sources of one length would else be shuffled alike. Nor may it be
    # a neighbor's, as grain counts it up by one for each pass.
    own = int(np.random.SeedSequence((seed, which)).generate_state(1)[0])
    return grain.MapDataset.range(count).seed(own).shuffle()


def _share(size: int, index: int, count: int) -> slice:
    """Which examples of a global batch of `size` this process reads."""
    if size < 1:
        raise ValueError(f"batch_size must be at least 1; got {size}")
    if count < 1 or size % count:
        raise ValueError(f"process_count must divide a batch of {size}; got {count}")
    if not 0 <= index < count:
        raise ValueError(f"process_index must be in 0..{count - 1}; got {index}")
    return slice(index * size // count, (index + 1) * size // count)


def _stream(
    sources: Sequence[Any],
    examples: Callable[[int], Examples],
    share: slice,
    size: int,
    seed: int,
    min_crop: float,
) -> grain.MapDataset:
    if not 0 < min_crop <= 1:
        raise ValueError(f"min_crop must be in (0, 1]; got {min_crop}")

    def read(step: int) -> ImageBatch:
        chosen = list(enumerate(examples(step)))[share]
        images, labels = [], []
        for slot, (domain, position) in chosen:
            record = sources[domain][position]
            rng = np.random.default_rng((seed, step, slot))
            images.append(random_resized_crop(_decoded(record), rng, size, min_crop))
            labels.append(record["label"])
        domains = [domain for _, (domain, _) in chosen]
        return ImageBatch(
            np.stack(images), np.array(labels, np.int32), np.array(domains, np.int32)
        )

    return grain.MapDataset.range(sys.maxsize).map(lambda step: read(int(step)))


def _decoded(record: Any) -> Any:
    try:
        return decode(record["image"])
    except Exception as error:  # decoders raise anything on bytes that are not theirs
        name = record.get("filename", "an image without a name")
        name = name.decode() if isinstance(name, bytes) else name
        raise ValueError(f"{name} cannot be decoded: {error}") from error
