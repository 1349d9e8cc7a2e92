"""Sweeps that are killed, stopped, robbed of their disk: what is left, and goes on."""

import os
import shutil
import signal
import time

import pytest

from experiments.runs.records import read_records
from tests.commands import begun, done, is_gone, wait_until
from tests.experiments.runs.sweeps import (
    RUNS,
    TINY,
    computed,
    lines,
    starts,
    trained_further,
    with_lease,
    workers_of,
)

pytestmark = pytest.mark.slow

as_root = pytest.mark.skipif(
    shutil.which("unshare") is None or os.getuid() != 0, reason="needs root and unshare"
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    said = done("sweep", folder, *TINY, "--jobs", 2)
    assert f"{RUNS} of {RUNS} runs ended: {RUNS} finished" in said
    found = computed(folder)
    assert len(found) == RUNS and len(starts(folder)) == RUNS
    return found


def test_killed_processes_are_replaced_and_all_killed_goes_on(tmp_path, undisturbed):
    """Three processes one by one, then all of them at once, and the same command."""
    killed = 0
    with begun("sweep", tmp_path, *TINY, "--jobs", 2) as node:
        for _ in range(3):
            before = len(starts(tmp_path))
            wait_until(lambda n=before: len(starts(tmp_path)) > n, node)
            wait_until(lambda: trained_further(tmp_path), node)
            (worker, *_) = workers_of(node.pid)
            os.kill(worker, signal.SIGKILL)
            killed += 1
        wait_until(lambda: trained_further(tmp_path), node)
        finished = read_records(tmp_path / "records").keys()
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        wait_until(lambda: is_gone(node.pid))
    begun_before = len(starts(tmp_path))
    done("sweep", tmp_path)
    assert computed(tmp_path) == undisturbed and lines(tmp_path) == RUNS
    again = starts(tmp_path)[begun_before:]
    assert not {run for run, _ in again} & finished
    # Each kill ended at most the runs of as many processes.
    assert RUNS < len(starts(tmp_path)) <= RUNS + killed + 2
    assert any(step > 0 for _, step in starts(tmp_path))
    assert not any((tmp_path / "runs").glob("*/*"))
    settled = starts(tmp_path)
    assert "8 finished" in done("sweep", tmp_path)
    assert starts(tmp_path) == settled


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_stop_loses_nothing(tmp_path, undisturbed, number):
    with begun("sweep", tmp_path, *TINY, "--jobs", 1) as node:
        wait_until(lambda: starts(tmp_path) and trained_further(tmp_path, 0), node)
        node.send_signal(number)
        said = node.communicate(timeout=120)[0]
    assert node.returncode == 128 + number
    assert "stopping; what is trained is being kept" in said and "Traceback" not in said
    stopped = trained_further(tmp_path)
    done("sweep", tmp_path, "--jobs", 1)
    assert computed(tmp_path) == undisturbed and lines(tmp_path) == RUNS
    assert len(starts(tmp_path)) == RUNS + len(stopped)


@as_root
def test_the_run_of_a_dead_host_is_taken_over(tmp_path, undisturbed):
    """The other host has a name and processes of its own; it sees those of this one not."""
    done("sweep", tmp_path, *TINY, "--plan")
    with_lease(tmp_path, 4.0)
    script = 'hostname elsewhere && exec "$@"'
    namespaces = ("--uts", "--pid", "--fork", "--mount-proc", "--kill-child")
    other = ("unshare", *namespaces, "sh", "-c", script, "sh")
    with begun("sweep", tmp_path, "--node", "--jobs", 1, before=other) as node:
        wait_until(lambda: trained_further(tmp_path), node)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
    (held,) = [path.name for path in (tmp_path / "claims").iterdir() if not path.suffix]
    assert "host=elsewhere" in (tmp_path / "claims" / held).read_text()
    done("sweep", tmp_path, "--jobs", 1)
    assert computed(tmp_path) == undisturbed and lines(tmp_path) == RUNS
    assert [step > 0 for run, step in starts(tmp_path) if run == held] == [False, True]
    assert len(starts(tmp_path)) == RUNS + 1


def test_two_nodes_share_a_folder(tmp_path, undisturbed):
    done("sweep", tmp_path, *TINY, "--plan")
    with (
        begun("sweep", tmp_path, "--node", "--jobs", 1) as one,
        begun("sweep", tmp_path, "--node", "--jobs", 1) as other,
    ):
        assert one.wait(300) == other.wait(300) == 0
    assert computed(tmp_path) == undisturbed and lines(tmp_path) == RUNS
    assert len(starts(tmp_path)) == RUNS
    assert len(list((tmp_path / "nodes").iterdir())) == 2


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, for the commands of this test alone."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def on_it(*told, size, status=0, ro=False):
        kept = tmp_path / "kept"
        script = (
            f"mount -t tmpfs -o size={size} tmpfs {disk} && cp -a {kept}/. {disk}/ "
            f"&& {f'mount -o remount,ro {disk} &&' if ro else ''} "
            f'"$@"; s=$?; rm -rf {kept} && cp -a {disk} {kept}; exit $s'
        )
        before = ("unshare", "--mount", "sh", "-c", script, "sh")
        return done(*told, before=before, status=status)

    (tmp_path / "kept").mkdir()
    return disk / "sweep", tmp_path / "kept" / "sweep", on_it


@as_root
def test_a_full_disk_ends_the_node_in_a_line(small_disk, undisturbed):
    folder, kept, on_it = small_disk
    said = on_it("sweep", folder, *TINY, "--jobs", 1, size="400k", status=2)
    assert "No space left on device" in said and "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: ")
    begun_before = set(read_records(kept / "records"))
    on_it("sweep", folder, "--jobs", 1, size="500m")
    assert computed(kept) == undisturbed
    assert not begun_before & {run for run, _ in starts(kept)[1:]} or begun_before


@as_root
def test_a_folder_that_cannot_be_written_is_read_all_the_same(small_disk):
    folder, _, on_it = small_disk
    on_it("sweep", folder, *TINY, "--plan", size="10m")
    said = on_it("sweep", folder, "--jobs", 1, size="10m", ro=True, status=2)
    (line,) = [x for x in said.splitlines() if x.startswith("error: ")]
    assert "Read-only file system" in line and str(folder) in line
    assert "Traceback" not in said
    assert "8 waiting" in on_it("sweep", folder, "--status", size="10m", ro=True)


def test_a_run_that_is_not_finite_is_recorded_and_counted(tmp_path):
    space = tmp_path / "space.json"
    space.write_text('{"learning_rate": [1e30]}')
    folder = tmp_path / "sweep"
    said = done("sweep", folder, *TINY, "--space", space, "--jobs", 2)
    assert "4 finished" in said and "4 diverged" in said
    diverged = [r for r in computed(folder).values() if r["state"] == "diverged"]
    assert {r["draw"] for r in diverged} == {1}
    assert all("is not finite at step" in r["why"] for r in diverged)
    table = done("table", folder, "--selection", "oracle")
    assert "4 diverged" in table


def test_a_poison_run_is_given_up_and_named(tmp_path):
    methods = "erm,tests.experiments.runs.poison:poison"
    told = ("sweep", tmp_path, *TINY, "--methods", methods, "--draws", 1, "--jobs", 1)
    said = done(*told, status=1)
    assert "2 finished" in said and "2 given up" in said
    assert "poison:poison on 0" in said and "poison:poison on 15" in said
    found = computed(tmp_path)
    why = {r["why"] for r in found.values() if r["state"] == "given up"}
    assert all("3 times at step 0 without a checkpoint" in text for text in why)
    assert len(starts(tmp_path)) == 2 + 2 * 3
    assert "poison:poison on 15" in done("sweep", tmp_path, "--status")


def test_torn_and_doubled_lines_are_no_records(tmp_path, undisturbed):
    done("sweep", tmp_path, *TINY, "--jobs", 2)
    file, *_ = sorted((tmp_path / "records").glob("*.jsonl"))
    first, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([first, first, *rest])[:-40])
    lost = RUNS - len(read_records(tmp_path / "records"))
    assert lost == 1
    begun_before = len(starts(tmp_path))
    done("sweep", tmp_path, "--jobs", 1)
    assert computed(tmp_path) == undisturbed
    assert len(starts(tmp_path)) == begun_before + 1


def test_a_record_that_was_not_written_costs_no_training(tmp_path, undisturbed):
    """Killed between the end of a run and its record: the run's folder says it all."""
    with begun("sweep", tmp_path, *TINY, "--jobs", 1) as node:
        wait_until(lambda: len(read_records(tmp_path / "records")) > 0, node)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
    time.sleep(0.1)
    assert len(read_records(tmp_path / "records")) < RUNS
    done("sweep", tmp_path, "--jobs", 2)
    assert computed(tmp_path) == undisturbed
