import importlib.util
import sys

import pytest

from experiments.runs.engines import ray
from tests.commands import begun, done, wait_until
from tests.experiments.runs.engines import ray_cluster
from tests.experiments.runs.engines.machine import kill, processes_with, that_train
from tests.experiments.runs.engines.sweep import LONGER, RUNS, both_train
from tests.experiments.runs.sweeps import computed, lines, starts, trained_further

HEAD, SECOND, THIRD = ray_cluster.HEAD, "127.0.0.3", "127.0.0.4"
ON_RAY = ("--on", "ray", "--nodes", 2)

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")


def test_without_ray_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install .*\[.*ray\]"):
        ray.start(1, ["true"], 1)


@with_ray
@pytest.mark.slow
def test_nodes_and_processes_die_and_a_node_joins(tmp_path, undisturbed):
    with ray_cluster.running(SECOND) as cluster:
        told = ("sweep", tmp_path, *LONGER, *ON_RAY)
        with begun(*told, **cluster.environment) as driver:
            wait_until(lambda: both_train(tmp_path), driver)
            finished = computed(tmp_path).keys()
            kill(that_train(cluster.processes(HEAD)))
            cluster.kill_node(SECOND)
            begun_before = len(starts(tmp_path))
            cluster.start_node(THIRD)
            wait_until(lambda: that_train(cluster.processes(THIRD)), driver)
            said = driver.communicate(timeout=200)[0]
        assert driver.returncode == 0, said
    assert f"{RUNS} of {RUNS} runs ended: {RUNS} finished" in said
    assert computed(tmp_path) == undisturbed and lines(tmp_path) == RUNS
    assert not {run for run, _ in starts(tmp_path)[begun_before:]} & finished
    assert RUNS < len(starts(tmp_path)) <= RUNS + 2
    assert any(step > 0 for _, step in starts(tmp_path))


@with_ray
@pytest.mark.slow
def test_without_a_cluster_it_makes_one_and_goes_on_after_the_drivers_death(
    tmp_path, undisturbed
):
    told = ("sweep", tmp_path / "sweep", *LONGER, "--on", "ray")
    with ray_cluster.folder() as folder:
        environment = {"HOME": str(folder), "RAY_TMPDIR": str(folder)}
        with begun(*told, **environment) as driver:
            wait_until(lambda: trained_further(tmp_path / "sweep"), driver)
            driver.kill()
            driver.wait()
            wait_until(lambda: not that_train(processes_with(RAY_TMPDIR=folder)))
            finished = computed(tmp_path / "sweep").keys()
            begun_before = len(starts(tmp_path / "sweep"))
        said = done(*told, **environment)
    assert f"{RUNS} of {RUNS} runs ended: {RUNS} finished" in said
    assert computed(tmp_path / "sweep") == undisturbed
    assert lines(tmp_path / "sweep") == RUNS
    assert len(starts(tmp_path / "sweep")) <= RUNS + 1
    assert not {run for run, _ in starts(tmp_path / "sweep")[begun_before:]} & finished
