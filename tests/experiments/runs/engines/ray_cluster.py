"""Ray with nodes that are addresses of the loopback."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.experiments.runs.engines.machine import free_ports, kill, processes_with

MARK = "NODE_OF_A_TEST"  # an environment variable, which all that a node starts inherits
# Not 127.0.0.1, which Ray replaces by the machine's own address.
HEAD = "127.0.0.2"


class Ray:
    """The cluster, as its administrator meets it; every node has one CPU.

    Attributes:
      addresses: of the nodes that were started.
      environment: with which `ray.init` finds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.addresses: list[str] = []
        self.address = f"{HEAD}:{free_ports(1)[0]}"
        self.environment = {
            "HOME": str(folder),  # where Ray would keep a token
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ADDRESS": self.address,
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start_node(self, address: str) -> None:
        """Starts a node; the first is the head."""
        self.addresses.append(address)
        where = [f"--address={self.address}"]
        if address == HEAD:
            port = self.address.partition(":")[2]
            where = ["--head", f"--port={port}", "--include-dashboard=false"]
            where += [f"--temp-dir={self.folder}"]
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", *where),
                *(f"--node-ip-address={address}", "--num-cpus=1", "--num-gpus=0"),
                *("--min-worker-port=0", "--max-worker-port=0"),
                "--object-store-memory=80000000",
            ],
            env={**os.environ, **self.environment, MARK: self._mark(address)},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def kill_node(self, address: str) -> None:
        """As if its plug was pulled: the daemons and all that they started."""
        kill(self.processes(address))

    def processes(self, address: str) -> list[int]:
        """Ray's on a node, and those of its tasks."""
        return processes_with(**{MARK: self._mark(address)})

    def _mark(self, address: str) -> str:
        return f"{self.address}-{address}"


@contextlib.contextmanager
def running(*addresses: str) -> Iterator[Ray]:
    """The cluster: the head, and nodes at these addresses."""
    with folder() as place:
        ray = Ray(place)
        try:
            for address in (HEAD, *addresses):
                ray.start_node(address)
            yield ray
        finally:
            for address in ray.addresses:
                ray.kill_node(address)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A home for Ray; none of the processes that know it are left afterwards."""
    # Not pytest's folder: Ray's sockets lie in it, whose names may have 107 characters.
    place = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        yield place
    finally:
        kill(processes_with(HOME=place))
        shutil.rmtree(place, ignore_errors=True)
