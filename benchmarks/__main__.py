"""`python -m benchmarks step_cost | input_pipeline | population` [--quick] --out FILE."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.input_pipeline import input_pipeline
from benchmarks.population import population
from benchmarks.step_cost import measure, mlp
from experiments.files import write_json
from experiments.run_folder import environment

app = typer.Typer(help="What a step and its images cost.", pretty_exceptions_enable=False)
app.command("input_pipeline")(input_pipeline)
app.command("population")(population)


@app.command("step_cost")
def step_cost(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    quick: Annotated[bool, typer.Option(help="Within a minute on 2 cores.")] = False,
) -> None:
    """Compiled operations, temporary memory and time of every method, as ratios to ERM."""
    cases = [mlp(256)] if quick else [mlp(256), mlp(512), mlp(1024)]
    records = []
    for case in track(cases, description="models"):
        records += measure(case, rounds=15 if quick else 30, steps=10)
    write_json(out, {"records": records, "environment": environment()})
    table = Table("model", "method", "operations", "memory", "time", "quartiles", "ms")
    for r in records:
        table.add_row(
            r["model"],
            r["method"],
            f"{r['flops_ratio']:.3f}",
            f"{r['memory_ratio']:.2f}",
            f"{r['time_ratio']:.2f}",
            f"{r['time_ratio_low']:.2f}-{r['time_ratio_high']:.2f}",
            f"{r['milliseconds']:.2f}",
        )
    Console().print(table)


app()
