"""Models by name: a backbone with a linear head, or CLIP; and how each can be tuned."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from experiments.models.backbones import BACKBONES
from experiments.models.clip.kind import ClipClassifier
from experiments.models.linear_head import LinearHead
from experiments.models.tuning import Model, Params, Tuning

Classes = tuple[str, ...]  # names, in the order of the logits


class Kind(Protocol):
    """What makes the models of a name; `wanted` is a preset."""

    @property
    def size_multiple(self) -> int:
        """Image sizes divide by it."""
        ...
<<<<<<< HEAD
=======

    @property
    def names_classes(self) -> bool:
        """Whether it tells classes by their names, also those it has seen no image of."""
        ...
>>>>>>> c86f90ce72f79db4bb7574c2a1c46ab6ecdd87bc

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


<<<<<<< HEAD
=======
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

    def model(self, wanted: Wanted, classes: Classes, dtype: str) -> Model:
        """The model, whose backbone computes in the dtype."""
        module = make_classifier(
            self.backbone, len(classes), batch_norm=wanted.batch_norm, dtype=dtype
        )
        return Model(module, make_tuning(self.tunings, wanted))

    def first(
        self, model: Model, wanted: Wanted, classes: Classes, key: jax.Array
    ) -> Variables:
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

    def shapes(self, model: Model, wanted: Wanted, classes: Classes) -> Variables:
        """Their shapes; nothing is computed, or read."""
        draw = functools.partial(_drawn, model, wanted.image_size)
        return jax.eval_shape(draw, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _drawn(model: Model, image_size: int, key: jax.Array) -> Variables:
    images = jnp.zeros((1, image_size, image_size, 3))
    drawn = dict(model.module.init(key, images, train=False))
    own = drawn["params"]
    return drawn | {"params": own | model.tuning.added(own, jax.random.fold_in(key, 1))}


OF_CLIP: Mapping[str, Callable[..., Tuning]] = {
    "zero_shot": lambda: Tuning((), ("backbone", "head", "scale")),
    "linear": lambda: Tuning(("head",), ("backbone", "scale")),
    "finetune": lambda: Tuning(("backbone",), ("head", "scale")),
    "clipood": lambda margin: Tuning(
        ("backbone",), ("head", "scale"), MarginSoftmax(margin)
    ),
    "lora": lambda rank: LowRank(("lora",), ("backbone", "head", "scale"), rank=rank),
    "coop": lambda tower: Prompts(tower=tower),
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

    def model(self, wanted: Wanted, classes: Classes, dtype: str) -> Model:
        """The model, whose towers compute in the dtype."""
        clip = self.clip(wanted)
        tower = dataclasses.replace(clip, dtype=jnp.dtype(dtype)).text_tower
        module = CosineClassifier(clip.sizes, clip.activation, jnp.dtype(dtype))
        return Model(module, make_tuning(self.tunings, wanted, tower=tower))

    def first(
        self, model: Model, wanted: Wanted, classes: Classes, key: jax.Array
    ) -> Variables:
        """The file's, and what the tuning makes of them and of the classes' names."""
        clip = self.clip(wanted)
        names = [name.replace("_", " ") for name in classes]
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
            "context": lambda: (
                STD
                * jax.random.normal(
                    key,
                    (
                        *((len(names),) if wanted.class_specific else ()),
                        wanted.context,
                        clip.sizes.text_width,
                    ),
                )
            ),
        }
        tuning = model.tuning
        read = [name for name in (*tuning.trained, *tuning.frozen) if name in parts]
        own = {name: parts[name]() for name in read}
        return {"params": own | tuning.added(own, key)}

    def shapes(self, model: Model, wanted: Wanted, classes: Classes) -> Variables:
        """Their shapes."""
        first = functools.partial(self.first, model, wanted, classes)
        return jax.eval_shape(first, jax.random.key(0))

    def clip(self, wanted: Wanted) -> Clip:
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
        clip = _opened(path, activation or None, wanted.image_size)
        sizes = clip.sizes
        if self.width not in (None, (sizes.image_width, sizes.patch)):
            raise ValueError(
                f"{path} holds a CLIP of width {sizes.image_width} and patches of "
                f"{sizes.patch} pixels, and width and patches here are {self.width}; "
                "take --model clip, which is any."
            )
        return clip


@functools.lru_cache(maxsize=2)  # all runs of a process
def _opened(path: Path, activation: str | None, image_size: int) -> Clip:
    clip = load_clip(path, activation)
    return clip if clip.sizes.image_size == image_size else clip.resized(image_size)


def make_tuning(
    tunings: Mapping[str, Callable[..., Tuning]], wanted: Wanted, **others: Any
) -> Tuning:
    """The tuning that is wanted, made of what it names."""
    make = tunings[wanted.tuning]
    names = inspect.signature(make).parameters
    return make(**{n: others[n] if n in others else getattr(wanted, n) for n in names})


>>>>>>> c86f90ce72f79db4bb7574c2a1c46ab6ecdd87bc
MODELS: Mapping[str, Kind] = {
    **{name: LinearHead(name) for name in BACKBONES},
    "clip": ClipClassifier(),
    "clip_vit_b16": ClipClassifier(width=(768, 16)),
}
UNTRAINED = ("zero_shot",)  # tunings that train nothing
TUNINGS = tuple({name: None for kind in MODELS.values() for name in kind.tunings})
