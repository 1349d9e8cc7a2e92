"""Fields of the configuration: their help, their digest, and the checks they share."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

LATER = {"later": True}  # metadata of a field that came after digests had been kept


def option(default: Any, help: str, later: bool = False) -> Any:
    """A field with its line of help; a later one leaves old digests as they are."""
    metadata = {"help": help} | (LATER if later else {})
    return dataclasses.field(default=default, metadata=metadata)


def digest(value: Any, length: int = 16) -> str:
    """The name of a value, by all that it holds.

    Args:
      value: a dataclass, or what JSON holds. A field that came later, at any depth, counts
        where it is not at its default, so that it changes no digest of before.
      length: at most 64.

    Returns:
      As many hexadecimal digits, the first of SHA-256.
    """
    text = json.dumps(_counted(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _counted(value: Any) -> Any:
    """The value as JSON has it, without later fields at their defaults."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: _counted(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (
                field.metadata.get("later") and getattr(value, field.name) == field.default
            )
        }
    if isinstance(value, Mapping):
        return {name: _counted(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_counted(item) for item in value]
    return value


def check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    """Raises a ValueError that lists what there is, unless `name` is among it."""
    if name not in known:
        raise ValueError(f"unknown {what} '{name}'; there are: {', '.join(known)}")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises a ValueError that names the field, unless it is finite and >= least."""
    if not least <= value < math.inf:
        finite = " and finite" if value == math.inf else ""
        raise ValueError(f"{name} must be at least {least}{finite}; got {value}.")
