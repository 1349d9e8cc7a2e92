"""The commands about data: `prepare`, `export`, `datasets`, and opening what is named."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.console import bars, console, line_without_bars, tell
from experiments.cli.options import TrainedOn, with_options
from experiments.config.protocols import find_protocol
from experiments.config.run import RunConfig
from experiments.data import DATASETS, DomainData, load
from experiments.data.benchmarks import BENCHMARKS
from experiments.data.export import export
from experiments.data.opening import Where, open_data
from experiments.data.prepare import Prepared
from experiments.fields import check_known
from experiments.methods import find_method


def open_for(
    asked: TrainedOn, overrides: Mapping[str, Any], where: Where
) -> DomainData | Prepared:
    """The data set that is asked for, prepared if it has to be.

    Args:
      asked: names it, and the protocol.
      overrides: of the protocol's fields; the image size is for data held in memory.
      where: its images are.

    Returns:
      The data set, in memory or on the disk.

    Raises:
      ValueError: there is no such data set, or its images are missing.
    """
    _, found = find_protocol(asked.data, asked.protocol, overrides)
    size = overrides.get("image_size") or found.preset.image_size
    return _open(asked.data, size, where)


def protocol_line(config: RunConfig) -> str:
    """How a run is trained, in a line."""
    preset = config.preset
    return (
        f"Protocol {config.protocol}: {preset.model}, weights {preset.weights}, "
        f"tuning {preset.tuning}, BatchNorm {preset.batch_norm}, {preset.dtype}."
    )


def warn_of_perturbations(configs: Iterable[RunConfig]) -> None:
    """Says, once for a method, what may leave it without a perturbation.

    Half precision may round it away, and an ascent may begin after the last step.
    """
    for name, config in {config.method_name: config for config in configs}.items():
        rho, preset = config.hyperparameters.rho, config.preset
        reads = find_method(config.method).reads
        if "start" in reads and config.hyperparameters.start >= preset.steps:
            tell(
                "warning",
                f"{name} ascends from step {config.hyperparameters.start} on, and a run "
                f"has {preset.steps}: it is ERM. Give an earlier --start.",
                "yellow",
            )
        moves = "rho" in reads and rho > 0
        rounded = preset.dtype != "float32" and preset.perturbed_dtype == "same"
        if moves and rounded and rho < 1e-3:  # the library's own bound, see dj.perturbation
            tell(
                "warning",
                f"{name} at rho {rho:g} in {preset.dtype}: w + eps may round to w, and "
                "nothing is left of the perturbation; realized_cosine in a run's "
                "metrics.jsonl tells. --perturbed-dtype float32 keeps it.",
                "yellow",
            )


def _open(data: str, image_size: int, where: Where) -> DomainData | Prepared:
    with preparing() as progress:
        opened = open_data(data, image_size, where, progress)
    if where.data_dir is not None and isinstance(opened, Prepared):
        for warning in opened.warnings:
            tell("warning", warning, "yellow")
    return opened


@contextlib.contextmanager
def preparing() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per stage of a preparation, or a line at its end; none for what was done."""
    with bars() as progress:
        tasks: dict[str, Any] = {}
        ended: set[str] = set()

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks and done == total:
                return
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, note="")
            progress.update(tasks[stage], completed=done, total=total)
            if done == total and stage not in ended:
                ended.add(stage)
                line_without_bars(f"{stage}: {total}")

        yield show


def add_to(app: typer.Typer) -> None:
    """Adds the commands about data to the command line."""
    app.command("prepare")(prepare_command)
    app.command("export")(export_command)
    app.command("datasets")(datasets_command)


@with_options(where=Where)
def prepare_command(
    where: Where,
    data: Annotated[str, typer.Option(help="A benchmark's name, or folder.")] = "folder",
) -> None:
    """Check a folder of images and prepare it for training; go on where it was stopped."""
    if data in DATASETS:
        raise ValueError(f"{data} comes with the package and needs no preparation")
    opened = _open(data, 0, where)
    assert isinstance(opened, Prepared)
    for domain, count in opened.counts.items():
        console.print(f"{domain}: {count} images")
    console.print(f"{len(opened.classes)} classes. Prepared in {opened.folder}")


def export_command(
    data: Annotated[str, typer.Option(help="A data set held in memory.")] = "emoji_styles",
    out: Annotated[Path, typer.Option(help="Root of the tree.")] = Path("emoji_styles"),
    image_size: Annotated[
        int | None, typer.Option(help="Pixels along a side (default: the largest).")
    ] = None,
) -> None:
    """Write a data set of this package as a tree OUT/DOMAIN/CLASS/image.png."""
    check_known("data set", data, tuple(DATASETS))
    images = load(data, image_size=image_size or DATASETS[data].largest_size)
    total = sum(map(len, images.images))
    written = export(images, out)
    console.print(f"{total} images in {out}, {written} of them written now.")


def datasets_command() -> None:
    """List the data sets, one name a line first."""
    names = (*DATASETS, *BENCHMARKS, "folder")
    width = max(map(len, names))
    for name in DATASETS:
        data = load(name)
        print(f"{name:<{width}}  {data.description} Domains: {', '.join(data.domains)}.")
    for name, benchmark in BENCHMARKS.items():
        images = sum(benchmark.counts.values())
        print(
            f"{name:<{width}}  {images} images, {len(benchmark.classes)} classes; needs "
            f"--data-dir. Domains: {', '.join(benchmark.domains)}."
        )
    print(f"{'folder':<{width}}  any tree DIR/DOMAIN/CLASS/image; needs --data-dir DIR.")
