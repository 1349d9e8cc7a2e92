"""CLIP whose texts are the classes, and how it can be tuned."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.clip.classifier import CosineClassifier, MarginSoftmax, unit
from experiments.models.clip.model import Clip, files_of, load_clip
from experiments.models.clip.prompts import STD, Prompts, class_prompts, prompt_lengths
from experiments.models.low_rank import LowRank
from experiments.models.tuning import Model, Params, Tuning, make_tuning

OF_CLIP: Mapping[str, Callable[..., Tuning]] = {
    "zero_shot": lambda: Tuning((), ("backbone", "head", "scale")),
    "linear": lambda: Tuning(("head",), ("backbone", "scale")),
    "finetune": lambda: Tuning(("backbone",), ("head", "scale")),
    "clipood": lambda margin: Tuning(
        ("backbone",), ("head", "scale"), MarginSoftmax(margin)
    ),
    "lora": lambda rank: LowRank(("lora",), ("backbone", "head", "scale"), rank=rank),
    "coop": lambda tower, position, lengths: Prompts(
        tower=tower, position=position, lengths=lengths
    ),
}


@dataclasses.dataclass(frozen=True)
class ClipClassifier:
    """A CLIP whose texts are the classes.

    Attributes:
      template: of a class's text, {} being its name.
      width: of the image tower and its patches, for the model of a name; None is any.
      package: the file that ships with this package, and its activation.
    """

    template: str = "a photo of a {}."
    width: tuple[int, int] | None = None
    package: tuple[Path, str] | None = None
    size_multiple: int = 1
    names_classes: bool = True
    tunings: Mapping[str, Callable[..., Tuning]] = dataclasses.field(
        default_factory=lambda: OF_CLIP, hash=False
    )

    def model(self, wanted: Any, classes: tuple[str, ...], dtype: str) -> Model:
        """The model, whose towers compute in the dtype."""
        clip = self.clip(wanted)
        tower = dataclasses.replace(clip, dtype=jnp.dtype(dtype)).text_tower
        module = CosineClassifier(clip.sizes, clip.activation, jnp.dtype(dtype))
        lengths = prompt_lengths(clip, spoken(classes))
        tuning = make_tuning(self.tunings, wanted, tower=tower, lengths=lengths)
        return Model(module, tuning)

    def first(
        self, model: Model, wanted: Any, classes: tuple[str, ...], key: jax.Array
    ) -> Params:
        """The file's, and what the tuning makes of them and of the classes' names."""
        clip = self.clip(wanted)
        names = spoken(classes)
        shape = (wanted.context, clip.sizes.text_width)
        shape = (len(names), *shape) if wanted.class_specific else shape
        parts: dict[str, Callable[[], Any]] = {
            "backbone": lambda: clip.weights["image"],
            "scale": lambda: clip.weights["scale"],
            "head": lambda: unit(
                clip.text_features([self.template.format(name) for name in names])
            ),
            "text": lambda: {
                name: tree
                for name, tree in clip.weights["text"].items()
                if name != "token_embed"
            },
            "prompts": lambda: class_prompts(clip, names, wanted.context, wanted.position),
            "context": lambda: STD * jax.random.normal(key, shape),
        }
        tuning = model.tuning
        read = [name for name in (*tuning.trained, *tuning.frozen) if name in parts]
        own = {name: parts[name]() for name in read}
        return {"params": own | tuning.added(own, key)}

    def shapes(self, model: Model, wanted: Any, classes: tuple[str, ...]) -> Params:
        """Their shapes."""
        first = functools.partial(self.first, model, wanted, classes)
        return jax.eval_shape(first, jax.random.key(0))

    def clip(self, wanted: Any) -> Clip:
        """The model that the weights are of, for images of this size.

        Raises:
          ValueError: there are no such weights, or they are another model's.
        """
        if wanted.weights == "package" and self.package:
            path, activation = self.package
        elif wanted.weights in ("", "scratch", "package"):
            raise ValueError(
                f"weights is '{wanted.weights}', and CLIP is not trained here: give the "
                "file of its weights, --weights FILE."
            )
        else:
            path, activation = Path(wanted.weights), wanted.activation
        clip = _opened(path, activation or None, wanted.image_size, _changed(path))
        sizes = clip.sizes
        if self.width not in (None, (sizes.image_width, sizes.patch)):
            raise ValueError(
                f"{path} holds a CLIP of width {sizes.image_width} and patches of "
                f"{sizes.patch} pixels, and width and patches here are {self.width}; "
                "take --model clip, which is any."
            )
        return clip


def spoken(classes: Sequence[str]) -> list[str]:
    """Classes as they stand in texts: an underscore is a blank."""
    return [name.replace("_", " ") for name in classes]


def _changed(path: Path) -> int:
    """When it was written, of a folder the last file; 0 where there is none."""
    there = [file for file in files_of(path) if file.exists()]
    return max((file.stat().st_mtime_ns for file in there), default=0)


@functools.lru_cache(maxsize=2)  # all runs of a process
def _opened(path: Path, activation: str | None, image_size: int, changed: int) -> Clip:
    del changed  # a file that was written anew is read anew
    clip = load_clip(path, activation)
    return clip if clip.sizes.image_size == image_size else clip.resized(image_size)
