"""Small real sweeps, begun as a user begins them, and what they left."""

import re
from pathlib import Path

from experiments.runs.records import read_records
from experiments.runs.sweep import read_sweep
from experiments.training.run_folder import checkpoint_step

TINY = (
    *("--data", "rotated_digits", "--methods", "erm,sam", "--unseen", "0,15"),
    *("--draws", "2", "--trials", "1", "--steps", "60", "--batch-size", "4"),
    *("--checkpoint-every", "20"),
)
RUNS = 8  # of TINY
MEASURED = ("ended", "node", "seconds_per_step", "commit")  # and not computed


def workers_of(pid):
    """The processes that train, of a node."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def computed(folder):
    """The records, without what is measured."""
    return {
        name: {k: v for k, v in record.items() if k not in MEASURED}
        for name, record in read_records(folder / "records").items()
    }


def starts(folder):
    """(run, step) of every start that a node wrote down, in the order of the time."""
    lines = [
        line
        for log in (folder / "nodes").glob("*.log")
        for line in log.read_text().splitlines()
    ]
    found = [re.match(r"(\S+) start (\w+) at step (\d+)", line) for line in sorted(lines)]
    return [(match[2], int(match[3])) for match in found if match]


def lines(folder):
    """Of all records, doubled ones too."""
    return sum(f.read_text().count("\n") for f in (folder / "records").glob("*.jsonl"))


def trained_further(folder, than=0):
    """The runs that are at a checkpoint beyond a step."""
    found = (folder / "runs").glob("*/*")
    return [path.name for path in found if checkpoint_step(path) > than]


def with_lease(folder, seconds):
    """Makes the plan's claims stale so soon."""
    file = folder / "sweep.json"
    text = file.read_text()
    changed = re.sub(r'"lease": [\d.]+', f'"lease": {seconds}', text)
    assert read_sweep(folder).lease != seconds and changed != text
    file.write_text(changed)
