"""How a step's cost beside ERM's grows: with the batch, the model and the domains."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.cases import Case, mlp
from benchmarks.figures import growth_panels
from benchmarks.measure import Setup, measure
from benchmarks.methods import NAIVE
from benchmarks.tables import show
from experiments.files import write_json
from experiments.training.numerics import environment

METHODS = ("sam", "sagm", "disam")


class Axis(NamedTuple):
    """One thing that grows while the others stay.

    Attributes:
      name: the field of a record that grows.
      make: value -> case.
      values: from small to large.
      quick: fewer of them.
      slow: methods that take turns of their own, lest the others have few.
    """

    name: str
    make: Callable[[int], Case]
    values: Sequence[int]
    quick: Sequence[int]
    slow: Sequence[str] = ()


AXES = (
    Axis(
        "batch_size",
        lambda size: mlp(width=512, batch_size=size),
        (16, 32, 64, 128, 256, 512, 1024),
        (16, 128),
    ),
    Axis(
        "parameters",
        lambda width: mlp(width=width, batch_size=128),
        (64, 128, 256, 512, 1024, 2048),
        (64, 256),
    ),
    # The batch stays as it is: more domains are fewer examples of each.
    Axis(
        "domains",
        lambda domains: mlp(width=256, batch_size=256, domains=domains),
        (2, 4, 8, 16, 32, 64, 128),
        (2, 16),
        NAIVE,
    ),
)


def run(quick: bool, seconds: float = 5.0) -> dict[str, Any]:
    """Measures every axis.

    Args:
      quick: two points of each, within a minute on 2 cores.
      seconds: of measuring each point, once all is compiled.

    Returns:
      `records`, see `measure`, each with the `axis` that it is a point of; and
      `environment`.
    """
    records = []
    for axis in AXES:
        for value in axis.quick if quick else axis.values:
            case = axis.make(value)
            found = measure(case, _setups(METHODS), 1.0 if quick else seconds)
            if axis.slow:
                found += measure(case, _setups(axis.slow), 0.0)[1:]  # ERM is there already
            records += [{**record, "axis": axis.name} for record in found]
    return {"records": records, "environment": environment()}


def _setups(methods: Sequence[str]) -> list[Setup]:
    return [Setup(method) for method in methods]


def growth(
    out: Annotated[Path, typer.Option(help="JSON file; .png is put beside it.")],
    quick: Annotated[bool, typer.Option(help="Within a minute on 2 cores.")] = False,
) -> None:
    """Time, operations and memory against the batch, the parameters and the domains."""
    result = run(quick)
    write(result, out)
    show(result["records"])


def write(result: dict[str, Any], out: Path) -> None:
    """Writes the JSON file and the figure beside it."""
    write_json(out, result)
    growth_panels(result["records"], out.with_suffix(".png"))
