"""What a step needs for itself, beside parameters and batch, as the batch grows.

Nothing is run: it is what the compiler allots for temporaries (its memory analysis), which
is the same on a quiet machine and a busy one.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import optax
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import disam_jax as dj
from benchmarks.cases import Batch, Case, classifier, rematerialized
from experiments.files import write_json
from experiments.training.numerics import environment

METHODS = {"erm": dj.erm(), "disam": dj.disam()}  # SAM's is DISAM's
MICRO_BATCH = 24  # examples of a micro-batch
MIB = 2**20


def memory(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    quick: Annotated[bool, typer.Option(help="One model, two batches.")] = False,
) -> None:
    """Temporary memory against batch: at once, in micro-batches, with rematerialization."""
    models = ["vit_s16"] if quick else ["resnet", "vit_s16"]
    sizes = [24, 96] if quick else [24, 48, 96, 192]
    records: list[dict[str, Any]] = []
    for model in track(models, description="models"):
        for size in sizes:
            case = classifier(model, image_size=64, per_domain=size // 3)
            for method in METHODS:
                records.append(record(case, method, size, "at once"))
                records.append(record(case, method, size, "micro-batches"))
            records.append(record(rematerialized(case), "disam", size, "rematerialized"))
    write_json(out, {"records": records, "environment": environment()})
    table = Table("model", "method", "taken", *(f"{size} images, MiB" for size in sizes))
    rows = {(r["model"], r["method"], r["taken"]): [] for r in records}
    for r in records:
        rows[r["model"], r["method"], r["taken"]].append(
            f"{r['temporary_bytes'] / MIB:.0f}"
        )
    for names, cells in rows.items():
        table.add_row(*names, *cells)
    Console().print(table)


def record(case: Case, method: str, size: int, taken: str) -> dict[str, Any]:
    """What the compiled step of a method needs.

    Args:
      case: the model, with a batch of `size` images.
      method: a key of `METHODS`.
      size: of the batch.
      taken: `at once`, `rematerialized` (as the case is) or `micro-batches`.

    Returns:
      The record; parameters_bytes tells what the model is.
    """
    tx = optax.chain(METHODS[method], optax.sgd(1e-3, momentum=0.9))

    def step(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        if taken == "micro-batches":
            arguments = {
                "loss_fn": case.domain_losses,
                "micro_batches": dj.micro_batches(batch, size // MICRO_BATCH),
            }
        else:
            arguments = {"loss_fn": lambda params: case.domain_losses(params, batch)}
        updates, state = tx.update(None, state, params, **arguments)  # pyright: ignore[reportArgumentType]
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1))
    compiled = jitted.lower(case.params, tx.init(case.params), case.batch).compile()
    analysis: Any = compiled.memory_analysis()
    return {
        "model": case.model,
        "method": method,
        "dtype": case.dtype,
        "taken": taken,
        "batch": size,
        "micro_batches": size // MICRO_BATCH if taken == "micro-batches" else 1,
        "temporary_bytes": analysis.temp_size_in_bytes,
        "parameters_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(case.params)),
    }
