"""`python -m benchmarks step_cost | growth | input_pipeline [--quick] --out FILE.json`."""

import typer

from benchmarks.growth import growth
from benchmarks.input_pipeline import input_pipeline
from benchmarks.step_cost import step_cost

app = typer.Typer(help="What a step and its images cost.", pretty_exceptions_enable=False)
app.command("step_cost")(step_cost)
app.command("growth")(growth)
app.command("input_pipeline")(input_pipeline)

app()
