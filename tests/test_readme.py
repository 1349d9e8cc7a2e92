"""Every Python block of the README runs as it stands, and what it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=[str(i) for i in range(len(BLOCKS))])
def test_block_runs(block):
    exec(compile(block, "README.md", "exec"), {})


def test_there_are_blocks():
    assert len(BLOCKS) == 5


def test_linked_files_are_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_first_block_learns_the_sum(capsys):
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    numbers = [float(x) for x in re.findall(r"[-\d.]+", capsys.readouterr().out)]
    assert numbers == pytest.approx([1.0] * 5, abs=0.05)
