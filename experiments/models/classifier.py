"""Classifiers: a backbone, images -> features, and a linear head, features -> logits."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.backbones import BACKBONES


class Classifier(nn.Module):
    """Images [B, H, W, 3] in [0, 1] -> logits [B, classes], float32.

    Attributes:
      backbone: images, normalized, -> features [B, F]; called with `train`.
      num_classes: length of the logits.
      mean: of the backbone's input, per channel.
      std: of the backbone's input, per channel.
      dtype: of the backbone's arithmetic.
    """

    backbone: nn.Module
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the logits and what the head saw, the features after dropout.

        Args:
          images: as above.
          train: whether BatchNorm takes the batch's statistics, and features are dropped.
          dropout: share of the features dropped, in [0, 1); it may be traced.
        """
        images = (images - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        features = self.backbone(images.astype(self.dtype), train).astype(jnp.float32)
        if train and (isinstance(dropout, jax.Array) or dropout > 0):
            kept = jax.random.bernoulli(
                self.make_rng("dropout"), 1.0 - dropout, features.shape
            )
            features = jnp.where(kept, features / (1.0 - dropout), 0.0)
        return nn.Dense(self.num_classes, name="head")(features), features


def make_classifier(
    model: str,
    num_classes: int,
    *,
    batch_norm: str = "live",
    dtype: str = "float32",
) -> Classifier:
    """Returns the classifier on a backbone by name.

    Args:
      model: a key of `BACKBONES`.
      num_classes: length of the logits.
      batch_norm: `live`, batch statistics that move the running ones, as the DISAM
        release; or `frozen`, the running ones always, as DomainBed, SWAD and SAGM.
      dtype: of the backbone's arithmetic, `float32` or `bfloat16`; parameters are float32.

    Returns:
      The module.
    """
    backbone = BACKBONES[model]
    compute = jnp.dtype(dtype)
    return Classifier(
        backbone=backbone.make(batch_norm=batch_norm, dtype=compute),
        num_classes=num_classes,
        mean=backbone.mean,
        std=backbone.std,
        dtype=compute,
    )
