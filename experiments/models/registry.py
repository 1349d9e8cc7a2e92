"""Models by name: a backbone with a linear head, or CLIP; and how each can be tuned."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from experiments.models.backbones import BACKBONES
from experiments.models.clip.kind import ClipClassifier
from experiments.models.icons_clip import ACTIVATION, TEMPLATE, WEIGHTS
from experiments.models.linear_head import LinearHead
from experiments.models.tuning import Model, Params, Tuning

Classes = tuple[str, ...]  # names, in the order of the logits


class Kind(Protocol):
    """What makes the models of a name; `wanted` is a preset."""

    @property
    def size_multiple(self) -> int:
        """Image sizes divide by it."""
        ...

    @property
    def names_classes(self) -> bool:
        """Whether it tells classes by their names, also those it has seen no image of."""
        ...

    @property
    def tunings(self) -> Mapping[str, Callable[..., Tuning]]:
        """Name -> what makes it of the fields of the preset that it names."""
        ...

    def model(self, wanted: Any, classes: Classes, dtype: str) -> Model:
        """The model, which computes in the dtype."""
        ...

    def first(self, model: Model, wanted: Any, classes: Classes, key: jax.Array) -> Params:
        """The variables that training begins with; what is new is drawn with the key."""
        ...

    def shapes(self, model: Model, wanted: Any, classes: Classes) -> Params:
        """Their shapes."""
        ...


MODELS: Mapping[str, Kind] = {
    **{name: LinearHead(name) for name in BACKBONES},
    "clip": ClipClassifier(),
    "clip_vit_b16": ClipClassifier(width=(768, 16)),
    "icons_clip": ClipClassifier(TEMPLATE, package=(WEIGHTS, ACTIVATION)),
}
UNTRAINED = ("zero_shot",)  # tunings that train nothing
TUNINGS = tuple({name: None for kind in MODELS.values() for name in kind.tunings})
