"""Names that look like rich's markup are printed as they are."""

from pathlib import Path

from rich.table import Table

import experiments
from experiments.cli.console import bars, console

NAME = "[red] [/x] :smile:"


def test_lines_and_tables(capsys):
    table = Table(NAME, title=f"of {NAME}")
    table.add_row(f"in {NAME}")
    console.print(NAME)
    console.print(table)
    said = capsys.readouterr().out
    assert said.startswith(NAME + "\n")
    assert f"of {NAME}" in said and f"in {NAME}" in said


def test_bars():
    progress = bars()
    progress.add_task(NAME, note=f"at {NAME}")
    (task,) = progress.tasks
    told = [str(column.render(task)) for column in progress.columns]
    assert NAME in told and f"at {NAME}" in told


def test_all_that_is_printed_goes_through_them():
    root = Path(experiments.__file__).parent
    own = {file.name for file in root.rglob("*.py") if "Console(" in file.read_text()}
    assert own == {"console.py"}
