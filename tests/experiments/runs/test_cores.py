"""What a process may use is the least of what binds it."""

import os

import pytest

from experiments.runs import cores
from experiments.runs.cores import usable_cores


@pytest.mark.parametrize(
    ("outer", "inner", "slurm", "found"),
    [
        ("max 100000", "max 100000", None, 8),
        ("max 100000", "250000 100000", None, 2),  # whole cores
        ("300000 100000", "max 100000", None, 3),  # a group around it is bound
        ("300000 100000", "50000 100000", None, 1),  # less than one
        ("600000 100000", "max 100000", "4", 4),
    ],
)
def test_the_least_of_affinity_quotas_and_allocation(
    tmp_path, monkeypatch, outer, inner, slurm, found
):
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "cpu.max").write_text(outer + "\n")
    (tmp_path / "outer" / "inner" / "cpu.max").write_text(inner + "\n")
    (tmp_path / "own").write_text("1:cpuset:/elsewhere\n0::/outer/inner\n")
    monkeypatch.setattr(cores, "GROUPS", tmp_path)
    monkeypatch.setattr(cores, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    if slurm:
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", slurm)
    assert usable_cores() == found


def test_systems_without_affinity_or_control_groups_count_their_cores(
    tmp_path, monkeypatch
):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(cores, "OWN_GROUP", tmp_path / "none")
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    assert usable_cores() == 6
