"""What the clusters of the tests ask of this machine."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path


def processes_with(**environment: object) -> list[int]:
    """The ids of the processes that were started with these variables, inherited or not."""
    wanted = {f"{name}={value}".encode() for name, value in environment.items()}
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
    return found


def kill(processes: Iterable[int]) -> None:
    """Kills them at once; some may have ended."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def command_of(process: int) -> list[str]:
    """A process's command line, empty if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def that_train(processes: Iterable[int]) -> list[int]:
    """Those that train, of a node's processes."""
    return [p for p in processes if any("spawn_main" in part for part in command_of(p))]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
