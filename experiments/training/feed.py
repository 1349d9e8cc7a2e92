"""What a run reads: batches of the source domains, and the parts it is evaluated on."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.augment import augment
from experiments.data.batches import (
    DRAWS,
    Batch,
    TrainingImages,
    batch_shardings,
    stack_domains,
)
from experiments.data.holdout import concepts_seen
from experiments.data.prepare import Prepared
from experiments.data.streams import balanced, evaluation_chunks, iterate, merged
from experiments.devices import Layout, one_device
from experiments.fields import check_at_least
from experiments.methods.registry import find_method
from experiments.models.registry import UNTRAINED
from experiments.training.evaluation import CHUNK, NEW, SEEN, Chunks, in_chunks
from experiments.training.parts import (
    check_parts,
    known_at,
    known_classes,
    memory_parts,
    prepared_parts,
    source_positions,
    unseen_positions,
)

KEEP_DECODED = 2 * 2**30  # bytes; a data set below that is decoded for evaluation once


@functools.lru_cache(maxsize=16)
def _draw(batching: str, layout: Layout) -> Callable[..., Batch]:
    return jax.jit(
        DRAWS[batching],
        static_argnames=("batch_size", "shift", "flip"),
        out_shardings=batch_shardings(layout),
    )


@functools.lru_cache(maxsize=16)
def _augment(layout: Layout) -> Callable[..., jax.Array]:
    return jax.jit(
        augment, static_argnames=("jitter", "grayscale"), out_shardings=layout.spread
    )


@dataclasses.dataclass(frozen=True)
class Feed:
    """The data of one run.

    Attributes:
      sources: names of the domains that are trained on.
      batches: step -> the batches from that step on, without end; a batch is a function
        of the seed and its step alone.
      out_split: domain -> a call that reads its held-out part, of a source domain the
        images of classes that are trained on.
      in_split: domain left out -> calls that read its other part: under `SEEN` the images
        of concepts whose other pictures are trained on, under `NEW` the others.
      epoch_steps: batches in one pass over the sources.
      new_split: source domain -> a call that reads the others of its held-out part, where
        some classes are open.
      images: that batches are drawn from, where the data is held in memory.
    """

    sources: list[str]
    batches: Callable[[int], Iterator[Batch]]
    out_split: dict[str, Callable[[], Chunks]]
    in_split: dict[str, dict[str, Callable[[], Chunks]]]
    epoch_steps: int
    new_split: dict[str, Callable[[], Chunks]]
    images: TrainingImages | None = None


def make_feed(
    config: RunConfig, data: DomainData | Prepared, layout: Layout | None = None
) -> Feed:
    """Returns what a run of `config` reads.

    Args:
      config: of the run.
      data: held in memory, or prepared on the disk.
      layout: where the batches lie; None is one device.

    Returns:
      The feed.

    Raises:
      ValueError: the unseen domain is not one of the data's, the config asks for a split
        or batches that such data does not have, a domain is too small for them, or the
        devices do not divide a batch.
    """
    layout = layout or one_device()
    if isinstance(data, Prepared):
        return _prepared_feed(config, data, layout)
    return _memory_feed(config, data, layout)


def with_steps(
    config: RunConfig, data: DomainData | Prepared, gradients: float | None = None
) -> RunConfig:
    """The config with the steps that its epochs, or a budget of gradients, ask for.

    It is also seen here, before anything is trained, that the data is enough for it.

    Args:
      config: of a run.
      data: that it names.
      gradients: of a whole batch, that the run may take; None asks for no such thing.

    Returns:
      The config; itself where nothing is asked for, or nothing is trained.

    Raises:
      ValueError: the budget is not enough for one step, or a domain is too small.
    """
    check_parts(config, data)
    if config.preset.tuning in UNTRAINED:  # it takes no gradient, whatever it may take
        return config
    if gradients is not None:
        check_at_least("gradients", gradients, 0)
        method = find_method(config.method)
        per_step = method.gradients(
            config.hyperparameters, len(config.sources(data.domains))
        )
        steps = round(gradients / per_step)
        if steps < 1:
            raise ValueError(
                f"gradients must be at least {per_step:g}, one step of {method.name}; "
                f"got {gradients:g}."
            )
        # Said in gradients, and no longer in epochs.
        preset = dataclasses.replace(config.preset, steps=steps, epochs=0.0)
    elif config.preset.epochs:
        steps = max(1, round(config.preset.epochs * make_feed(config, data).epoch_steps))
        preset = dataclasses.replace(config.preset, steps=steps)
    else:
        return config
    return dataclasses.replace(config, preset=preset)


def batch_examples(config: RunConfig, data: DomainData | Prepared) -> int:
    """Number of examples in a batch of a run."""
    merged = config.preset.batching == "merged"
    return config.preset.batch_size * (1 if merged else len(config.sources(data.domains)))


def batch_key(config: RunConfig) -> jax.Array:
    """The key that a run's batches are drawn with."""
    return jax.random.split(jax.random.key(config.seed))[1]


def _memory_feed(config: RunConfig, data: DomainData, layout: Layout) -> Feed:
    preset = config.preset
    unseen = unseen_positions(config, data)
    train, heldout = memory_parts(config, data)
    sources = source_positions(config, data)
    seen = concepts_seen(train, sources)
    layout.check_batch(batch_examples(config, data))
    room = int(data.counts().sum())
    images = layout.put(stack_domains(train, sources, room), layout.replicated)
    draw = functools.partial(
        _draw(preset.batching, layout),
        images,
        batch_key(config),
        batch_size=preset.batch_size,
        shift=preset.shift,
        flip=data.flip,
    )

    def batches(step: int) -> Iterator[Batch]:
        while True:
            yield draw(step)
            step += 1

    known = known_classes(config, data, heldout.labels)

    def chunks(domain: int, mask: np.ndarray) -> Callable[[], Chunks]:
        images, labels = heldout.images[domain], heldout.labels[domain]
        return functools.partial(in_chunks, images[mask], labels[mask])

    return Feed(
        sources=[data.domains[d] for d in sources],
        batches=batches,
        out_split={name: chunks(d, known[d]) for d, name in enumerate(data.domains)},
        new_split=new_split(data.domains, known, chunks),
        in_split={name: by_concept(train, d, seen[d]) for name, d in unseen.items()},
        epoch_steps=sum(len(train.labels[d]) for d in sources)
        // batch_examples(config, data),
        images=images,
    )


def new_split(
    domains: Sequence[str],
    known: Sequence[np.ndarray],
    chunks: Callable[[int, np.ndarray], Callable[[], Chunks]],
) -> dict[str, Callable[[], Chunks]]:
    """Per domain a call that reads what is not known of its held-out part, if anything.

    `chunks` makes the call, of the domain's position and the mask of that part.
    """
    return {
        name: chunks(d, ~known[d]) for d, name in enumerate(domains) if not known[d].all()
    }


def by_concept(
    train: DomainData, domain: int, seen: np.ndarray
) -> dict[str, Callable[[], Chunks]]:
    """A domain's images, those of concepts that were seen apart from the others.

    Args:
      train: the images that are not held out.
      domain: its position.
      seen: of `concepts_seen`, bool [N_d].

    Returns:
      Under `SEEN` and `NEW` calls that read them; one without images is missing.
    """
    images, labels = train.images[domain], train.labels[domain]
    return {
        kind: functools.partial(in_chunks, images[mask], labels[mask])
        for kind, mask in ((SEEN, seen), (NEW, ~seen))
        if mask.any()
    }


def _prepared_feed(config: RunConfig, data: Prepared, layout: Layout) -> Feed:
    preset = config.preset
    unseen = unseen_positions(config, data)
    parts = prepared_parts(config, data)
    names = config.sources(data.domains)
    indices = [parts[data.domain_index(name)][0] for name in names]
    make_stream = balanced if preset.batching == "balanced" else merged
    size = batch_examples(config, data)
    layout.check_batch(size)
    stream = make_stream(
        [data.records(name) for name in names],
        batch_size=preset.batch_size,
        image_size=preset.image_size,
        seed=config.seed,
        indices=indices,
        min_crop=preset.min_crop,
        process_index=jax.process_index() if layout.process_count > 1 else 0,
        process_count=layout.process_count,
    )
    key = batch_key(config)

    def batches(step: int) -> Iterator[Batch]:
        for at, read in enumerate(iterate(stream, step), start=step):
            augmented, kept = jax.random.split(jax.random.fold_in(key, at))
            images = _augment(layout)(
                augmented,
                layout.join(read.images),
                jitter=preset.jitter,
                grayscale=preset.grayscale,
            )
            yield Batch(images, layout.join(read.labels), layout.join(read.domains), kept)

    def read(domain: int, part: np.ndarray) -> Callable[[], Chunks]:
        return lambda: _read(data, domain, part, preset.image_size, preset.view)

    heldout = [held for _, held in parts]
    known = known_at(config, data, heldout)

    def chunks(domain: int, mask: np.ndarray) -> Callable[[], Chunks]:
        return read(domain, heldout[domain][mask])

    return Feed(
        sources=names,
        batches=batches,
        out_split={name: chunks(d, known[d]) for d, name in enumerate(data.domains)},
        new_split=new_split(data.domains, known, chunks),
        in_split={name: {NEW: read(d, parts[d][0])} for name, d in unseen.items()},
        epoch_steps=sum(map(len, indices)) // size,
    )


def _read(data: Prepared, domain: int, part: np.ndarray, size: int, view: str) -> Chunks:
    name = data.domains[domain]
    if sum(data.counts.values()) * size * size * 3 > KEEP_DECODED:
        return evaluation_chunks(data.records(name), part, size, CHUNK, view=view)
    images, labels = _decoded(data, name, size, view)
    return in_chunks(images[part], labels[part])


@functools.lru_cache(maxsize=16)
def _decoded(
    data: Prepared, name: str, size: int, view: str
) -> tuple[np.ndarray, np.ndarray]:
    records = data.records(name)
    everything = np.arange(len(records))
    chunks = list(evaluation_chunks(records, everything, size, CHUNK, view=view))
    images, labels = zip(*chunks, strict=True)
    return np.concatenate(images), np.concatenate(labels)
