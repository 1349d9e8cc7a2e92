"""Nodes as tasks of Ray: a task is started again, elsewhere, when its machine dies."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any


def start(
    nodes: int, command: list[str], jobs: int, told: Callable[[str], None] = print
) -> int:
    """Keeps nodes running until each has ended by itself.

    This process may die, and Ray's with it: what they did is in the sweep's folder.

    Args:
      nodes: how many; those that find no room wait until a machine joins.
      command: of a node. It ends by itself when nothing is left.
      jobs: runs that a node trains at a time, each with a CPU, and a GPU if there are.
      told: is called with a line for each node that ended.

    Returns:
      How many ended with another status than 0.

    Raises:
      ValueError: Ray is not installed.
    """
    ray = _ray()
    # To the cluster of RAY_ADDRESS, or that runs on this machine, or to a new one on it.
    ray.init(log_to_driver=False)
    gpus = jobs if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(
        num_cpus=jobs, num_gpus=gpus, max_retries=-1, scheduling_strategy="SPREAD"
    )(_node())
    waiting = [task.remote(command, str(Path.cwd())) for _ in range(nodes)]
    failed = 0
    while waiting:
        (ended,), waiting = ray.wait(waiting)
        status = ray.get(ended)
        failed += status != 0
        how = "" if status == 0 else f" with status {status}"
        told(f"A node ended{how}; {len(waiting)} of {nodes} are left.")
    return failed


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError(
            'Ray is not installed here: pip install -e ".[experiments,ray]"'
        ) from None
    return ray


def _node() -> Callable[[list[str], str], int]:
    # Inside a function, so that Ray sends its code, and machines need not import it.
    def node(command: list[str], folder: str) -> int:
        return subprocess.run(command, cwd=folder).returncode

    return node
