"""Fields of the configuration: their help, and the checks they share."""

import dataclasses
from typing import Any


def option(default: Any, help: str) -> Any:
    """A field with its line of help."""
    return dataclasses.field(default=default, metadata={"help": help})


def check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    """Raises a ValueError that lists what there is, unless `name` is among it."""
    if name not in known:
        raise ValueError(f"unknown {what} '{name}'; there are: {', '.join(known)}")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises a ValueError that names the field, unless value >= least."""
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}; got {value}.")
