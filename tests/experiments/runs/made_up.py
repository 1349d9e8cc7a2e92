"""Plans whose runs train nothing: they count, with checkpoints, and may fail."""

import contextlib
import functools
import os
import signal
import time

from experiments.runs.plan import Outcome, Plan
from experiments.runs.records import DIVERGED, FINISHED

STEPS = 4


def plan(folder, count=6, **trainings):
    """Runs r0, r1, ...; a training by name is another than `count_up`."""
    runs = {f"r{i}": trainings.get(f"r{i}", count_up) for i in range(count)}
    return Plan(
        folder=folder,
        runs=runs,
        open=functools.partial(opened, folder),
        place=functools.partial(place, folder),
        describe=described,
        lease=2.0,
    )


def opened(folder):
    return functools.partial(trained, folder)


def place(folder, name, run):
    return folder / "runs" / name


def described(run):
    return {"training": run.__name__ if hasattr(run, "__name__") else "partial"}


def trained(root, run, folder, stop):
    return run(root, folder, stop)


def step_of(folder):
    done = (int(path.name) for path in (folder / "checkpoints").glob("*"))
    return max(done, default=0)


def count_up(root, folder, stop, pause=0.01):
    """Takes steps from the last checkpoint on, each a checkpoint, each written down."""
    for step in range(step_of(folder), STEPS):
        if stop():
            return None
        with (root / "steps").open("a") as file:
            file.write(f"{folder.name} {step}\n")
        time.sleep(pause)
        (folder / "checkpoints" / str(step + 1)).mkdir(parents=True)
    return Outcome(FINISHED, {"steps": STEPS})


slowly = functools.partial(count_up, pause=0.5)


def diverge(root, folder, stop):
    return Outcome(DIVERGED, {"why": "the loss is not finite"})


def fail(root, folder, stop):
    raise RuntimeError("out of memory")


def die(root, folder, stop):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(root, folder, stop):
    """In the middle, and not again."""
    with contextlib.suppress(FileExistsError):
        (root / f"{folder.name}.died").touch(exist_ok=False)
        (folder / "checkpoints" / "2").mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return count_up(root, folder, stop)


def steps_taken(root):
    """Of all runs, as often as they were taken."""
    return (root / "steps").read_text().split("\n")[:-1]
