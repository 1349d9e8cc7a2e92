"""The sweep that is trained on clusters, and what is asked of it."""

import re

from tests.experiments.runs.sweeps import TINY, trained_further

# Few runs, and each of seconds: what is done to them finds them at work.
LONGER = (*TINY, "--draws", "1", "--steps", "1000", "--checkpoint-every", "50")
RUNS = 4


def both_train(folder):
    """Whether two runs are past a checkpoint, and far from their end."""
    return len(trained_further(folder)) == 2


def stops(folder):
    """How often a run was stopped and kept, as the nodes wrote down."""
    logs = [log.read_text() for log in (folder / "nodes").iterdir()]
    return sum(len(re.findall(r"^\S+ stop ", text, re.MULTILINE)) for text in logs)
