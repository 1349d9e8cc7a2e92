"""Python blocks of the README and the pages run as they stand; links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": 5,
    "docs/scaling.md": 3,
    "docs/precision.md": 3,
    "docs/benchmarks.md": 0,
}


def blocks_of(page):
    text = (ROOT / page).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


BLOCKS = [(page, i) for page, count in PAGES.items() for i in range(count)]


@pytest.mark.parametrize(("page", "i"), BLOCKS)
def test_block_runs(page, i):
    exec(compile(blocks_of(page)[i], page, "exec"), {})


@pytest.mark.parametrize(("page", "count"), PAGES.items())
def test_there_are_blocks(page, count):
    assert len(blocks_of(page)) == count


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_are_there(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_first_block_learns_the_sum(capsys):
    exec(compile(blocks_of("README.md")[0], "README.md", "exec"), {})
    numbers = [float(x) for x in re.findall(r"[-\d.]+", capsys.readouterr().out)]
    assert numbers == pytest.approx([1.0] * 5, abs=0.05)
