"""What of a model is trained: two trees of weights with different names at the top.

The trained and the frozen weights are never one tree, so that gradients, rho, norms,
optimizer state and checkpoints are those of what is trained. The model sees their union.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

Params = dict[str, Any]
Loss = Callable[[Params, jax.Array, jax.Array], jax.Array]


def cross_entropy(weights: Params, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label], [N], in nats; the weights are not looked at."""
    del weights
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Trains some of a model's weights as they are; others are subclasses.

    Attributes:
      trained: names of the weights that are trained.
      frozen: names of those that are only read.
      loss: (the model's weights, logits [N, K], labels [N]) -> losses [N].
    """

    trained: tuple[str, ...]
    frozen: tuple[str, ...] = ()
    loss: Loss = cross_entropy

    def added(self, params: Params, key: jax.Array) -> Params:
        """The weights that this tuning adds to a model's own, drawn with the key."""
        del params, key
        return {}

    def weights(self, params: Params, classes: Sequence[int] | None = None) -> Params:
        """The model's own weights, of all that are trained and frozen.

        Args:
          params: the trained and the frozen weights.
          classes: labels that the head [K, D] shall tell; None is all.
        """
        if classes is None:
            return params
        return params | {"head": params["head"][np.array(classes)]}


def among_classes(labels: jax.Array, classes: Sequence[int] | None) -> jax.Array:
    """Labels [N] as positions among these classes, which hold all of them; None is all."""
    if classes is None:
        return labels
    return jnp.searchsorted(np.array(classes), labels)


class Model(NamedTuple):
    """A classifier and how it is tuned.

    Attributes:
      module: images [N, H, W, 3] in [0, 1] -> logits [N, K] and features; its weights
        have the names that the tuning speaks of.
      tuning: of it.
    """

    module: nn.Module
    tuning: Tuning

    def split(self, params: Params) -> tuple[Params, Params]:
        """(trained, frozen)."""
        tuning = self.tuning
        return tuple(  # pyright: ignore[reportReturnType]
            {name: params[name] for name in names}
            for names in (tuning.trained, tuning.frozen)
        )


def make_tuning(
    tunings: Mapping[str, Callable[..., Tuning]], wanted: Any, **others: Any
) -> Tuning:
    """The tuning that is wanted, made of what it names."""
    make = tunings[wanted.tuning]
    names = inspect.signature(make).parameters
    return make(**{n: others[n] if n in others else getattr(wanted, n) for n in names})
