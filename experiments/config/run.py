"""What a run is: data, method, unseen domain, seed, and how it is trained."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.preset import Preset
from experiments.config.protocols import find_protocol
from experiments.fields import LATER, check_at_least, digest, option
from experiments.files import file_sha256
from experiments.methods.registry import Hyperparameters, find_method
from experiments.models.clip.model import files_of
from experiments.models.registry import MODELS, TUNINGS, UNTRAINED


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run: a method trained on all domains but one.

    Attributes:
      data: name of the data set.
      method: a name in `METHODS`, or the place of another (see `find_method`).
      unseen: the domain that is left out of the training.
      seed: of the initial weights, the batches and the hold-out.
      protocol: name of the protocol that the preset started from.
      hyperparameters: rho, alpha, lam and the variance.
      preset: everything else about the training.
      data_fingerprint: of a folder's images, so that two folders are never mixed;
        empty for the data sets of this package.
      weights_fingerprint: of the file that the weights come from, for the same reason;
        empty where they come from none, or with a package.
      log_every: steps averaged into one line of the metrics.
      checkpoint_every: steps between evaluations and checkpoints, a multiple of log_every;
        counted back from the last step.
      also_unseen: a second domain that is left out, for leave-one-domain-out
        cross-validation: the run of `unseen` is validated on it; empty is none.
    """

    data: str
    method: str
    unseen: str
    seed: int
    protocol: str
    hyperparameters: Hyperparameters
    preset: Preset
    data_fingerprint: str = ""
    log_every: int = option(10, "steps averaged into a line of the metrics")
    checkpoint_every: int = option(
        200,
        "steps between evaluations and checkpoints; a run that was stopped goes on from "
        "the last (default: the protocol's, 50 for a folder of images)",
    )
    also_unseen: str = dataclasses.field(default="", metadata=LATER)
    weights_fingerprint: str = dataclasses.field(default="", metadata=LATER)

    def __post_init__(self) -> None:
        """Raises a ValueError that names the first field that cannot be, and the mend."""
        method = find_method(self.method)
        check_at_least("log_every", self.log_every, 1)
        if not 0 <= self.seed < 2**32:  # keys are of 32 bits, and others would be alike
            raise ValueError(f"seed must lie in [0, 2**32); got {self.seed}.")
        if self.checkpoint_every % self.log_every or self.checkpoint_every < 1:
            raise ValueError(
                f"checkpoint_every must be a positive multiple of log_every "
                f"({self.log_every}); got {self.checkpoint_every}."
            )
        if self.also_unseen and self.also_unseen == self.unseen:
            raise ValueError(
                f"also_unseen must be another domain than unseen; got {self.unseen} twice."
            )
        if not self.preset.weights:
            drawn = not MODELS[self.preset.model].names_classes  # CLIP's are not
            raise ValueError(
                f"this protocol starts {self.preset.model} from pretrained weights: give "
                "their file, --weights FILE (.safetensors, .pth or .pt)"
                f"{', or --weights scratch to go without' if drawn else ''}."
            )
        method.make(self.hyperparameters, run_steps=self.preset.steps)
        method.chooser(self.hyperparameters)
        of_its_own = method.micro_batches or method.examples is not None
        if of_its_own and (self.preset.scope != "batch" or self.preset.micro_batches > 1):
            raise ValueError(
                f"{self.method} takes the batch in its own way: scope must be batch and "
                f"micro_batches 1; got {self.preset.scope} and {self.preset.micro_batches}."
            )
        if method.micro_batches and self.preset.batching != "balanced":
            raise ValueError(
                f"{self.method} takes each domain as a micro-batch: batching must be "
                f"balanced; got {self.preset.batching}."
            )

    @property
    def logged_steps(self) -> range:
        """The steps at which metrics are logged, from the last back.

        They are counted back from it, as DomainBed's steps 0, 300, ..., 5000 are.
        """
        return range(self.preset.steps, 0, -self.log_every)

    def is_checkpoint(self, step: int) -> bool:
        """Whether a run is evaluated and kept at a step; counted back, too."""
        return (self.preset.steps - step) % self.checkpoint_every == 0

    @property
    def unseen_domains(self) -> tuple[str, ...]:
        """All domains that are left out, `unseen` first."""
        return (self.unseen, self.also_unseen) if self.also_unseen else (self.unseen,)

    def sources(self, domains: Sequence[str]) -> list[str]:
        """Those of the data's domains that are trained on, in their order."""
        return [name for name in domains if name not in self.unseen_domains]

    @property
    def name(self) -> str:
        """The run's place under an output folder, e.g. `disam+coral/mono/seed0`.

        Of two unseen domains it is `disam+coral/mono,noto/seed0`.
        """
        return f"{self.method_name}/{','.join(self.unseen_domains)}/seed{self.seed}"

    @property
    def method_name(self) -> str:
        """The method with its tuning and penalty; see `full_name`."""
        preset = self.preset
        return full_name(preset.tuning, find_method(self.method).name, preset.penalty)


def full_name(tuning: str, method: str, penalty: str) -> str:
    """E.g. `disam`, `disam+coral` with a penalty, `coop+disam` tuned otherwise.

    Where nothing is trained it is `zero_shot` whatever the method.
    """
    if tuning in UNTRAINED:
        return tuning
    before = () if tuning == "finetune" else (tuning,)
    after = () if penalty == "none" else (penalty,)
    return "+".join((*before, method, *after))


def tuning_of(name: str) -> str:
    """The tuning in a name that `full_name` made."""
    first = name.partition("+")[0]
    return first if first in TUNINGS else "finetune"


def settings(config: RunConfig) -> dict[str, Any]:
    """All of the config but what the runs of one cell of a table differ in."""
    fields = dataclasses.asdict(config)
    del fields["seed"], fields["unseen"], fields["also_unseen"]
    return fields


def make_config(
    *,
    data: str,
    method: str,
    unseen: str,
    also_unseen: str = "",
    seed: int,
    protocol: str | None = None,
    data_fingerprint: str = "",
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Returns the protocol's config with the given fields changed.

    Args:
      data: a key of `PROTOCOLS`.
      method: a name in `METHODS`.
      unseen: the domain left out.
      also_unseen: a second one; empty is none.
      seed: >= 0.
      protocol: its name; None takes the data set's first.
      data_fingerprint: of a folder of images.
      overrides: fields of `Preset`, `Hyperparameters` or `RunConfig` by name; None as a
        value means the default.

    Returns:
      The config.

    Raises:
      ValueError: something is unknown or out of range; the message lists what there is.
    """
    find_method(method)
    asked = {k: v for k, v in (overrides or {}).items() if v is not None}
    protocol, base = find_protocol(data, protocol, asked)
    values: dict[str, Any] = {"checkpoint_every": base.checkpoint_every}
    values |= asked
    if asked.get("steps") and asked.get("epochs"):
        raise ValueError(
            f"steps is {asked['steps']} and epochs {asked['epochs']:g}: a run's length is "
            "said by one of them; leave the other out."
        )
    tuning = asked.get("tuning", base.preset.tuning)
    names_classes = MODELS[base.preset.model].names_classes
    if names_classes and tuning not in (base.preset.tuning, *base.tunings, *UNTRAINED):
        known = ", ".join((base.preset.tuning, *base.tunings))
        raise ValueError(
            f"protocol {protocol} has numbers for {known}, none for tuning {tuning}: leave "
            "--protocol out, which takes the one that has."
        )
    changes = base.tunings.get(tuning, {})
    if tuning in UNTRAINED:
        values["steps"] = 0
    if "steps" in values:  # said in steps, and no longer in epochs
        values.setdefault("epochs", 0.0)
    preset = replace_known(base.preset, {**changes, **values})
    return RunConfig(
        data=data,
        method=method,
        unseen=unseen,
        also_unseen=also_unseen,
        seed=seed,
        protocol=protocol,
        data_fingerprint=data_fingerprint,
        hyperparameters=replace_known(base.hyperparameters_of(method), values),
        preset=preset,
        weights_fingerprint=weights_fingerprint(preset.weights),
        **{k: values[k] for k in ("log_every", "checkpoint_every") if k in values},
    )


def weights_fingerprint(weights: str) -> str:
    """16 digits of the SHA-256 of a preset's weights; empty where there is no such file.

    Of a folder it is that of the files' that are read.
    """
    if weights in ("", "scratch", "package"):
        return ""
    files = [file for file in files_of(Path(weights)) if file.is_file()]
    found = [_fingerprint(file.resolve(), file.stat().st_mtime_ns) for file in files]
    return found[0] if len(found) == 1 else digest(found) if found else ""


@functools.lru_cache(maxsize=16)
def _fingerprint(path: Path, changed: int) -> str:
    return file_sha256(path)[:16]


def replace_known(instance: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass with those of the values that it has fields for."""
    names = {field.name for field in dataclasses.fields(instance)}
    return dataclasses.replace(instance, **{k: v for k, v in values.items() if k in names})
