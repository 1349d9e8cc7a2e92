"""What a CLIP makes of emoji that it has not seen, told their names alone.

python -m experiments.data.icon_pairs.zero_shot [FILE]
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.data import DomainData, load
from experiments.models.clip import Clip, load_clip
from experiments.models.clip.classifier import unit
from experiments.models.icons_clip import ACTIVATION, TEMPLATE, WEIGHTS
from experiments.models.icons_clip.distort import normalized


def ranks(clip: Clip, data: DomainData, template: str = TEMPLATE) -> dict[str, np.ndarray]:
    """Per domain, where the right class of each image stands among all, 0 the best."""
    texts = unit(clip.text_features([template.format(c) for c in data.classes]))
    found = {}
    for domain, images, labels in zip(data.domains, data.images, data.labels, strict=True):
        features = clip.image_features(normalized(jnp.asarray(images) / 255.0))
        cosines = np.asarray(unit(features) @ texts.T)
        right = cosines[np.arange(len(labels)), labels]
        found[domain] = (cosines > right[:, None]).sum(axis=1)
    return found


def main() -> None:
    """The command line."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS
    data = load("emoji_concepts")
    for domain, rank in ranks(load_clip(path, activation=ACTIVATION), data).items():
        first, fifth = 100 * np.mean(rank < 1), 100 * np.mean(rank < 5)
        print(f"{domain}: {first:.1f} % right, {fifth:.1f} % among the first five")


if __name__ == "__main__":
    main()
