"""A picture of a data set: one row per domain, a few images of every class.

Run as `python -m experiments.data.contact_sheet --data NAME --out FILE`.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.data import DATASETS, DomainData, load

PER_CLASS = 3
_GAP = 0.25  # of an image's side, between classes and between domains


def choose(data: DomainData, *, seed: int) -> np.ndarray:
    """Random images of every class, the same group in every domain where it is shared.

    Returns:
      Positions in the domains' arrays, int [domains, classes, PER_CLASS].

    Raises:
      ValueError: a class has fewer images in a domain; the message names both.
    """
    shared = set.intersection(*(set(groups.tolist()) for groups in data.groups))
    chosen = np.empty((len(data.domains), len(data.classes), PER_CLASS), int)
    for domain, (groups, labels) in enumerate(zip(data.groups, data.labels, strict=True)):
        rng = np.random.default_rng(seed)  # anew: equal candidates, equal choice
        for label in range(len(data.classes)):
            mask = labels == label
            if shared:
                mask &= np.isin(groups, list(shared))
            candidates = np.flatnonzero(mask)
            if len(candidates) < PER_CLASS:
                raise ValueError(
                    f"a contact sheet shows {PER_CLASS} images of each class; class "
                    f"{data.classes[label]} has {len(candidates)} in domain "
                    f"{data.domains[domain]} to choose from."
                )
            candidates = candidates[np.argsort(groups[candidates], kind="stable")]
            chosen[domain, label] = rng.choice(candidates, PER_CLASS, replace=False)
    return chosen


def draw(data: DomainData, *, seed: int = 0) -> Figure:
    """The contact sheet as a figure."""
    chosen = choose(data, seed=seed)
    num_domains, num_classes, _ = chosen.shape
    width, height = PER_CLASS + _GAP, 1 + _GAP  # of a cell, in images
    inches = min(0.55, 13 / (num_classes * width))  # of an image
    size = (num_classes * width * inches + 1.0, num_domains * height * inches + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for domain, label, place in np.ndindex(*chosen.shape):
        image = data.images[domain][chosen[domain, label, place]]
        left, top = label * width + place, domain * height
        axes.imshow(image, extent=(left, left + 1, top + 1, top))
    axes.set(xlim=(0, num_classes * width - _GAP), ylim=(num_domains * height - _GAP, 0))
    axes.set_xticks(np.arange(num_classes) * width + PER_CLASS / 2, data.classes)
    axes.set_yticks(np.arange(num_domains) * height + 0.5, data.domains)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=12)
    axes.spines[:].set_visible(False)
    return figure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATASETS, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a .png to write")
    parser.add_argument("--image-size", type=int, help="default: the data set's own")
    parser.add_argument("--seed", type=int, default=0, help="which images are drawn")
    args = parser.parse_args()
    data = load(args.data, image_size=args.image_size)
    draw(data, seed=args.seed).savefig(args.out, dpi=100)


if __name__ == "__main__":
    main()
