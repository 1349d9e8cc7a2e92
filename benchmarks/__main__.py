"""`python -m benchmarks NAME [--quick] --out FILE.json`; `--help` lists the names."""

import typer

from benchmarks.compiling import compiling
from benchmarks.growth import growth
from benchmarks.input_pipeline import input_pipeline
from benchmarks.memory import memory
from benchmarks.population import population
from benchmarks.precision import precision
from benchmarks.pytorch import pytorch
from benchmarks.reading import reading
from benchmarks.step_cost import step_cost
from benchmarks.sweep_scale import sweep_scale
from benchmarks.tpu_compile import tpu_compile
from benchmarks.trace import trace
from benchmarks.tuning import tuning

app = typer.Typer(help="What a step and its images cost.", pretty_exceptions_enable=False)
app.command("step_cost")(step_cost)
app.command("compiling")(compiling)
app.command("growth")(growth)
app.command("trace")(trace)
app.command("tpu_compile")(tpu_compile)
app.command("pytorch")(pytorch)
app.command("memory")(memory)
app.command("precision")(precision)
app.command("population")(population)
app.command("input_pipeline")(input_pipeline)
app.command("reading")(reading)
app.command("sweep_scale")(sweep_scale)
app.command("tuning")(tuning)

app()
