"""What tuning CLIP ViT-B/16 costs by each method: numbers kept, memory and operations.

The experiments' own step is compiled for the shapes of the weights and of a batch of 3 x 12
images of 224 pixels, 65 names, AdamW, float32, and never run: there are no weights. Memory
is the compiler's, for the device that it compiles for.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.progress import track

import disam_jax as dj
from experiments.config.preset import Preset
from experiments.config.protocols import find_protocol
from experiments.data.batches import Batch
from experiments.data.benchmarks import BENCHMARKS
from experiments.devices import one_device
from experiments.files import write_json, write_whole
from experiments.methods.registry import METHODS
from experiments.models.clip import Clip, Sizes
from experiments.models.clip.kind import ClipClassifier
from experiments.models.clip.towers import random_weights
from experiments.models.tuning import Params
from experiments.results.table import grid
from experiments.training.numerics import environment
from experiments.training.pattern import Numbers
from experiments.training.program import Program, TrainState, shapes
from experiments.training.step import compile_step, domain_losses

VIT_B16 = Sizes(768, 12, 16, 14, 512, 12, 77, 49408, 512)
TUNINGS = ("linear", "coop", "lora", "clipood")
COMPARED = ("erm", "sam", "disam")
UNRECORDED = ", unrecorded"  # nothing is kept of what the step saw
DOMAINS, MIB = 3, 2**20


@dataclasses.dataclass(frozen=True)
class Shapes(ClipClassifier):
    """A CLIP of which there are shapes alone.

    Attributes:
      sizes: of its towers.
    """

    sizes: Sizes = VIT_B16

    def clip(self, wanted: Preset) -> Clip:
        """With zeros that take no memory."""
        drawn = jax.eval_shape(lambda key: random_weights(self.sizes, key), KEY)
        zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), drawn)
        return Clip(zeros, self.sizes, "quick_gelu")


KEY = jax.eval_shape(lambda: jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class OfShapes(Program):
    """A method on a CLIP of shapes.

    Attributes:
      of: what makes the model.
    """

    of: Shapes = Shapes()

    @property
    def kind(self) -> Shapes:
        """What makes its model."""
        return self.of


def program(tuning: str, method: str, sizes: Sizes = VIT_B16) -> OfShapes:
    """A method, with its defaults, on a CLIP that is tuned on OfficeHome."""
    preset = dataclasses.replace(
        find_protocol("office_home", "clipood")[1].preset,
        tuning=tuning,
        bma=0.0,
        image_size=sizes.image_size,
    )
    names = BENCHMARKS["office_home"].classes
    own = METHODS[method]
    return OfShapes(own, own.defaults, preset, names, DOMAINS, of=Shapes(sizes=sizes))


def record(tuning: str, method: str, sizes: Sizes = VIT_B16) -> dict[str, Any]:
    """What the compiled step of a method holds, needs and computes.

    Args:
      tuning: a tuning of CLIP.
      method: a name in `METHODS`, which `UNRECORDED` may follow.
      sizes: of the CLIP.
    """
    own = program(tuning, method.removesuffix(UNRECORDED), sizes)
    state, frozen = shapes(own)
    step: Any = compile_step(own, one_device())
    if method.endswith(UNRECORDED):
        step = jax.jit(functools.partial(unrecorded, own), donate_argnums=2)
    count = DOMAINS * own.preset.batch_size
    compiled = step.lower(Numbers({}, {}), frozen, state, batch_of(count, sizes)).compile()
    memory = compiled.memory_analysis()
    return {
        "tuning": tuning,
        "method": method,
        "trained": numbers(state.params),
        "state": numbers(state.opt_state),
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "flops": compiled.cost_analysis()["flops"],
    }


def unrecorded(
    program: Program, numbers: Numbers, frozen: Params, state: TrainState, batch: Batch
) -> TrainState:
    """The same step for the weights alone: no norm, no cosine, no losses at w + eps."""
    del numbers
    losses = functools.partial(domain_losses, program, program.model, frozen, state)
    updates, opt_state = program.tx.update(
        None,  # pyright: ignore[reportArgumentType]  the method ignores what comes in
        state.opt_state,
        state.params,
        loss_fn=lambda params: losses(params, batch)[0],
        domain_weights=dj.domain_shares(batch.domains, program.num_domains),
    )
    params = optax.apply_updates(state.params, updates)
    return state._replace(step=state.step + 1, params=params, opt_state=opt_state)


def batch_of(count: int, sizes: Sizes) -> Batch:
    """The shapes of a batch."""
    side = sizes.image_size

    def made() -> Batch:
        labels = jnp.zeros(count, jnp.int32)
        images = jnp.zeros((count, side, side, 3))
        return Batch(images, labels, labels, jax.random.key(0))

    return jax.eval_shape(made)


def numbers(tree: Any) -> int:
    """How many a tree holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def tuning(
    out: Annotated[Path, typer.Option(help="JSON file; .md is put beside it.")],
    quick: Annotated[bool, typer.Option(help="Prompts alone, of a small CLIP.")] = False,
) -> None:
    """Numbers kept, memory and operations of every tuning of CLIP by ERM, SAM and DISAM."""
    tunings, sizes = TUNINGS, VIT_B16
    if quick:
        tunings, sizes = ("coop",), Sizes(64, 1, 16, 2, 64, 1, 77, 49408, 16)
    methods = (*COMPARED, f"disam{UNRECORDED}")
    cases = [(tuning, method) for tuning in tunings for method in methods]
    records = [record(*case, sizes) for case in track(cases, description="compile")]
    write_json(out, {"records": records, "environment": environment()})
    written = markdown(records)
    write_whole(out.with_suffix(".md"), written)
    print(written, end="")


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """A row for each record, its operations and memory beside ERM's of the tuning."""
    erm = {r["tuning"]: r for r in records if r["method"] == "erm"}
    columns = (
        "tuning",
        "trained",
        "method",
        "optimizer's and method's state",
        "temporary MiB",
        "/ ERM's",
        "arguments MiB",
        "GFLOP",
        "/ ERM's",
    )
    rows = []
    for r in records:
        of_erm = erm[r["tuning"]]
        rows.append(
            (
                r["tuning"],
                f"{r['trained']:,}",
                r["method"],
                f"{r['state']:,}",
                f"{r['temporary_bytes'] / MIB:,.0f}",
                f"{r['temporary_bytes'] / of_erm['temporary_bytes']:.3f}",
                f"{r['argument_bytes'] / MIB:,.0f}",
                f"{r['flops'] / 1e9:,.0f}",
                f"{r['flops'] / of_erm['flops']:.2f}",
            )
        )
    right = [" ---: "] * len(columns)
    right[0] = right[2] = " --- "
    return grid(columns, rows, right) + "\n"
