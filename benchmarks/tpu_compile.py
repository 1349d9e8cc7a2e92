"""Steps as the TPU's compiler makes them, on a machine without one.

`pip install "jax[tpu]"` brings the compiler along; it is told a topology of chips and gives
the program that would run on each of them, with its memory and its collectives.
"""

import functools
import math
import os
import re
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import jax
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.cases import IMAGE_DOMAINS, Case, classifier
from benchmarks.methods import METHODS
from experiments.devices import Layout
from experiments.files import read_json, write_json, write_whole
from experiments.results.table import grid
from experiments.training.numerics import environment

STEPS = ("erm", "sam", "disam", "sagm", "gsam", "interval_sam", "momentum_sam")
MODELS = ("vit_s16", "vit_b16", "resnet50")
PER_CHIP = 24  # images
COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
)  # fmt: skip
COLUMNS = (
    "chips, model, parameters", "step", "operations / ERM's", "bytes / ERM's",
    "temporary / ERM's", "temporary, MiB", "moved between chips / ERM's", "collectives",
)  # fmt: skip
COLLECTIVE = re.compile(
    rf"%(\S+) = (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\((?:.*?channel_id=(\d+))?"
)
BRANCHES = re.compile(r"branch_computations=\{(.*?)\}")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4}
BYTES |= {"f64": 8, "s64": 8, "u64": 8}


def tpu_compile(
    out: Annotated[
        Path,
        typer.Option(help="JSON file, with .md beside it; goes on with what is missing."),
    ],
    topology: Annotated[str, typer.Option(help="Kind and grid of chips.")] = "v5e:2x2",
    models: Annotated[str, typer.Option(help="With commas between.")] = ",".join(MODELS),
    methods: Annotated[str, typer.Option(help="With commas between.")] = ",".join(STEPS),
    image_size: Annotated[int, typer.Option(help="Pixels along a side.")] = 224,
) -> None:
    """Operations, bytes, memory and collectives of steps on a TPU, over ERM's."""
    chips = chips_of(topology)
    result: dict[str, Any] = read_json(out) if out.exists() else {"records": []}
    result["environment"] = environment()
    result["environment"]["packages"]["libtpu"] = version("libtpu")
    done = {tuple(r[key] for key in KEYS): r for r in result["records"]}
    for model in models.split(","):
        for sharded in (False, True):
            for method in methods.split(","):
                key = (topology, model, image_size, sharded, method)
                if key in done:
                    continue
                case = _case(model, image_size)
                record = dict(zip(KEYS, key, strict=True)) | compiled(
                    case, method, chips, sharded
                )
                result["records"].append(record)
                write_json(out, result)
                Console().print(f"{model}, {method}, sharded {sharded}: compiled")
    write_whole(out.with_suffix(".md"), markdown(result["records"]))
    show(result["records"])


KEYS = ("topology", "model", "image_size", "sharded", "method")


def chips_of(topology: str) -> list[Any]:
    """The chips of a topology, `v5e:2x2` say, none of which needs to be there.

    Raises:
      RuntimeError: the TPU's compiler is not installed.
    """
    jax.config.update("jax_platforms", "cpu")
    kind, _, grid = topology.partition(":")
    count = math.prod(int(side) for side in grid.split("x"))
    alone = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": f"{kind.replace('v5e', 'v5litepod')}-{count}",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip that two processes would share
    }
    os.environ.update(alone)
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)
    except Exception as error:
        raise RuntimeError(
            f'no compiler for {topology}: `pip install "jax[tpu]"` brings it ({error})'
        ) from error


@functools.lru_cache(maxsize=1)
def _case(model: str, image_size: int) -> Case:
    return classifier(model, "bfloat16", image_size=image_size, per_domain=1)


def compiled(case: Case, method: str, chips: list[Any], sharded: bool) -> dict[str, Any]:
    """What the compiler makes of one step.

    Args:
      case: the model, with a batch of any size.
      method: a key of the benchmarks' `METHODS`.
      chips: that share the batch.
      sharded: whether parameters and state are shared among the chips too; otherwise each
        has a copy.

    Returns:
      `flops` and `bytes_accessed` of a step on one chip, `temporary_bytes`,
      `argument_bytes`, and of each kind of `collectives` its `count`, `bytes` and the
      `largest`'s.
    """
    layout = Layout(tuple(chips), "sharded" if sharded else "replicated")
    size = PER_CHIP * len(chips) // IMAGE_DOMAINS * IMAGE_DOMAINS
    step, state = METHODS[method](_gathering(case, layout))
    out = layout.of_state((case.params, state))
    params, state = jax.tree.map(
        lambda leaf, sharding: _shape(leaf.shape, leaf.dtype, sharding),
        (case.params, state),
        out,
    )
    batch = jax.tree.map(
        lambda x: _shape((size, *x.shape[1:]), x.dtype, layout.spread), case.batch
    )
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=out)
    program: Any = jitted.lower(params, state, batch).compile()
    memory, cost = program.memory_analysis(), program.cost_analysis()
    return {
        "chips": len(chips),
        "batch_size": size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(case.params)),
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "collectives": collectives(program.as_text()),
    }


def _gathering(case: Case, layout: Layout) -> Case:
    def example_losses(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        return case.example_losses(layout.gather(params), inputs, labels)

    return case._replace(example_losses=example_losses)


def _shape(shape: Any, dtype: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Kind -> count, bytes and the largest one's, by the text of a compiled program.

    Of the branches of a condition only one runs: the one that moves most is counted. What
    runs beside computations is written where it begins, in them and where it ends, under
    one number. The TPU's compiler writes a reduce-scatter as an all-reduce in a fusion of
    that name; several have one number, and the bytes are those of what is reduced.
    """
    header = r"^(ENTRY )?%(\S+) .*?\{\n(.*?)^\}"
    found = re.findall(header, text, re.MULTILINE | re.DOTALL)
    bodies = {name: body for _, name, body in found}

    def own_and_called(name: str) -> dict[str, tuple[str, int]]:
        """What tells it apart -> kind and bytes, of a computation and of those it calls."""
        body = bodies[name]
        scatters = name.startswith("all-reduce-scatter")
        here = {
            name if scatters else number or own: (
                "reduce-scatter" if scatters else kind,
                _bytes(shape),
            )
            for own, shape, kind, number in COLLECTIVE.findall(body)
        }
        for names in BRANCHES.findall(body):
            branches = [own_and_called(branch.strip(" %")) for branch in names.split(",")]
            here |= max(branches, key=lambda each: sum(size for _, size in each.values()))
        for called in re.findall(r"=%([\w.-]+)", body):
            here |= own_and_called(called)
        return here

    entry = next(name for is_entry, name, _ in found if is_entry)
    sizes: dict[str, list[int]] = defaultdict(list)
    for kind, size in own_and_called(entry).values():
        sizes[kind].append(size)
    return {
        kind: {"count": len(own), "bytes": sum(own), "largest": max(own)}
        for kind, own in sorted(sizes.items())
    }


def _bytes(shape: str) -> int:
    """Of an array or a tuple, as a program writes it."""
    return sum(
        BYTES.get(dtype, 4) * math.prod(int(d) for d in dims.split(",") if d)
        for dtype, dims in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    )


def rows(records: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each step, over ERM's of the same model on the same chips."""
    found = []
    for r in records:
        same = [e for e in records if all(e[k] == r[k] for k in KEYS[:-1])]
        erm = next((e for e in same if e["method"] == "erm"), None)
        if erm is None:
            continue
        keys = ("flops", "bytes_accessed", "temporary_bytes")
        found.append([
            f"{r['topology']}, {r['model']}, {'sharded' if r['sharded'] else 'replicated'}",
            r["method"],
            *(f"{r[key] / erm[key]:.3f}" for key in keys),
            f"{r['temporary_bytes'] / 2**20:.0f}",
            f"{moved(r) / moved(erm):.3f}",
            ", ".join(f"{own['count']} {kind}" for kind, own in r["collectives"].items()),
        ])  # fmt: skip
    return found


def moved(record: dict[str, Any]) -> int:
    """Bytes that go from chip to chip in a step."""
    return sum(own["bytes"] for own in record["collectives"].values())


def show(records: list[dict[str, Any]]) -> None:
    """Prints the rows."""
    table = Table(*COLUMNS)
    for row in rows(records):
        table.add_row(*row)
    Console().print(table)


def markdown(records: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    # What is read as a number stands to the right.
    return (
        grid([*COLUMNS], rows(records), [*[" --- "] * 2, *[" ---: "] * 5, " --- "]) + "\n"
    )
