"""SLURM with two nodes, n1 and n2, all on the loopback; everything in one folder."""

import contextlib
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.commands import wait_until
from tests.experiments.runs.engines.machine import (
    free_ports,
    kill,
    processes_with,
)

MARK = "NODE_OF_A_TEST"  # an environment variable, which a node's steps inherit
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its first life's credential is too old to be used again.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_yield_sleep=1
KillWait=5
SlurmdTimeout=8
MessageTimeout=3
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=30
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """The cluster, as its administrator meets it.

    Attributes:
      environment: with which `sbatch` and the others find it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def call(self, *command: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def nodes_of(self, name: str) -> dict[str, str]:
        """Of the jobs of that name that run, id -> node."""
        running = ("squeue", "-h", "-r", "-t", "R", f"--name={name}")
        listing = self.call(*running, "--format=%i %N")
        return dict(line.split() for line in listing.splitlines())

    def states(self, name: str) -> dict[str, str]:
        """Of the jobs of that name, id -> state."""
        time.sleep(0.2)  # it is asked in loops
        listing = self.call("squeue", "-h", "-r", f"--name={name}", "--format=%i %T")
        return dict(line.split() for line in listing.splitlines())

    def job(self, job: str) -> dict[str, str]:
        """What SLURM says of one job, its fields."""
        time.sleep(0.2)
        words = self.call("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def start_node(self, name: str) -> None:
        """Its daemon."""
        daemon = ["slurmd", "-N", name, "-f", self.environment["SLURM_CONF"]]
        subprocess.run(daemon, env={**self.environment, MARK: name}, check=True)

    def kill_node(self, name: str) -> None:
        """As if its plug was pulled: the daemon, its steps and all that they started."""
        kill(processes_with(SLURM_CONF=self.environment["SLURM_CONF"], **{MARK: name}))
        kill(self.processes(name))

    def processes(self, name: str) -> list[int]:
        """Of the jobs on a node."""
        conf = self.environment["SLURM_CONF"]
        return processes_with(SLURM_CONF=conf, SLURMD_NODENAME=name)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """The cluster; none of its processes are left afterwards."""
    slurm = Slurm(folder)
    (folder / "state").mkdir()
    text = CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0], ports=free_ports(3), folder=folder
    )
    (folder / "slurm.conf").write_text(text)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    try:
        slurm.call(
            *("munged", "--force", f"--key-file={key}"),
            f"--socket={folder / 'munge.socket'}",
            f"--seed-file={folder / 'munge.seed'}",
            f"--pid-file={folder / 'munged.pid'}",
            f"--log-file={folder / 'munged.log'}",
        )
        slurm.call("slurmctld", "-f", slurm.environment["SLURM_CONF"])
        for name in ("n1", "n2"):
            slurm.start_node(name)
        seen = ("sinfo", "--noheader", "--Node", "--format=%t")
        wait_until(lambda: set(slurm.call(*seen).split()) == {"idle"})
        yield slurm
    finally:
        kill(processes_with(SLURM_CONF=slurm.environment["SLURM_CONF"]))
