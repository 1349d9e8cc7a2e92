"""A digest of the first batch of a run: a table made by code that drew others shows it."""

import dataclasses
import hashlib

import numpy as np

from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.prepare import Prepared
from experiments.training.feed import make_feed


def first_batch(config: RunConfig, data: DomainData | Prepared) -> str:
    """Digest of the images, labels and domains of the first batch that a run trains on.

    It is of integers alone, so every machine finds the same: the colours, which are changed
    in floating point, are left as they were read.

    Args:
      config: of the run.
      data: that it names.

    Returns:
      16 hexadecimal digits.
    """
    uncoloured = dataclasses.replace(config.preset, jitter=0.0, grayscale=0.0)
    feed = make_feed(dataclasses.replace(config, preset=uncoloured), data)
    batch = next(feed.batches(0))
    pixels = np.rint(255 * np.asarray(batch.images)).astype(np.uint8)
    labels, domains = (np.asarray(x, np.int32) for x in (batch.labels, batch.domains))
    digest = hashlib.sha256()
    for array in (pixels, labels, domains):
        digest.update(str(array.shape).encode() + array.tobytes())
    return digest.hexdigest()[:16]
