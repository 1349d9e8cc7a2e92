"""A step in PyTorch beside this library's: the same networks, batch and optimizer.

PyTorch is no dependency of this project: `pip install torch torchvision timm` brings it.
Its SAM is written by hand with the operations on whole lists (`torch._foreach_*`), which is
quicker than the loops over parameters that are passed around. It is not compiled, as most
run it; JAX's step is. Both have float32, all cores, and BatchNorm's statistics frozen.
"""

import importlib
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer

from benchmarks.cases import CLASSES, Case, classifier
from benchmarks.measure import ERM, Compiled, Setup, compile_step, take_turns
from benchmarks.methods import RHO
from experiments.fields import check_known
from experiments.files import write_json
from experiments.results.table import grid
from experiments.training.numerics import environment

PER_DOMAIN, IMAGE_SIZE = 4, 64
OURS = ("erm", "sam", "disam")
RATIOS = ("over_erm", "over_sam_in_pytorch")
PACKAGES = ("torch", "torchvision", "timm")


def pytorch(
    out: Annotated[Path, typer.Option(help="JSON file.")],
    models: Annotated[str, typer.Option(help="With commas between.")] = "resnet50,vit_s16",
    seconds: Annotated[float, typer.Option(help="Of measuring, for each model.")] = 60.0,
) -> None:
    """Seconds of a step of ERM and SAM in PyTorch and here, taking turns."""
    torch, torchvision, timm = map(installed, PACKAGES)
    torch.set_num_threads(os.cpu_count())
    networks: dict[str, Callable[[], Any]] = {
        "resnet50": lambda: torchvision.models.resnet50(num_classes=CLASSES),
        "vit_s16": lambda: timm.create_model(
            "vit_small_patch16_224", img_size=IMAGE_SIZE, num_classes=CLASSES
        ),
    }
    records = []
    wanted = models.split(",")
    for model in wanted:
        check_known("model", model, tuple(networks))
    for model in wanted:
        case = classifier(model, image_size=IMAGE_SIZE, per_domain=PER_DOMAIN)
        network = networks[model]().train(False)  # BatchNorm's statistics stay
        ours = sum(leaf.size for leaf in jax.tree.leaves(case.params))
        theirs = sum(p.numel() for p in network.parameters())
        if ours != theirs:
            raise ValueError(f"{model} has {ours} parameters here and {theirs} there.")
        records += _turns(case, torch, network, seconds)
    machine = environment()
    machine["packages"] |= {name: installed(name).__version__ for name in PACKAGES}
    write_json(out, {"records": records, "environment": machine})
    print(table(records))


def installed(name: str) -> Any:
    """The module of a package.

    Raises:
      ImportError: there is none; the message says how to have all of them.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        needed = " ".join(PACKAGES)
        raise ImportError(f"{name} is not installed: pip install {needed}") from error


def _turns(case: Case, torch: Any, network: Any, seconds: float) -> list[dict[str, Any]]:
    compiled = {Setup(name): compile_step(case, Setup(name)) for name in OURS}
    theirs = {name: Setup(f"{name} in PyTorch") for name in ("erm", "sam")}
    for name, setup in theirs.items():
        compiled[setup] = Compiled(torch_step(torch, network, case, name == "sam"), (), 0.0)
    times = take_turns(case, compiled, seconds)
    return [
        {
            "model": case.model,
            "method": setup.method,
            "milliseconds": 1e3 * statistics.median(times[setup]),
            "over_erm": _ratio(times[setup], times[ERM]),
            "over_sam_in_pytorch": _ratio(times[setup], times[theirs["sam"]]),
            "rounds": len(times[setup]),
            "batch_size": len(case.batch.labels),
            "image_size": case.image_size,
        }
        for setup in compiled
    ]


def _ratio(times: list[float], to: list[float]) -> list[float]:
    """Median and quartiles of the ratio, round by round."""
    low, middle, high = statistics.quantiles(map(np.divide, times, to), n=4)
    return [float(middle), float(low), float(high)]


def torch_step(torch: Any, network: Any, case: Case, sam: bool) -> Callable[..., Any]:
    """A step of ERM or of SAM: what it is given is given back, its weights are its own."""
    images = torch.from_numpy(np.array(case.batch.inputs).transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(np.array(case.batch.labels)).long()
    params = list(network.parameters())
    optimizer = torch.optim.SGD(params, lr=1e-3, momentum=0.9)

    def gradient() -> list[Any]:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        return [p.grad for p in params]

    def step(ours: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        del batch
        found = gradient()
        if sam:
            with torch.no_grad():
                length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))
                eps = torch._foreach_mul(found, RHO / length)
                torch._foreach_add_(params, eps)
            gradient()
            with torch.no_grad():
                torch._foreach_sub_(params, eps)
        optimizer.step()
        return ours, state

    return step


def table(records: list[dict[str, Any]]) -> str:
    """A row for each step, as Markdown."""
    rows = [
        (
            r["model"],
            r["method"],
            f"{r['milliseconds']:.0f}",
            *("{:.2f} ({:.2f}-{:.2f})".format(*r[key]) for key in RATIOS),
        )
        for r in records
    ]
    return grid(("model", "step", "ms", "over ERM here", "over SAM in PyTorch"), rows)
