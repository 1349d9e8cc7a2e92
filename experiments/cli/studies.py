"""The commands about studies: `study`, `studies` and `report`."""

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from experiments.cli.console import bars, console, line_without_bars
from experiments.cli.options import split
from experiments.data import DATASETS
from experiments.devices import one_device
from experiments.fields import check_known
from experiments.files import locked
from experiments.runs.node import leaving_memory
from experiments.studies import NAMES, find_study

STUDIES = Path("docs/studies")


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command("study")(study_command)
    app.command("studies")(studies_command)
    app.command("report")(report_command)


def study_command(
    name: Annotated[str, typer.Argument(help="Study; `studies` lists them.")],
    seeds: Annotated[int, typer.Option(min=2, help="Seeds 0, 1, ...")] = 10,
    data: Annotated[
        str, typer.Option(help="Data sets, with commas between (default: the study's).")
    ] = "",
    gradients: Annotated[
        int | None,
        typer.Option(min=1, help="Gradients of a batch per run (default: the data set's)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study (default: runs/studies/NAME).")
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Where trained runs are kept, for all studies.")
    ] = Path("runs/studies/runs"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes that train at once.")] = 1,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Only figures and page, from the numbers.")
    ] = False,
) -> None:
    """Answer one question of the papers; run again, it trains only what is missing."""
    from experiments.studies.kit.runs import Setting, Store
    from experiments.studies.kit.study import run_study, write_page

    study = find_study(name)
    folder = out or Path("runs/studies") / name
    if redraw:
        findings = write_page(study, folder)
    else:
        names = tuple(split(data)) or study.data
        for given in names:
            check_known(f"data set of the study {name}", given, study.data)
        command = "python -m experiments " + shlex.join(sys.argv[1:])
        with leaving_memory() if jobs > 1 else contextlib.nullcontext():
            one_device()  # where there is none, that is said before anything is begun
        with locked(folder, wait=False, what="studying"), bars() as progress:
            bar = progress.add_task(name, total=None, note="")

            def watch(done: int, total: int) -> None:
                line_without_bars(f"{name}: {done} of {total} runs")
                progress.update(bar, completed=done, total=total, note="runs")

            setting = Setting(
                store=Store(runs, jobs),
                seeds=seeds,
                data=names,
                gradients={n: gradients or DATASETS[n].gradients for n in names},
                watch=watch,
            )
            findings = run_study(study, setting, folder, command)
    table = Table("claim", "on", "answer", "because", title=study.title)
    for finding in findings:
        table.add_row(finding.claim, finding.where, finding.answer, finding.because)
    console.print(table)
    console.print(f"Page: {folder / 'page.md'}")


def studies_command() -> None:
    """List the studies, one name a line first."""
    width = max(map(len, NAMES))
    for name in NAMES:
        print(f"{name:<{width}}  {find_study(name).title}")


def report_command(
    studies: Annotated[Path, typer.Option(help="Folder of finished studies.")] = STUDIES,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report (default: the same).")
    ] = None,
) -> None:
    """Gather the finished studies into one page, report.html and report.md."""
    from experiments.studies.kit.gather import gather

    folder = out or studies
    findings = gather(studies, {name: find_study(name) for name in NAMES}, folder)
    console.print(
        f"{len(findings)} answers: {folder / 'report.html'} and {folder / 'report.md'}"
    )
