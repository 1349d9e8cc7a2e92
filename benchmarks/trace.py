"""One step as JAX's profiler sees it: which part of the method each operation is of.

The engine's parts are named scopes, so that they stand in any profiler's view; here they
are the rows of a figure.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case, classifier, mlp
from benchmarks.figures import NAMES
from benchmarks.measure import Compiled, Setup, compile_step
from experiments.files import write_json
from experiments.results.figures import NARROW, save
from experiments.results.labels import PALETTE, label
from experiments.training.numerics import environment

PARTS: tuple[str, ...] = (
    "ascend",
    "perturb",
    "descend",
    "combine",
)  # scopes of a step, in its order
REST = "optimizer"  # what stands after the method
WARM = 5  # steps before the one that is looked at


class Operation(NamedTuple):
    """One operation of the step, as it ran.

    Attributes:
      part: of `PARTS`, or `REST`.
      name: of the compiled program.
      start: milliseconds since the step's first.
      duration: milliseconds.
    """

    part: str
    name: str
    start: float
    duration: float


def trace(
    out: Annotated[Path, typer.Option(help="JSON file; .png is put beside it.")],
    quick: Annotated[bool, typer.Option(help="A small network.")] = False,
    method: Annotated[str, typer.Option(help="Of which a step is traced.")] = "disam+sagm",
) -> None:
    """A profile of one step, each operation under the part of the method that it is of."""
    case = mlp() if quick else classifier("resnet", image_size=32, per_domain=16)
    operations = traced(case, method)
    write_json(
        out,
        {
            "model": case.model,
            "method": method,
            "operations": [operation._asdict() for operation in operations],
            "environment": environment(),
        },
    )
    draw(
        operations,
        f"A step of {label(method)}, {NAMES.get(case.model, case.model)}",
        out.with_suffix(".png"),
    )
    table = Table("part", "operations", "ms", "share")
    whole = sum(o.duration for o in operations)
    for part in (*PARTS, REST):
        own = [o.duration for o in operations if o.part == part]
        table.add_row(part, f"{len(own)}", f"{sum(own):.2f}", f"{sum(own) / whole:.1%}")
    Console().print(table)


def traced(case: Case, method: str) -> list[Operation]:
    """The operations of one step of the method, in the order in which they began."""
    compiled = compile_step(case, Setup(method, donated=False))
    for _ in range(WARM):
        _run(compiled, case)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            _run(compiled, case)
        found = sorted(_operations(Path(folder), parts_of(compiled.step.as_text())))
    first = found[0][0] if found else 0.0
    return [Operation(p, n, (at - first) / 1e6, d / 1e6) for at, d, p, n in found]


def _run(compiled: Compiled, case: Case) -> None:
    jax.block_until_ready(compiled.step(case.params, compiled.state, case.batch))


def _operations(
    folder: Path, parts: dict[str, str]
) -> Iterator[tuple[float, float, str, str]]:
    """(start, nanoseconds, part, name) of what the profiler saw of the program."""
    (file,) = folder.rglob("*.xplane.pb")
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name in parts and event.name == name:
                    yield event.start_ns, event.duration_ns, parts[name], name


def parts_of(text: str) -> dict[str, str]:
    """The part of each operation of a compiled program, by the scopes in its text.

    Of one that the compiler made of several the part that most of those are of.
    """
    parts, inner = {}, {}
    for computation, lines in re.findall(r"^%?(\S+) [^\n]*{\n(.*?)^}", text, re.S | re.M):
        scopes = re.findall(r'op_name="([^"]*)"', lines)
        inner[computation] = Counter(_part(scope) for scope in scopes)
    for name, rest in re.findall(r"^\s+(?:ROOT )?%?([\w.-]+) = ([^\n]*)", text, re.M):
        found = Counter(_part(scope) for scope in re.findall(r'op_name="([^"]*)"', rest))
        for computation in re.findall(r"calls=%?([\w.-]+)", rest):
            found += inner.get(computation, Counter())
        parts[name] = found.most_common(1)[0][0] if found else REST
    return parts


def _part(scope: str) -> str:
    own = [part for part in PARTS if part in re.split(r"[/()]", scope)]
    return own[0] if own else REST


def draw(operations: list[Operation], title: str, path: Path) -> None:
    """A row for each part, a bar for each of its operations, over the step's time."""
    whole = sum(o.duration for o in operations)
    colors = dict(zip((*PARTS, REST), PALETTE[1:], strict=False))
    rows = [p for p in colors if any(o.part == p for o in operations)]
    figure, axes = plt.subplots(
        figsize=(NARROW, 0.42 * len(rows) + 1.0), layout="constrained"
    )
    labels = []
    for row, part in enumerate(rows):
        own = [o for o in operations if o.part == part]
        bars: Any = [(o.start, o.duration) for o in own]
        color = colors[part]  # edges, for what is shorter than a pixel
        axes.broken_barh(bars, (row - 0.4, 0.8), color=color, linewidth=0.4)
        labels.append(f"{part}\n{sum(o.duration for o in own) / whole:.1%}")
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_title(title, loc="left")
    save(figure, path)
