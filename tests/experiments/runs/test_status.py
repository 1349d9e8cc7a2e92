import datetime
import os

import pytest

from benchmarks.sweep_scale import FILES, make_up, opened_under
from experiments.methods import METHODS
from experiments.runs.claims import Claims
from experiments.runs.records import DIVERGED, FINISHED, GIVEN_UP, Records, read_records
from experiments.runs.status import LAST, Status, _rate, read_status
from experiments.runs.sweep import read_sweep
from experiments.runs.sweep_training import sweep_plan
from tests.experiments.runs import made_up


def test_every_run_is_counted_once(tmp_path):
    plan = made_up.plan(tmp_path, count=6)
    assert read_status(plan) == Status(6, 0, 0, (), 0, None)
    records, claims = Records(plan.records), Claims(plan.claims, plan.lease)
    for name, state in (("r0", FINISHED), ("r1", DIVERGED), ("r2", GIVEN_UP)):
        records.append(name, state)
    records.append("of another plan", FINISHED)
    assert claims.take("r3")
    claims.begin("r3", 0)
    status = read_status(plan)
    assert status.counts() == ("1 finished, 1 running, 2 waiting, 1 diverged, 1 given up")
    assert status.given_up == ("r2",) and status.ended == 3
    claims.release("r3")
    assert read_status(plan).running == 0


def test_the_dead_run_nothing(tmp_path):
    plan = made_up.plan(tmp_path)
    plan.claims.mkdir()
    here, elsewhere = f"host={os.uname().nodename}\npid=4194305\n", "host=other\npid=1\n"
    (plan.claims / "r0").write_text(here)
    (plan.claims / "r1").write_text(elsewhere)
    assert read_status(plan).running == 1
    os.utime(plan.claims / "r1", (0, 0))
    assert read_status(plan).running == 0


def test_the_rate_is_of_the_last_runs():
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    # One an hour at first, later one a minute.
    slow = [start + datetime.timedelta(hours=i) for i in range(50)]
    fast = [slow[-1] + datetime.timedelta(minutes=i + 1) for i in range(LAST)]
    ended = [time.isoformat() for time in (*slow, *fast)]
    assert _rate(ended, running=False) == pytest.approx(60)
    assert _rate(ended[:10], running=False) == pytest.approx(1)
    assert _rate(ended[:1], running=False) is None
    assert _rate(ended, running=True) < 1  # nothing has ended since 2024


def test_hours_left_are_of_what_has_not_ended():
    status = Status(100, 30, 5, ("a",), 2, per_hour=16.0)
    assert status.hours_left == 4.0 and status.waiting == 62
    assert status.speed() == "16 an hour, 4.0 h left"


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, 4])
def test_files_opened_are_those_of_the_records_however_many_runs(tmp_path, draws):
    sweep = make_up(tmp_path, draws)
    plan = sweep_plan(tmp_path, read_sweep(tmp_path))
    assert len(plan.runs) == draws * len(METHODS) * 3 * 21
    with opened_under(tmp_path) as opened:
        assert read_status(plan).finished == len(sweep.runs)
    assert len(opened) == FILES
    with opened_under(tmp_path) as opened:
        assert len(read_records(plan.records)) == len(sweep.runs)
    assert len(opened) == FILES
