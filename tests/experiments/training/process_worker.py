"""One of several processes of a run, a module to run with `--help`.

It trains through `training.loop.train`, as the command line does, and can end itself
without a word, as a machine that is switched off.
"""

import argparse
import os
import signal
from pathlib import Path

import jax

from experiments.cli.machines import all_or_none, start, writer_first
from experiments.cli.options import Machines
from experiments.data.prepare import prepare
from experiments.training.loop import train
from tests.experiments.training.test_processes import config


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    parser.add_argument("--local-devices", type=int, default=1)
    parser.add_argument("--parameters", default="replicated")
    parser.add_argument("--prepared", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--die-at", type=int, default=-1)
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", args.local_devices)
    machines = Machines(
        parameters=args.parameters,
        coordinator=args.coordinator,
        processes=args.processes,
        process=args.process,
    )
    layout = start(machines)

    data = writer_first(
        layout,
        lambda: prepare("folder", args.prepared / "tree", args.prepared / "prepared"),
    )

    def die(step, line):
        if step == args.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with all_or_none(layout):
        train(config(data), data, args.out, die, layout)


if __name__ == "__main__":
    main()
