import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from experiments.runs.engines import slurm
from experiments.training.run_folder import checkpoint_step
from tests.commands import done, wait_until
from tests.experiments.runs.engines import slurm_cluster
from tests.experiments.runs.engines.machine import command_of, kill, that_train
from tests.experiments.runs.engines.sweep import LONGER, RUNS, both_train, stops
from tests.experiments.runs.sweeps import computed, lines, starts, trained_further

with_slurm = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("slurmctld") is None or os.geteuid() != 0,
        reason="needs slurmctld, slurmd and munged, and to be root",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def conf(cluster, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])


def test_numbers_are_submitits_and_the_rest_is_sbatchs():
    found = slurm.executor_parameters(
        {"time": "720", "gpus-per-node": "4", "partition": "gpu", "exclusive": ""}
    )
    rest = {"gpus_per_node": "4", "partition": "gpu", "exclusive": True, "requeue": True}
    assert found == {**slurm.NUMBERS, "time": 720, "additional_parameters": rest}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"time": "12:00:00"}, "--slurm time=12:00:00: .* whole number"),
        ({"time": "0"}, "--slurm time=0: .* whole number"),
        ({"signal_delay_s": ""}, "--slurm signal_delay_s=: .* whole number"),
        ({"job-name": "mine"}, "--slurm job-name: .* leave it out"),
        ({"nodes": "2"}, "--slurm nodes: .* leave it out"),
    ],
)
def test_an_option_that_cannot_be_is_named(options, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        slurm.start(tmp_path, 1, ["true"], options)


def test_without_slurm_an_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no sbatch in PATH"):
        slurm.start(tmp_path, 1, ["true"], {})


def test_folders_have_names_of_their_own(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    assert slurm.job_name(tmp_path / "a") == slurm.job_name(tmp_path / "b/../a")
    assert slurm.job_name(tmp_path / "a") == slurm.job_name(tmp_path / "link")
    assert slurm.job_name(tmp_path / "a") != slurm.job_name(tmp_path / "b")


SAVES = """
import pathlib, signal, sys, time
def stop(number, frame):
    time.sleep(0.5)
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(140)
signal.signal(signal.SIGUSR2, stop)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_node_that_is_told_of_its_end_waits_until_its_command_has_saved(tmp_path):
    """The signal comes while the node waits, in the same thread, as under submitit."""
    saved = tmp_path / "saved"
    node = slurm.Node([sys.executable, "-c", SAVES, str(saved)])

    class Told(Exception):
        pass

    def handler(number, frame):
        again = node.checkpoint()
        assert saved.read_text() == "saved"
        assert again.function.command == node.command
        raise Told

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGUSR2))
        timer.start()
        with pytest.raises(Told):
            node()
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_node_whose_command_fails_fails():
    with pytest.raises(subprocess.CalledProcessError):
        slurm.Node(["false"])()
    slurm.Node(["true"])()


@pytest.mark.parametrize("status", [143, 140])
def test_a_node_that_slurm_stopped_itself_waits_for_the_end_of_its_job(status, monkeypatch):
    """A job that ended before would not be requeued."""
    waited = []
    monkeypatch.setattr(slurm.time, "sleep", waited.append)
    with pytest.raises(subprocess.CalledProcessError):
        slurm.Node(["sh", "-c", f"exit {status}"])()
    assert waited == [slurm.NUMBERS["signal_delay_s"]]


SUBMIT = ("--on", "slurm", "--nodes", 2, "--jobs", 1, "--slurm", "partition=low,time=30")


class TestACluster:
    pytestmark = with_slurm

    def test_asked_again_it_tops_up(self, cluster, conf, tmp_path):
        def start(nodes):
            return slurm.start(tmp_path, nodes, ["sleep", "300"], {"partition": "low"})

        def sleeping(node):
            return [p for p in cluster.processes(node) if command_of(p)[:1] == ["sleep"]]

        name = slurm.job_name(tmp_path)
        try:
            assert start(2) == (0, 2)
            assert start(2) == (2, 0)
            assert start(1) == (2, 0)
            wait_until(lambda: [*cluster.states(name).values()] == ["RUNNING"] * 2)
            assert start(3) == (2, 1)
            assert slurm.count_jobs(slurm.job_name(tmp_path / "another")) == 0
            # One dies by itself: it has failed, and is replaced when asked for.
            wait_until(lambda: sleeping("n1"))
            kill(sleeping("n1"))
            wait_until(lambda: slurm.count_jobs(name) == 2)
            assert start(3) == (2, 1)
        finally:
            cluster.call("scancel", f"--name={name}", "--signal=KILL", "--full")
            cluster.call("scancel", f"--name={name}")
            wait_until(lambda: not cluster.states(name))

    def test_sbatch_says_what_it_does_not_take(self, conf, tmp_path):
        with pytest.raises(ValueError, match=r"sbatch refused(.|\n)*no-such-option"):
            slurm.start(tmp_path, 1, ["true"], {"no_such_option": "3"})
        with pytest.raises(ValueError, match=r"sbatch refused(.|\n)*partition"):
            slurm.start(tmp_path, 1, ["true"], {"partition": "nowhere"})

    def test_preempted_nodes_are_requeued_and_lose_nothing(
        self, cluster, conf, tmp_path, undisturbed
    ):
        submit = ("sweep", tmp_path, *SUBMIT)
        assert "0 nodes were there, 2 are submitted" in done(*submit[:2], *LONGER, *SUBMIT)
        name = slurm.job_name(tmp_path)
        jobs = set(cluster.states(name))
        wait_until(lambda: both_train(tmp_path))
        cluster.call("sbatch", "-phigh", "-N2", "-o/dev/null", "--wrap=sleep 1")
        wait_until(lambda: [*cluster.states(name).values()] == ["PENDING"] * 2)
        kept = {
            (run, checkpoint_step(tmp_path / "runs" / run[:2] / run))
            for run in trained_further(tmp_path)
        }
        assert "2 nodes were there, 0 are submitted" in done(*submit)
        # Later one of them is told that its time is over.
        begun_before = len(starts(tmp_path))
        wait_until(lambda: len(starts(tmp_path)) >= begun_before + 2)
        told, *_ = cluster.nodes_of(name)
        cluster.call("scancel", "--signal=USR2", told)
        wait_until(lambda: not cluster.states(name))
        assert computed(tmp_path) == undisturbed and lines(tmp_path) == RUNS
        assert kept <= set(starts(tmp_path)[begun_before:])
        assert len(starts(tmp_path)) == RUNS + stops(tmp_path)
        for job in jobs:
            assert cluster.job(job)["Restarts"] == ("2" if job == told else "1")
            assert cluster.job(job)["JobState"] == "COMPLETED"

    def test_a_node_that_dies_is_requeued_and_a_worker_replaced(
        self, cluster, conf, tmp_path, undisturbed
    ):
        done("sweep", tmp_path, *LONGER, *SUBMIT)
        name = slurm.job_name(tmp_path)
        wait_until(lambda: both_train(tmp_path))
        finished = computed(tmp_path).keys()
        (job,) = (job for job, node in cluster.nodes_of(name).items() if node == "n1")
        kill(that_train(cluster.processes("n2")))
        cluster.kill_node("n1")
        begun_before = len(starts(tmp_path))
        try:
            wait_until(lambda: cluster.job(job)["Restarts"] == "1")
        finally:
            cluster.start_node("n1")
        wait_until(lambda: not cluster.states(name))
        assert computed(tmp_path) == undisturbed and lines(tmp_path) == RUNS
        assert not {run for run, _ in starts(tmp_path)[begun_before:]} & finished
        assert RUNS < len(starts(tmp_path)) <= RUNS + 2
        assert cluster.job(job)["JobState"] == "COMPLETED"
