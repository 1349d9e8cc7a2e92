"""How many cores this process may use: by its affinity, its control groups and SLURM."""

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """The cores that this process may use, at least 1.

    A container may see all cores of its machine and have the time of two of them.
    """
    bound = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        bound = len(os.sched_getaffinity(0))
    allocated = int(os.environ.get("SLURM_CPUS_ON_NODE", bound))
    return max(1, min(bound, allocated, *_quotas()))


def _quotas() -> list[int]:
    """Whole cores' time that this process's control group and those around it may take."""
    if not OWN_GROUP.exists():
        return []
    named = [line[3:] for line in OWN_GROUP.read_text().splitlines() if line[:3] == "0::"]
    own = GROUPS.joinpath(*(name.lstrip("/") for name in named))
    files = [group / "cpu.max" for group in (own, *own.parents)]
    limits = [file.read_text().split() for file in files if file.exists()]
    return [int(time) // int(period) for time, period in limits if time != "max"]
