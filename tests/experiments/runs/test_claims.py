import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.runs.claims import ClaimLostError, Claims
from tests.commands import wait_until

ROOT = Path(__file__).parents[3]
RACE = """
import pathlib, sys
from experiments.runs.claims import Claims
claims = Claims(pathlib.Path(sys.argv[1]))
sys.stdin.readline()  # all begin together
print(*(i for i in range(300) if claims.take(f"r{i}")), flush=True)
sys.stdin.readline()  # and hold what they have until all have tried
"""


def test_starts_with_progress_between_them_do_not_count(tmp_path):
    claims = Claims(tmp_path)
    assert [claims.begin("r0", step) for step in (0, 0, 20, 20, 20, 40)] == [
        1,
        2,
        1,
        2,
        3,
        1,
    ]
    claims.undo("r0")
    assert claims.begin("r0", 40) == 1
    claims.forget("r0")
    assert claims.begin("r0", 40) == 1 and claims.held() == []


def test_of_many_that_race_for_a_claim_one_has_it(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racing = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(8)]
    for process in racing:
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [process.stdout.readline().split() for process in racing]
    for process in racing:
        process.communicate("end\n", timeout=60)
    every = [run for own in taken for run in own]
    assert len(every) == len(set(every)) == 300


def test_a_claim_is_taken_by_one_and_free_when_it_is_let_go(tmp_path):
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take("r0") and not other.take("r0") and one.held() == ["r0"]
    one.release("r0")
    assert other.take("r0")


@pytest.mark.parametrize("gone", [True, False])
def test_who_lost_a_claim_is_told(tmp_path, gone):
    claims, other = Claims(tmp_path), Claims(tmp_path)
    assert claims.take("r0")
    claims.check("r0")
    (tmp_path / "r0").unlink()
    if not gone:
        assert other.take("r0")
    with pytest.raises(ClaimLostError, match="taken over r0"):
        claims.check("r0")
    claims.release("r0")
    assert other.held() == ([] if gone else ["r0"])  # another's claim is left alone


@pytest.mark.parametrize("written", ["", "filelock", "neither a name nor a number\n"])
def test_a_claim_whose_process_was_killed_while_it_wrote_it_is_taken_over(
    tmp_path, written
):
    claims = Claims(tmp_path, lease=0.5)
    (tmp_path / "r0").write_text(written)
    begun = time.monotonic()
    assert not claims.take("r0")  # it may just be writing
    wait_until(lambda: claims.take("r0"))
    assert time.monotonic() - begun >= claims.lease
    claims.check("r0")
