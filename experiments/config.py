"""What a run is: a frozen dataclass, checked when it is made, and a preset per data set."""

import dataclasses

from experiments.data import DATASETS
from experiments.methods import Hyperparameters, find_method
from experiments.models import MODELS

OPTIMIZERS = ("adamw", "sgd")


@dataclasses.dataclass(frozen=True)
class Preset:
    """How a data set is trained on unless told otherwise.

    Attributes:
      steps: optimizer steps.
      model: a name in `MODELS`.
      image_size: pixels along a side.
      batch_size: examples of each source domain in a batch.
      optimizer: a name in `OPTIMIZERS`.
      learning_rate: peak; warmed up over the first 5 % and then a cosine to 0.
      weight_decay: decoupled (AdamW); for SGD, added to the gradient.
      shift: augmentation, largest shift in pixels.
    """

    steps: int
    model: str = "patchnet"
    image_size: int = 32
    batch_size: int = 32
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    shift: int = 4


PRESETS = {
    "emoji_styles": Preset(steps=400),
    "rotated_digits": Preset(steps=200, image_size=16, shift=1),
    "colored_digits": Preset(steps=200, image_size=16, shift=1),
}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run: a method trained on all domains but one.

    Attributes:
      data: a name in `DATASETS`.
      method: a name in `METHODS`.
      unseen: the domain that is left out of the training.
      seed: of the initial weights, the batches and the hold-out.
      hyperparameters: rho, alpha and lam.
      preset: everything else about the training.
      holdout_fraction: of the groups of every domain, kept for evaluation.
      log_every: steps averaged into one line of the metrics.
      checkpoint_every: steps between evaluations and checkpoints, a multiple of log_every.
    """

    data: str
    method: str
    unseen: str
    seed: int
    hyperparameters: Hyperparameters
    preset: Preset
    holdout_fraction: float = 0.2
    log_every: int = 10
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        """Raises a ValueError that names the first field that cannot be, and the mend."""
        find_method(self.method)
        _check_known("data set", self.data, DATASETS)
        _check_known("model", self.preset.model, MODELS)
        _check_known("optimizer", self.preset.optimizer, OPTIMIZERS)
        for name in ("steps", "batch_size", "image_size"):
            _check_positive(name, getattr(self.preset, name))
        _check_positive("log_every", self.log_every)
        if self.checkpoint_every % self.log_every or self.checkpoint_every < 1:
            raise ValueError(
                f"checkpoint_every must be a positive multiple of log_every "
                f"({self.log_every}); got {self.checkpoint_every}."
            )
        multiple = MODELS[self.preset.model].size_multiple
        if self.preset.image_size % multiple:
            raise ValueError(
                f"image_size must be a multiple of {multiple} for {self.preset.model}; "
                f"got {self.preset.image_size}."
            )
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0; got {self.seed}.")
        find_method(self.method).make(self.hyperparameters)

    @property
    def name(self) -> str:
        """The run's place under an output folder, e.g. `disam/mono/seed0`."""
        return f"{self.method}/{self.unseen}/seed{self.seed}"


def _check_known(what: str, name: str, known: object) -> None:
    names = tuple(known)  # pyright: ignore[reportArgumentType]  a dict or a tuple
    if name not in names:
        raise ValueError(f"unknown {what} '{name}'; there are: {', '.join(names)}")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}.")


def make_config(
    *,
    data: str,
    method: str,
    unseen: str,
    seed: int,
    overrides: dict[str, object] | None = None,
) -> RunConfig:
    """Returns the preset's config with the given fields changed.

    Args:
      data: a name in `DATASETS`.
      method: a name in `METHODS`.
      unseen: the domain left out.
      seed: >= 0.
      overrides: fields of `Preset`, `Hyperparameters` or `RunConfig` by name; None as a
        value means the default.

    Returns:
      The config.

    Raises:
      ValueError: something is unknown or out of range; the message lists what there is.
    """
    _check_known("data set", data, DATASETS)
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    preset = _replace(PRESETS[data], given)
    hyperparameters = _replace(find_method(method).defaults, given)
    rest = {f.name: given[f.name] for f in dataclasses.fields(RunConfig) if f.name in given}
    return RunConfig(data, method, unseen, seed, hyperparameters, preset, **rest)  # pyright: ignore[reportArgumentType]


def _replace(value, given):
    names = {field.name for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **{k: v for k, v in given.items() if k in names})
