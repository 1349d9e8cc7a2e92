"""Accuracy and loss of a model on parts of the data."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from experiments.training.halves import (
    Shares,
    half_accuracies,
    pooled_shares,
    right_by_half,
)

CHUNK = 128  # images per call of the model; SAGM's test batch
SEEN, NEW = "seen", "new"  # concepts of an unseen domain's images: trained on, or not

Chunks = Iterable[tuple[np.ndarray, np.ndarray]]  # uint8 images [n, S, S, 3], labels [n]


@dataclasses.dataclass(frozen=True)
class Score:
    """What a model reaches on a part.

    Attributes:
      accuracy: share of right answers, in [0, 1].
      loss: mean cross-entropy in nats.
      count: number of images.
      halves: of open classes, see `halves`.
    """

    accuracy: float
    loss: float
    count: int
    halves: Shares = dataclasses.field(default_factory=dict)


def pooled(scores: Iterable[Score]) -> Score:
    """The score on several parts together."""
    parts = list(scores)
    if len(parts) == 1:
        return parts[0]
    counts = [part.count for part in parts]
    return Score(
        float(np.average([part.accuracy for part in parts], weights=counts)),
        float(np.average([part.loss for part in parts], weights=counts)),
        sum(counts),
        pooled_shares([part.halves for part in parts]),
    )


Name = TypeVar("Name", bound=Hashable)


def score(
    predict: Callable[[np.ndarray], Any],
    parts: Mapping[Name, Chunks],
    seen: Sequence[int] | None = None,
) -> dict[Name, Score]:
    """The score on each part, all read in one stream.

    Args:
      predict: uint8 images [CHUNK, S, S, 3] -> logits [CHUNK, classes].
      parts: name -> its images and labels, in chunks of any size. Calls of the model may
        hold images of several parts; the last one is filled up, so that all have one shape
        and the model is compiled once.
      seen: labels of the base classes, where others are open.

    Returns:
      name -> score.

    Raises:
      ValueError: a part has no images.
    """
    answers: dict[Name, list[np.ndarray]] = {name: [] for name in parts}
    halves: dict[Name, list[dict[str, np.ndarray]]] = {name: [] for name in parts}
    names = list(parts)
    for images, labels, numbers in _calls(list(parts.values())):
        missing = CHUNK - len(labels)
        filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        logits = np.asarray(predict(filled), np.float64)[: len(labels)]
        right = logits.argmax(-1) == labels
        shifted = logits - logits.max(-1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(labels)), labels]
        for number in np.unique(numbers):
            own = numbers == number
            answers[names[number]].append(np.stack([right[own], losses[own]]))
            if seen is not None:
                found = right_by_half(logits[own], labels[own], seen)
                halves[names[number]].append(found)
    empty = [str(name) for name, chunks in answers.items() if not chunks]
    if empty:
        raise ValueError(f"there are no images to evaluate on in {', '.join(empty)}")
    whole = {name: np.concatenate(chunks, axis=1) for name, chunks in answers.items()}
    return {
        name: Score(
            float(right.mean()), float(losses.mean()), len(losses), _shares(halves[name])
        )
        for name, (right, losses) in whole.items()
    }


def _shares(calls: Sequence[Mapping[str, np.ndarray]]) -> Shares:
    """Of the images of all calls."""
    found = {}
    for name in calls[0] if calls else ():
        right = np.concatenate([call[name] for call in calls])
        if len(right):
            found[name] = (float(right.mean()), len(right))
    return found


def _calls(
    parts: Sequence[Chunks],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images, labels and numbers of parts, CHUNK at a time, the last call with fewer."""
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def joined() -> list[np.ndarray]:
        return [np.concatenate(arrays) for arrays in zip(*waiting, strict=True)]

    for number, chunks in enumerate(parts):
        for images, labels in chunks:
            waiting.append((images, labels, np.full(len(labels), number)))
            images, labels, numbers = joined()
            whole = len(labels) - len(labels) % CHUNK
            for start in range(0, whole, CHUNK):
                at = slice(start, start + CHUNK)
                yield images[at], labels[at], numbers[at]
            waiting = [(images[whole:], labels[whole:], numbers[whole:])]
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
    in_split: Mapping[str, Mapping[str, Score]],
) -> dict[str, Any]:
    """One line of the metrics, with all that the selection rules read.

    Args:
      step: the steps done.
      kind: `evaluation`, or `swad` or `bma` for averaged weights.
      unseen: the domain left out of the training; of two, the first.
      out_split: the score on the part of each domain that was held out.
      in_split: the score on the other part of each domain left out, DomainBed's 80 %, on
        concepts that were trained on in other domains (`SEEN`) and on others (`NEW`).

    Returns:
      A flat mapping, accuracies as fractions: of each domain's held-out part, and their
      mean over the source domains; of every domain left out `in_split_accuracy/`, its
      other part, and `scored_accuracy/`, what selection rules report: the same, or, where
      concepts of it were trained on, what was not trained on; and of the unseen domain:
        unseen_concept_accuracy: what was not trained on in any domain. The headline.
        out_of_domain_accuracy: all images.
        validation_accuracy: what is not scored; an oracle selects by it.
        out_of_domain_accuracy/HALF, with open classes: of all images those of a half, see
          `half_accuracies`.
    """
    line: dict[str, Any] = {"step": step, "kind": kind}
    for domain, part in out_split.items():
        line[f"out_split_accuracy/{domain}"] = part.accuracy
    for domain, parts in in_split.items():
        line[f"in_split_accuracy/{domain}"] = pooled(parts.values()).accuracy
        scored, _ = _scored_and_rest(out_split[domain], parts)
        line[f"scored_accuracy/{domain}"] = scored.accuracy
    sources = {domain: part for domain, part in out_split.items() if domain not in in_split}
    for domain, part in sources.items():
        line[f"out_split_loss/{domain}"] = part.loss
    held, parts = out_split[unseen], in_split[unseen]
    _, rest = _scored_and_rest(held, parts)
    line["in_domain_accuracy"] = float(np.mean([p.accuracy for p in sources.values()]))
    line["in_domain_loss"] = float(np.mean([p.loss for p in sources.values()]))
    line["unseen_concept_accuracy"] = not_trained_on(held, parts).accuracy
    whole = pooled([held, *parts.values()])
    line["out_of_domain_accuracy"] = whole.accuracy
    for half, accuracy in half_accuracies(whole.halves).items():
        line[f"out_of_domain_accuracy/{half}"] = accuracy
    line["validation_accuracy"] = rest.accuracy
    return line


def not_trained_on(held: Score, parts: Mapping[str, Score]) -> Score:
    """The score on the images of a domain whose concept was trained on in none.

    Args:
      held: on its held-out part.
      parts: on its other part, under `SEEN` and `NEW`, as `evaluation_line` has them.
    """
    return pooled([held, *(part for kind, part in parts.items() if kind == NEW)])


def _scored_and_rest(held: Score, parts: Mapping[str, Score]) -> tuple[Score, Score]:
    """What selection rules report of a domain left out, and the part that is left."""
    if SEEN in parts:
        return not_trained_on(held, parts), parts[SEEN]
    return parts[NEW], held
