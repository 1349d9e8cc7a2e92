"""How a model is trained: a frozen dataclass, each field with a line of help."""

import dataclasses
import math

from experiments.data.open_classes import ORDERS
from experiments.data.transforms import VIEWS
from experiments.devices import PARAMETERS
from experiments.fields import check_at_least, check_known, option
from experiments.methods.penalties import PENALTIES
from experiments.models.clip.prompts import POSITIONS
from experiments.models.clip.towers import ACTIVATIONS
from experiments.models.registry import MODELS, TUNINGS, UNTRAINED

# What a field may be, where that is a name.
CHOICES = {
    "model": tuple(MODELS),
    "tuning": TUNINGS,
    "batch_norm": ("frozen", "live"),
    "dtype": ("float32", "bfloat16", "float16"),
    "perturbed_dtype": ("same", "float32"),
    "scope": ("batch", "micro_batch", "domain"),
    "batching": ("balanced", "merged"),
    "split": ("groups", "domainbed", "release", "files"),
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("cosine", "annealed", "constant", "step"),
    "view": tuple(VIEWS),
    "penalty": ("none", *PENALTIES),
    "noisy_sources": ("all", "first"),
    "parameters": PARAMETERS,
    "position": POSITIONS,
    "class_order": ORDERS,
    "activation": ("", *ACTIVATIONS),
}


NOT_NEGATIVE = ("epochs", "shift", "jitter", "margin", "bma")


@dataclasses.dataclass(frozen=True)
class Preset:
    """Everything about the training but the data, the method and the seed.

    Fields that are names take one of `CHOICES`. The help of each field says what it is;
    the paragraphs below say what a line has no room for.

    weights: `scratch`; `package`, the file that an installed package ships with the model;
      or the path of a `.pth` or `.safetensors` file. Empty: it must be given.
    batching: `balanced` takes batch_size examples of every source domain; `merged`
      shuffles all sources together and takes batch_size in total, as the DISAM release.
    split: `groups` holds out the same concepts in every domain (data sets held in memory);
      `domainbed`, its seeded split of every domain by itself; `release`, the DISAM
      release's shuffle; `files`, the published split files.
    dtype: `float16` scales the losses and skips a step in which a gradient overflows.
    scope: `batch` has one perturbation a step, `micro_batch` one for each of them,
      `domain` one for each domain; their gradients are averaged. With `batch` and several
      micro_batches the step is the whole batch's, but for live BatchNorm, which then
      normalizes each micro-batch by itself.
    schedule: `cosine` warms up over the first 5 % and falls to 0; `annealed` falls so from
      the first step on, as CLIPOOD; `step` falls to a tenth at 80 % of the steps, as the
      DISAM release.
    view: of an image at the test: `whole`, its aspect not kept, as DomainBed, or
      `center_crop`, the square in its middle, as CLIP.
    """

    steps: int = option(5001, "optimizer steps")
    epochs: float = option(0.0, "epochs of merged batches; if not 0, they set the steps")
    model: str = option("resnet50", "backbone")
    weights: str = option("scratch", "scratch, package, or a .pth or .safetensors file")
    tuning: str = option("finetune", "what is trained; of `compare` several")
    batch_norm: str = option("frozen", "BatchNorm statistics")
    dropout: float = option(0.0, "share of the features dropped before the head")
    dtype: str = option("float32", "compute dtype; parameters are float32")
    perturbed_dtype: str = option("same", "compute dtype of the pass at w + eps")
    scope: str = option("batch", "what a perturbation is computed on")
    micro_batches: int = option(1, "that a batch is taken in, for memory or for scope")
    image_size: int = option(224, "pixels along a side")
    batching: str = option("balanced", "how the domains are mixed")
    batch_size: int = option(32, "images of each source domain, or in all when merged")
    min_crop: float = option(0.7, "smallest share of the area that a crop keeps")
    jitter: float = option(0.3, "strength of the color jitter")
    grayscale: float = option(0.1, "share of the images made gray")
    shift: int = option(0, "largest shift in pixels (data sets held in memory)")
    split: str = option("domainbed", "how each domain is split")
    holdout_fraction: float = option(0.2, "of every domain, kept for validation")
    optimizer: str = option("adam", "sgd has momentum 0.9; some methods bring their own")
    schedule: str = option("constant", "of the learning rate")
    learning_rate: float = option(5e-5, "peak of the schedule")
    weight_decay: float = option(0.0, "coupled for adam and sgd, decoupled for adamw")
    penalty: str = option("none", "added to every domain's loss")
    penalty_weight: float | None = option(None, "of the penalty (default: DomainBed's)")
    penalty_start: int | None = option(
        None,
        "first step of that weight (default: DomainBed's, or 0 of a weight given)",
        later=True,
    )
    label_noise: float = option(
        0.0, "share of wrong labels in the training (data sets held in memory)", later=True
    )
    noisy_sources: str = option("all", "source domains with wrong labels", later=True)
    swad: bool = option(False, "also evaluate the weights averaged over the loss valley")
    view: str = option("whole", "of an image at the test", later=True)
    activation: str = option("", "of CLIP's towers (default: the known file's)", later=True)
    margin: float = option(0.3, "lambda of clipood's margin softmax", later=True)
    context: int = option(16, "vectors of coop's prompts", later=True)
    position: str = option("end", "of the name among coop's vectors", later=True)
    class_specific: bool = option(False, "coop: vectors for each class", later=True)
    rank: int = option(8, "of lora's changes", later=True)
    open_classes: float = option(
        0.0, "share of the classes that are new at the test", later=True
    )
    class_order: str = option("sorted", "whose last classes are new", later=True)
    bma: float = option(
        0.0, "beta of the weights averaged over all steps (CLIPOOD; 0: none)", later=True
    )

    def __post_init__(self) -> None:
        """Raises a ValueError that names the first field that cannot be, and the mend."""
        for field in dataclasses.fields(self):
            if field.name in CHOICES:
                check_known(field.name, getattr(self, field.name), CHOICES[field.name])
        for name in ("batch_size", "image_size", "micro_batches", "rank", "context"):
            check_at_least(name, getattr(self, name), 1)
        for name in (*NOT_NEGATIVE, "weight_decay"):
            check_at_least(name, getattr(self, name), 0)
        check_at_least("steps", self.steps, 0 if self.tuning in UNTRAINED else 1)
        for name in ("penalty_weight", "penalty_start"):
            if getattr(self, name) is not None:
                check_at_least(name, getattr(self, name), 0)
        for name in ("holdout_fraction", "dropout", "label_noise", "open_classes"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {getattr(self, name)}.")
        if not 0 <= self.grayscale <= 1:
            raise ValueError(f"grayscale must lie in [0, 1]; got {self.grayscale}.")
        if not 0 < self.min_crop <= 1:
            raise ValueError(f"min_crop must lie in (0, 1]; got {self.min_crop}.")
        if self.scope == "domain" and (
            self.batching != "balanced" or self.micro_batches > 1
        ):
            raise ValueError(
                "scope domain takes each domain as a micro-batch: batching must be "
                f"balanced and micro_batches 1; got {self.batching} and "
                f"{self.micro_batches}."
            )
        if self.class_specific and self.open_classes:
            raise ValueError(
                "class_specific gives every class vectors of its own, and new classes have "
                f"none: with open_classes {self.open_classes:g} it must be False."
            )
        if self.label_noise and self.open_classes:
            raise ValueError(
                "label_noise draws wrong labels among all classes, and some are new: with "
                f"open_classes {self.open_classes:g} it must be 0."
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate must be > 0 and finite; got {self.learning_rate}."
            )
        self._check_model()

    def _check_model(self) -> None:
        kind = MODELS[self.model]
        check_known(f"tuning of {self.model}", self.tuning, tuple(kind.tunings))
        if self.image_size % kind.size_multiple:
            raise ValueError(
                f"image_size must be a multiple of {kind.size_multiple} for {self.model}; "
                f"got {self.image_size}."
            )
        if self.open_classes and not kind.names_classes:
            raise ValueError(
                f"open_classes is {self.open_classes:g}, and {self.model} has a head that "
                "knows no class without images of it: take a model that reads names, "
                "--model clip."
            )
        if self.dropout and kind.names_classes:
            raise ValueError(
                f"dropout is {self.dropout:g}, and {self.model} drops no features: give "
                "--dropout 0, or --protocol clipood, CLIP's own training."
            )
