"""A backbone with a linear head, and how it can be tuned."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.backbones import BACKBONES, load_pretrained
from experiments.models.classifier import make_classifier
from experiments.models.low_rank import LowRank
from experiments.models.tuning import Model, Params, Tuning, make_tuning

# A linear head is new, and so it is always trained.
OF_A_HEAD: Mapping[str, Callable[..., Tuning]] = {
    "finetune": lambda: Tuning(("backbone", "head")),
    "linear": lambda: Tuning(("head",), ("backbone",)),
}
OF_ATTENTIONS: Mapping[str, Callable[..., Tuning]] = {
    "lora": lambda rank: LowRank(("lora", "head"), ("backbone",), rank=rank)
}


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """A backbone of `BACKBONES` with a linear head."""

    backbone: str
    names_classes: bool = False

    @property
    def size_multiple(self) -> int:
        """Image sizes divide by it."""
        return BACKBONES[self.backbone].size_multiple

    @property
    def tunings(self) -> Mapping[str, Callable[..., Tuning]]:
        """Its tunings."""
        attention = BACKBONES[self.backbone].attention
        return {**OF_A_HEAD, **OF_ATTENTIONS} if attention else OF_A_HEAD

    def model(self, wanted: Any, classes: tuple[str, ...], dtype: str) -> Model:
        """The model, whose backbone computes in the dtype."""
        module = make_classifier(
            self.backbone, len(classes), batch_norm=wanted.batch_norm, dtype=dtype
        )
        return Model(module, make_tuning(self.tunings, wanted))

    def first(
        self, model: Model, wanted: Any, classes: tuple[str, ...], key: jax.Array
    ) -> Params:
        """Drawn with the key, the backbone's read where the weights are a file's."""
        drawn = _drawn(model, wanted.image_size, key)
        if wanted.weights == "scratch":
            return drawn
        own = {name: t["backbone"] for name, t in drawn.items() if "backbone" in t}
        path = None if wanted.weights == "package" else Path(wanted.weights)
        read = load_pretrained(self.backbone, path, own)
        return {
            name: {**tree, "backbone": read[name]} if name in read else tree
            for name, tree in drawn.items()
        }

    def shapes(self, model: Model, wanted: Any, classes: tuple[str, ...]) -> Params:
        """Their shapes; nothing is computed, or read."""
        draw = functools.partial(_drawn, model, wanted.image_size)
        return jax.eval_shape(draw, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _drawn(model: Model, image_size: int, key: jax.Array) -> Params:
    images = jnp.zeros((1, image_size, image_size, 3))
    drawn = dict(model.module.init(key, images, train=False))
    own = drawn["params"]
    return drawn | {"params": own | model.tuning.added(own, jax.random.fold_in(key, 1))}
