"""Open classes: accuracy on base and on new ones, among all and within the half."""

from collections.abc import Mapping, Sequence

import numpy as np

BASE, NEW_CLASSES = "base", "new"
WITHIN = "_within"  # only the classes of the same half stand to choice

Shares = dict[str, tuple[float, int]]  # name -> (share of right answers, images)


def right_by_half(
    logits: np.ndarray, labels: np.ndarray, seen: Sequence[int]
) -> dict[str, np.ndarray]:
    """Which answers are right, of the images of each half of the classes.

    Args:
      logits: [N, K].
      labels: [N].
      seen: labels of the base classes.

    Returns:
      `base` and `new`, right among all K classes; `base_within` and `new_within`, right
      among those of the half. Bool, [images of the half].
    """
    is_base = np.zeros(logits.shape[1], bool)
    is_base[list(seen)] = True
    right = logits.argmax(-1) == labels
    found = {}
    for half, of_half in ((BASE, is_base), (NEW_CLASSES, ~is_base)):
        images = of_half[labels]
        within = np.where(of_half, logits, -np.inf).argmax(-1) == labels
        found |= {half: right[images], half + WITHIN: within[images]}
    return found


def pooled_shares(parts: Sequence[Mapping[str, tuple[float, int]]]) -> Shares:
    """The shares over several parts together; a half without images is missing."""
    found: Shares = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        there = [part[name] for part in parts if name in part]
        count = sum(images for _, images in there)
        found[name] = (sum(share * images for share, images in there) / count, count)
    return found


def half_accuracies(shares: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """`base`, `new`, the same within, and `harmonic`, the mean 2 b n / (b + n) of both."""
    found = {name: share for name, (share, _) in shares.items()}
    if found.keys() >= {BASE, NEW_CLASSES}:
        base, new = found[BASE], found[NEW_CLASSES]
        found["harmonic"] = 2 * base * new / (base + new) if base + new else 0.0
    return found
