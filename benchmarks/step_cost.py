"""What a step costs beside ERM's, for every method on several models."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.cases import Case, classifier, mlp
from benchmarks.figures import family_times, step_times
from benchmarks.measure import Setup, measure
from benchmarks.methods import FAMILY, NAIVE, STANDARD
from benchmarks.tables import markdown, show
from experiments.fields import check_known
from experiments.files import write_json, write_whole
from experiments.training.numerics import environment

# What a model too slow for all of them is measured with.
MAIN = ("erm", "sam", "sagm", "disam", "sam by hand", "optax.contrib.sam")
WITHOUT_NAIVE = tuple(name for name in STANDARD if name not in NAIVE)
COMPILED_APART = ("erm", "disam")  # with rematerialization, and without donation


class Entry(NamedTuple):
    """A model of a suite.

    Attributes:
      make: dtype -> case.
      methods: those it is measured with.
      why: the others are left out.
      dtypes: those it is measured in unless told otherwise.
      apart: whether rematerialization and donation are measured too.
      seconds: of measuring, once all is compiled.
    """

    make: Callable[[str], Case]
    methods: Sequence[str] = STANDARD
    why: str = "which takes too long on 2 cores"
    dtypes: Sequence[str] = ("float32",)
    apart: bool = False
    seconds: float = 20.0


def _images(model: str, image_size: int, per_domain: int) -> Callable[[str], Case]:
    return functools.partial(
        classifier, model, image_size=image_size, per_domain=per_domain
    )


BOTH = ("float32", "bfloat16")
SUITES: dict[str, dict[str, Entry]] = {
    "quick": {
        "mlp": Entry(functools.partial(mlp, width=256), apart=True, seconds=4),
        "resnet": Entry(_images("resnet", 32, 8), ("erm", "sam", "disam"), seconds=4),
    },
    "default": {
        "mlp": Entry(mlp, dtypes=BOTH),
        "resnet": Entry(_images("resnet", 32, 16), apart=True, seconds=30),
        "resnet50": Entry(_images("resnet50", 64, 4), MAIN),
        "vit_s16": Entry(_images("vit_s16", 64, 4), MAIN, apart=True),
        "vit_b16": Entry(_images("vit_b16", 64, 4), MAIN),
    },
    "family": {
        "patchnet": Entry(_images("patchnet", 32, 32), FAMILY, seconds=60),
        "resnet": Entry(_images("resnet", 32, 16), FAMILY, seconds=90),
    },
    "large": {
        name: Entry(_images(name, 224, 32), WITHOUT_NAIVE, dtypes=BOTH, apart=True)
        for name in ("resnet50", "vit_s16", "vit_b16")
    },
}


def run(
    suite: str, models: Sequence[str] | None = None, dtypes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measures a suite.

    Args:
      suite: a key of `SUITES`.
      models: some of its models; None is all.
      dtypes: `float32`, `bfloat16`; None is what each model has.

    Returns:
      `records`, see `measure`; `left_out`, the methods that a model was not measured with;
      and `environment`.
    """
    entries = SUITES[suite]
    for model in models or ():
        check_known(f"model of the {suite} suite", model, tuple(entries))
    records, left_out = [], []
    for model in models or entries:
        entry = entries[model]
        for dtype in dtypes or entry.dtypes:
            check_known("dtype", dtype, BOTH)
            records += measure(entry.make(dtype), setups(entry), entry.seconds)
        left_out += [
            {"model": model, "method": name, "why": entry.why}
            for name in STANDARD
            if name not in entry.methods
        ]
    return {"records": records, "left_out": left_out, "environment": environment()}


def setups(entry: Entry) -> list[Setup]:
    """What takes turns on this model."""
    apart = [name for name in COMPILED_APART if entry.apart and name in entry.methods]
    return [
        *(Setup(name) for name in entry.methods),
        *(Setup(name, donated=False) for name in apart),
        *(Setup(name, remat=True) for name in apart),
    ]


def step_cost(
    out: Annotated[Path, typer.Option(help="JSON file; .md and .png are put beside it.")],
    quick: Annotated[bool, typer.Option(help="Within a minute on 2 cores.")] = False,
    family: Annotated[
        bool, typer.Option(help="Every method of the experiments, on two small models.")
    ] = False,
    large: Annotated[bool, typer.Option(help="224 pixels, for an accelerator.")] = False,
    models: Annotated[str, typer.Option(help="Some of them, a,b (default: all).")] = "",
    dtypes: Annotated[str, typer.Option(help="float32,bfloat16, or one of them.")] = "",
) -> None:
    """Operations, memory and time of every method's step, as ratios to ERM's."""
    asked = {"quick": quick, "family": family, "large": large}
    if sum(asked.values()) > 1:
        raise ValueError("give one of --quick, --family and --large.")
    suite = next((name for name, given in asked.items() if given), "default")
    result = run(suite, _split(models), _split(dtypes))
    write(result, out)
    show(result["records"])


def write(result: dict[str, Any], out: Path) -> None:
    """Writes the JSON file, and the table and the figure beside it."""
    write_json(out, result)
    write_whole(out.with_suffix(".md"), markdown(result["records"], result["left_out"]))
    draw = family_times if _is_family(result["records"]) else step_times
    draw(result["records"], out.with_suffix(".png"))


def _is_family(records: Sequence[dict[str, Any]]) -> bool:
    return {r["method"] for r in records} >= set(FAMILY)


def _split(names: str) -> list[str] | None:
    return [name.strip() for name in names.split(",")] if names else None
