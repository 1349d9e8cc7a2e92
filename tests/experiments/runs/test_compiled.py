import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.runs import compiled
from experiments.runs.compiled import machine_kind

ROOT = Path(__file__).parents[3]
CODE = """
import sys, pathlib
from experiments.runs.compiled import keep_compiled
kept = keep_compiled(pathlib.Path(sys.argv[1]))
import jax, jax.numpy as jnp
def cubed(x):
    return jnp.sum(x @ x @ x)
print(float(jax.jit(cubed)(jnp.arange(9.0).reshape(3, 3))))
"""


def test_the_folder_is_of_the_device_and_the_cpu(monkeypatch):
    kind = machine_kind()
    assert kind.startswith("cpu-") and kind == machine_kind()
    assert not set(kind) & set("/ ")
    other = "model name\t: AMD EPYC\nflags\t\t: fpu avx2\n"
    monkeypatch.setattr(Path, "read_text", lambda path: other)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert compiled.machine_kind() != kind


@pytest.mark.slow
def test_a_damaged_entry_is_deleted_and_written_anew(tmp_path):
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}

    def compute(folder=tmp_path):
        command = [sys.executable, "-c", CODE, str(folder)]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )

    first = compute()
    (entry,) = tmp_path.glob(f"{machine_kind()}/jit_cubed-*-cache")
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
    again = compute()
    assert "Error reading persistent compilation cache entry" in again.stderr
    assert len(entry.read_bytes()) > len(whole) // 2
    last = compute()
    assert "Error reading" not in last.stderr
    assert first.stdout == again.stdout == last.stdout
    # A folder that was moved, or has another name on another machine, holds the same.
    names = {path.name for path in tmp_path.glob("*/*-cache")}
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / machine_kind(), moved)
    compute(moved)
    assert {path.name for path in moved.glob("*/*-cache")} == names
