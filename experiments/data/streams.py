"""Batches from images on the disk, read ahead by grain, a function of (seed, step) alone.

A source is any random-access object: `source[i]` has `image`, the bytes of a file, and
`label`; a TFDS data source is one.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grain
import numpy as np

from experiments.data.transforms import decode, random_resized_crop, resize

Examples = Sequence[tuple[int, int]]  # (domain, position in its source) of each


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
      process_count: of how many shares; together they are the batch of one process.

    Returns:
      `stream[step]` is the ImageBatch of that step.

    Raises:
      ValueError: a source has no examples, or the global batch does not divide.
    """
    orders = [
        _shuffled(indices[d], seed, d).repeat().batch(batch_size)
        for d in range(len(sources))
    ]

    def examples(step: int) -> Examples:
        return [
            (d, int(indices[d][i])) for d, order in enumerate(orders) for i in order[step]
        ]

    share = _share(batch_size * len(sources), process_index, process_count)
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
    `balanced`.
    """
    pool = [(d, int(i)) for d, part in enumerate(indices) for i in part]
    if len(pool) < batch_size:
        raise ValueError(
            f"batch_size must be at most {len(pool)}, the examples there are; "
            f"got {batch_size}."
        )
    order = _shuffled(pool, seed, len(sources)).batch(batch_size, drop_remainder=True)
    order = order.repeat()

    def examples(step: int) -> Examples:
        return [pool[i] for i in order[step]]

    share = _share(batch_size, process_index, process_count)
    return _stream(sources, examples, share, image_size, seed, min_crop)


def iterate(
    stream: grain.MapDataset, start: int = 0, *, threads: int = 4, ahead: int = 8
) -> Iterator[ImageBatch]:
    """The batches from step `start` on, read ahead in threads.

    Args:
      stream: of `balanced` or `merged`.
      start: the first step.
      threads: that decode; PIL frees the interpreter meanwhile.
      ahead: batches kept ready.

    Returns:
      An endless iterator.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(stream.slice(slice(start, None)).to_iter_dataset(options))


def evaluation_chunks(
    source: Any, indices: np.ndarray, image_size: int, chunk: int, threads: int = 4
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The examples at `indices` in order, resized whole.

    Args:
      source: of one domain.
      indices: positions in it.
      image_size: side of the images in pixels, S.
      chunk: examples at a time; the last chunk may be shorter.
      threads: that decode.

    Yields:
      uint8 [n, S, S, 3] and int32 [n].
    """

    def read(position: int) -> tuple[np.ndarray, int]:
        record = source[int(position)]
        return resize(_decoded(record), image_size), record["label"]

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(indices), chunk):
            images, labels = zip(
                *pool.map(read, indices[start : start + chunk]), strict=True
            )
            yield np.stack(images), np.array(labels, np.int32)


def _shuffled(examples: Sequence[Any], seed: int, which: int) -> grain.MapDataset:
    """Positions in `examples`; each pass over them is shuffled by itself."""
    if not len(examples):
        raise ValueError(f"source {which} has no examples to train on")
    # A seed of its own: sources of one length would else be shuffled alike.
    own = int(np.random.SeedSequence((seed, which)).generate_state(1)[0])
    return grain.MapDataset.range(len(examples)).seed(own).shuffle()


def _share(total: int, index: int, count: int) -> slice:
    if total % count:
        raise ValueError(
            f"a global batch of {total} examples does not divide among {count} processes"
        )
    return slice(index, None, count)


def _stream(
    sources: Sequence[Any],
    examples: Callable[[int], Examples],
    share: slice,
    size: int,
    seed: int,
    min_crop: float,
) -> grain.MapDataset:
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
