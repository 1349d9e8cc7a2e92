"""Command-line options made from the fields of dataclasses, so that each is said once."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.config.preset import CHOICES, Preset
from experiments.config.run import RunConfig
from experiments.fields import option
from experiments.methods.registry import Hyperparameters


@dataclasses.dataclass(frozen=True)
class Where:
    """Where the images are that do not come with this package."""

    data_dir: Path | None = option(None, "images, DATA_DIR/DOMAIN/CLASS/image")
    prepared_dir: Path | None = option(None, "where they are prepared (default: TFDS's)")
    split_dir: Path | None = option(None, "folder of the published split files")
    skip_corrupt: bool = option(False, "leave out corrupt images and list them")
    allow_missing: bool = option(False, "go on although images of a benchmark are missing")


@dataclasses.dataclass(frozen=True)
class Machines:
    """On what a run is computed; none of it changes what is computed."""

    devices: int | None = option(None, "how many to take (default: all)")
    parameters: str = option("replicated", "on every device, or sharded among them")
    distributed: bool = option(False, "one of several processes, as the cluster tells")
    coordinator: str | None = option(None, "HOST:PORT of process 0, without a cluster")
    processes: int | None = option(None, "how many there are, without a cluster")
    process: int | None = option(None, "which this one is, from 0, without a cluster")


TRAINING = (Hyperparameters, Preset, RunConfig)


def with_options(name: str, *owners: type) -> Callable[[Callable], Callable]:
    """Gives a command an option for every field of `owners` that has a help.

    Args:
      name: of the command's keyword that takes them all, as a dict; what was not given on
        the command line is None there.
      owners: dataclasses whose fields are made with `presets.option`.

    Returns:
      A decorator.
    """
    added = [
        _parameter(field)
        for owner in owners
        for field in dataclasses.fields(owner)
        if "help" in field.metadata
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        kept = [p for p in own.parameters.values() if p.name != name]

        @functools.wraps(command)
        def wrapper(**kwargs: Any) -> None:
            given = {p.name: kwargs.pop(p.name) for p in added}
            command(**kwargs, **{name: given})

        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in kept] + added
        wrapper.__signature__ = own.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _parameter(field: dataclasses.Field) -> inspect.Parameter:
    text = field.metadata["help"]
    choices = f" ({', '.join(CHOICES[field.name])})" if field.name in CHOICES else ""
    made = typer.Option(help=text[0].upper() + text[1:] + choices, show_default=False)
    kind: Any = field.type
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, made],
    )
