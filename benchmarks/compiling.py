"""What the compiler makes of a step, and what that takes it, beside the step by hand.

Lines of the optimized program are the same on every machine of one kind, quiet or busy; the
processor's seconds are of this process and all of its threads.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import jax
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.cases import Case, classifier, mlp
from benchmarks.methods import METHODS
from experiments.files import write_json
from experiments.training.numerics import environment

BY_HAND = "sam by hand"
NAMES = ("erm", BY_HAND, "sam", "disam", "sagm", "gsam", "disam (recorded)")


def compiling(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    quick: Annotated[bool, typer.Option(help="A small network alone.")] = False,
) -> None:
    """Lines of the optimized program and seconds of compiling, on ResNet-50 and ViT-S."""
    jax.config.update("jax_enable_compilation_cache", False)
    cases = [mlp()] if quick else []
    if not quick:
        cases = [
            classifier(m, image_size=64, per_domain=4) for m in ("resnet50", "vit_s16")
        ]
    records = [
        record(case, name)
        for case in cases
        for name in track(NAMES, description=case.model)
    ]
    write_json(out, {"records": records, "environment": environment()})
    table = Table("model", "step", "lines", f"/ {BY_HAND}", "CPU s", f"/ {BY_HAND}")
    by_hand = {r["model"]: r for r in records if r["step"] == BY_HAND}
    for r in records:
        cells = [r["model"], r["step"]]
        for key in ("lines", "cpu_seconds"):
            cells += [f"{r[key]:.0f}", f"{r[key] / by_hand[r['model']][key]:.2f}"]
        table.add_row(*cells)
    Console().print(table)


def record(case: Case, name: str) -> dict[str, Any]:
    """What compiling one step gives and takes.

    Args:
      case: the model.
      name: of the step, a key of the benchmarks' `METHODS`.

    Returns:
      The record: lines of the optimized program, seconds by the clock and of the
      processor, tracing left out.
    """
    step, state = METHODS[name](case)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(case.params, state, case.batch)
    clock, cpu = time.perf_counter(), time.process_time()
    compiled = lowered.compile()
    return {
        "model": case.model,
        "step": name,
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - clock,
        "lines": len((compiled.as_text() or "").splitlines()),
    }
