"""Command-line options made from the fields of dataclasses, so that each is said once."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Annotated, Any, get_origin

import typer

from experiments.config.preset import CHOICES, Preset
from experiments.config.run import RunConfig
from experiments.fields import option
from experiments.methods import Hyperparameters, find_method


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


@dataclasses.dataclass(frozen=True)
class TrainedOn:
    """What `train` and `compare` begin with."""

    data: Annotated[str, typer.Option(help="Data set; `datasets` lists them.")] = (
        "emoji_styles"
    )
    protocol: Annotated[
        str | None, typer.Option(help="Preset of the data set (default: its first).")
    ] = None


def split(names: str) -> list[str]:
    """The names of an option, which has commas between them."""
    return [name.strip() for name in names.split(",") if name.strip()]


def split_methods(names: str) -> list[str]:
    """Those of --methods.

    Raises:
      ValueError: there is none, or one is unknown.
    """
    found = split(names)
    if not found:
        raise ValueError(
            f"--methods is '{names}', which names none: give some, with commas between; "
            "`methods` lists them."
        )
    for name in found:
        find_method(name)
    return found


def with_options(
    **groups: type | tuple[type, ...],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for every field of dataclasses that is one.

    A field is an option if it is made with `fields.option`, or annotated as Typer has it.

    Args:
      **groups: name of an argument of the command -> a dataclass, an instance of which it
        gets, or several, of whose fields it gets as a dict those that were given.

    Returns:
      A decorator.
    """
    options = {
        name: [_parameter(field) for owner in _owners(group) for field in _options(owner)]
        for name, group in groups.items()
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        kept = [p for p in own.parameters.values() if p.name not in groups]
        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in kept]
        parameters += itertools.chain.from_iterable(options.values())

        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            for name, group in groups.items():
                found = {p.name: arguments.pop(p.name) for p in options[name]}
                given = {k: value for k, value in found.items() if value is not None}
                arguments[name] = given if isinstance(group, tuple) else group(**given)
            command(**arguments)

        wrapper.__signature__ = own.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _owners(group: type | tuple[type, ...]) -> tuple[type, ...]:
    return group if isinstance(group, tuple) else (group,)


def _options(owner: type) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(owner) if "help" in f.metadata or _of_typer(f)]


def _of_typer(field: dataclasses.Field) -> bool:
    return get_origin(field.type) is Annotated


def _parameter(field: dataclasses.Field) -> inspect.Parameter:
    kind: Any = field.type
    if _of_typer(field):
        default, annotation = field.default, kind
    else:
        text = field.metadata["help"]
        choices = f" ({', '.join(CHOICES[field.name])})" if field.name in CHOICES else ""
        made = typer.Option(help=text[0].upper() + text[1:] + choices, show_default=False)
        default, annotation = None, Annotated[kind | None, made]
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
