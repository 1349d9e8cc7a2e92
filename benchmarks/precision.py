"""What half precision leaves of SAM's perturbation, and what helps.

The reference is the step in float32. Of every other way are told: how much of eps reaches
the rounded parameters; how far each domain's sharpness, perturbed_losses - losses, is off;
and the cosine of what SAM adds to the gradient, g' - g(float32), with the reference's. A
step in which that is noise is ERM's with noise, whatever its accuracy.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import disam_jax as dj
from benchmarks.cases import Case, classifier
from experiments.files import write_json
from experiments.training.numerics import environment


@dataclasses.dataclass(frozen=True)
class Way:
    """How a step is computed.

    Attributes:
      name: in the table.
      dtype: of the pass at w.
      perturbed_dtype: of the pass at w + eps.
    """

    name: str
    dtype: str
    perturbed_dtype: str


WAYS = (
    Way("float32", "float32", "float32"),
    Way("bfloat16", "bfloat16", "bfloat16"),
    Way("bfloat16, w + eps in float32", "bfloat16", "float32"),
    Way("float16", "float16", "float16"),
)


def precision(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    quick: Annotated[bool, typer.Option(help="One model, one rho.")] = False,
    large: Annotated[bool, typer.Option(help="224 px, for an accelerator.")] = False,
) -> None:
    """How much of eps, of the sharpness and of SAM's gradient survives half precision."""
    models = ["resnet"] if quick else ["resnet", "resnet18", "vit_s16"]
    radii = [0.05] if quick else [0.05, 0.2, 1.0]
    size = 224 if large else 32
    records = []
    for model in track(models, description="models"):
        cases = {
            dtype: classifier(model, dtype, image_size=size, per_domain=8)
            for dtype in ("float32", "bfloat16", "float16")
        }
        for rho in radii:
            records += compare(cases, rho)
    write_json(out, {"records": records, "environment": environment()})
    table = Table("model", "rho", "way", "length", "cosine", "sharpness off", "SAM's part")
    for r in records:
        table.add_row(
            r["model"],
            f"{r['rho']:g}",
            r["way"],
            f"{r['realized_length_ratio']:.2f}",
            f"{r['realized_cosine']:.2f}",
            f"{100 * r['sharpness_error']:.0f} %",
            f"{r['correction_cosine']:.2f}",
        )
    Console().print(table)


def compare(cases: dict[str, Case], rho: float) -> list[dict[str, Any]]:
    """One record for each of `WAYS`, on one model.

    Args:
      cases: dtype -> the same model and batch in that dtype.
      rho: of SAM.

    Returns:
      The records.
    """
    reference = cases["float32"]
    plain = jax.jit(jax.grad(reference.mean_loss))(reference.params, reference.batch)
    found = {way.name: step(cases, way, rho) for way in WAYS}
    whole_grad, whole = found["float32"]
    sharpness = whole.perturbed_losses - whole.losses
    correction = optax.tree.sub(whole_grad, plain)
    records = []
    for way in WAYS:
        grad, seen = found[way.name]
        realized = seen.realized
        error = jnp.abs(seen.perturbed_losses - seen.losses - sharpness) / sharpness
        added = optax.tree.sub(grad, plain)
        # In the pass at w + eps, where it matters.
        kept = way.perturbed_dtype == "float32"
        records.append(
            {
                "model": reference.model,
                "rho": rho,
                "way": way.name,
                "dtype": way.dtype,
                "perturbed_dtype": way.perturbed_dtype,
                "realized_length_ratio": 1.0 if kept else float(realized.length_ratio),
                "realized_cosine": 1.0 if kept else float(realized.cosine),
                "sharpness_error": float(np.mean(error)),
                "correction_cosine": float(_cosine(added, correction)),
                "gradient_cosine": float(_cosine(grad, whole_grad)),
            }
        )
    return records


def step(cases: dict[str, Case], way: Way, rho: float) -> tuple[Any, Any]:
    """SAM's gradient and what was seen."""
    at_params, at_perturbed = cases[way.dtype], cases[way.perturbed_dtype]
    # A float16 gradient vanishes without it; elsewhere it changes nothing.
    scale = 2.0**10
    tx = dj.sam(rho)

    @jax.jit
    def run(params: Any, batch: Any) -> Any:
        grads, state = tx.update(
            None,  # pyright: ignore[reportArgumentType]  the method ignores what comes in
            tx.init(params),
            params,
            loss_fn=lambda params: at_params.domain_losses(params, batch),
            perturbed_loss_fn=lambda params: at_perturbed.domain_losses(params, batch),
            loss_scale=jnp.float32(scale),
            compute_dtype=way.perturbed_dtype,
            record=True,
        )
        return grads, dj.pop_evaluation(state)[0]

    return run(at_params.params, at_params.batch)


def _cosine(a: Any, b: Any) -> Any:
    return optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b))
