"""CLIP as a classifier: images are of the class whose text lies nearest."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.models.clip.model import MEAN, STD
from experiments.models.clip.towers import ImageTower, Sizes
from experiments.models.tuning import Params


class CosineClassifier(nn.Module):
    """exp(scale) cos(image, class), float32.

    Its weights are `backbone`, the image tower; `head` [K, D], a vector for each class,
    which a text tower made; and `scale`.

    Attributes:
      sizes: of CLIP's towers.
      activation: of them.
      dtype: of the tower's arithmetic.
    """

    sizes: Sizes
    activation: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, dropout: jax.Array | float = 0.0
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the logits and the images' features, of length 1.

        Args:
          images: [N, H, W, 3] in [0, 1].
          train: training and evaluation are the same here.
          dropout: must be 0.
        """
        del train, dropout
        images = (images - jnp.asarray(MEAN)) / jnp.asarray(STD)
        tower = ImageTower(self.sizes, self.activation, self.dtype, name="backbone")
        features = unit(tower(images.astype(self.dtype)).astype(jnp.float32))
        head, scale = (self.get_variable("params", name) for name in ("head", "scale"))
        return jnp.exp(scale) * features @ unit(head).T, features


def unit(x: jax.Array) -> jax.Array:
    """The vectors [..., D] at length 1."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class MarginSoftmax:
    """CLIPOOD's margin metric softmax: cross-entropy that asks more of like classes.

    logits_k - margin * exp(scale) cos(class_y, class_k), that is, an image f of class t_y
    stands at f - margin * t_y, its length as it comes. A wrong class k is so given a
    margin of margin * exp(scale) * (1 - cos(class_y, class_k)).

    Attributes:
      margin: CLIPOOD's lambda; 0 is cross-entropy.

    References:
      Shu et al., ICML 2023, equation 3, and their code.
    """

    margin: float

    def __call__(self, weights: Params, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Losses [N], in nats, of logits [N, K] and labels [N]."""
        classes = unit(weights["head"])
        shift = jnp.exp(weights["scale"]) * classes[labels] @ classes.T
        return optax.softmax_cross_entropy_with_integer_labels(
            logits - self.margin * shift, labels
        )
