"""Accuracy and loss of a model on parts of the data."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

CHUNK = 128  # images per call of the model; SAGM's test batch

Chunks = Iterable[tuple[np.ndarray, np.ndarray]]  # uint8 images [n, S, S, 3], labels [n]


@dataclasses.dataclass(frozen=True)
class Score:
    """What a model reaches on a part.

    Attributes:
      accuracy: share of right answers, in [0, 1].
      loss: mean cross-entropy in nats.
      count: number of images.
    """

    accuracy: float
    loss: float
    count: int


def score(
    predict: Callable[[np.ndarray], Any], parts: Mapping[str, Chunks]
) -> dict[str, Score]:
    """The score on each part, all read in one stream.

    Args:
      predict: uint8 images [CHUNK, S, S, 3] -> logits [CHUNK, classes].
      parts: name -> its images and labels, in chunks of any size. Calls of the model may
        hold images of several parts; the last one is filled up, so that all have one shape
        and the model is compiled once.

    Returns:
      name -> score.

    Raises:
      ValueError: a part has no images.
    """
    answers: dict[str, list[np.ndarray]] = {name: [] for name in parts}
    for images, labels, names in _calls(parts):
        missing = CHUNK - len(labels)
        filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        logits = np.asarray(predict(filled), np.float64)[: len(labels)]
        right = logits.argmax(-1) == labels
        shifted = logits - logits.max(-1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(labels)), labels]
        for name in dict.fromkeys(names):
            own = names == name
            answers[name].append(np.stack([right[own], losses[own]]))
    empty = [name for name, chunks in answers.items() if not chunks]
    if empty:
        raise ValueError(f"there are no images to evaluate on in {', '.join(empty)}")
    whole = {name: np.concatenate(chunks, axis=1) for name, chunks in answers.items()}
    return {
        name: Score(float(right.mean()), float(losses.mean()), len(losses))
        for name, (right, losses) in whole.items()
    }


def _calls(
    parts: Mapping[str, Chunks],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images, labels and names of parts, CHUNK at a time, the last call with fewer."""
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def joined() -> list[np.ndarray]:
        return [np.concatenate(arrays) for arrays in zip(*waiting, strict=True)]

    for name, chunks in parts.items():
        for images, labels in chunks:
            waiting.append((images, labels, np.full(len(labels), name)))
            images, labels, names = joined()
            whole = len(labels) - len(labels) % CHUNK
            for start in range(0, whole, CHUNK):
                at = slice(start, start + CHUNK)
                yield images[at], labels[at], names[at]
            waiting = [(images[whole:], labels[whole:], names[whole:])]
    if waiting and len(waiting[0][1]):
        yield waiting[0]


def in_chunks(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple]:
    """Cuts arrays into chunks of at most CHUNK."""
    for start in range(0, len(labels), CHUNK):
        yield images[start : start + CHUNK], labels[start : start + CHUNK]


def evaluation_line(
    step: int,
    kind: str,
    unseen: str,
    out_split: Mapping[str, Score],
    in_split: Mapping[str, Score],
) -> dict[str, Any]:
    """One line of the metrics, with all that the selection rules read.

    Args:
      step: the steps done.
      kind: `evaluation`, or `swad` for averaged weights.
      unseen: the domain left out of the training; of two, the first.
      out_split: the score on the part of each domain that was held out.
      in_split: the score on the other part of each domain left out, DomainBed's 80 %.

    Returns:
      A flat mapping, accuracies as fractions: of each domain's held-out part, their mean
      over the source domains, and of the unseen domain's two parts and the whole; of
      every domain left out its other part.
    """
    line: dict[str, Any] = {"step": step, "kind": kind}
    for domain, part in out_split.items():
        line[f"out_split_accuracy/{domain}"] = part.accuracy
    for domain, part in in_split.items():
        line[f"in_split_accuracy/{domain}"] = part.accuracy
    sources = {domain: part for domain, part in out_split.items() if domain not in in_split}
    for domain, part in sources.items():
        line[f"out_split_loss/{domain}"] = part.loss
    parts = in_split[unseen], out_split[unseen]
    whole = np.average([p.accuracy for p in parts], weights=[p.count for p in parts])
    line["in_domain_accuracy"] = float(np.mean([p.accuracy for p in sources.values()]))
    line["in_domain_loss"] = float(np.mean([p.loss for p in sources.values()]))
    line["out_of_domain_accuracy"] = float(whole)
    line["out_of_domain_in_split_accuracy"] = in_split[unseen].accuracy
    line["out_of_domain_heldout_accuracy"] = out_split[unseen].accuracy
    return line
