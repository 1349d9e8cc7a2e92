import pytest

from experiments.runs.claims import Claims
from experiments.runs.records import Records, read_records
from experiments.runs.worker import RunFailedError, work
from tests.experiments.runs import made_up


def test_every_run_is_trained_once(tmp_path):
    plan = made_up.plan(tmp_path)
    work(plan)
    found = read_records(plan.records)
    assert found.keys() == plan.runs.keys()
    assert {(r["state"], r["training"], r["steps"]) for r in found.values()} == {
        ("finished", "count_up", made_up.STEPS)
    }
    assert len(made_up.steps_taken(tmp_path)) == 6 * made_up.STEPS
    work(plan)
    assert len(made_up.steps_taken(tmp_path)) == 6 * made_up.STEPS
    assert not any((tmp_path / "runs").iterdir())
    assert not any(plan.claims.iterdir())


def test_a_run_that_another_has_claimed_is_left_to_it(tmp_path):
    plan = made_up.plan(tmp_path)
    other = Claims(plan.claims, plan.lease)
    assert other.take("r3") and not Claims(plan.claims, plan.lease).take("r3")
    seen = []

    def stop():  # once the others are finished
        seen.append(len(read_records(plan.records)))
        return seen[-1] == 5

    work(plan, stop)
    assert read_records(plan.records).keys() == plan.runs.keys() - {"r3"}
    other.release("r3")
    work(plan)
    assert read_records(plan.records).keys() == plan.runs.keys()


def test_a_stop_keeps_what_is_trained(tmp_path):
    plan = made_up.plan(tmp_path, count=1)
    work(plan, lambda: len(list(tmp_path.glob("steps"))) > 0)
    assert not read_records(plan.records) if plan.records.exists() else True
    assert made_up.step_of(tmp_path / "runs" / "r0") == 1
    work(plan)
    assert made_up.steps_taken(tmp_path) == [f"r0 {i}" for i in range(made_up.STEPS)]


def test_a_run_that_diverges_is_recorded_and_ends_nothing(tmp_path):
    plan = made_up.plan(tmp_path, r2=made_up.diverge)
    work(plan)
    found = read_records(plan.records)
    assert found["r2"]["state"] == "diverged" and "not finite" in found["r2"]["why"]
    assert sum(record["state"] == "finished" for record in found.values()) == 5


def test_a_run_that_fails_again_and_again_is_given_up(tmp_path):
    plan = made_up.plan(tmp_path, count=2, r1=made_up.fail)
    for _ in range(3):
        with pytest.raises(RunFailedError) as failed:
            work(plan)
        assert failed.value.args == ("r1", "RuntimeError: out of memory")
    work(plan)
    found = read_records(plan.records)
    assert found["r1"]["state"] == "given up" and "ended 3 times" in found["r1"]["why"]
    assert found["r0"]["state"] == "finished"


def test_a_run_whose_claim_was_lost_writes_nothing(tmp_path):
    plan = made_up.plan(tmp_path, count=1, r0=made_up.slowly)
    others, told = [], []

    def robbed():
        """Another takes the claim over, as from a process that was frozen."""
        if (tmp_path / "steps").exists() and not others:
            (plan.claims / "r0").unlink()
            others.append(Claims(plan.claims, plan.lease))
            assert others[0].take("r0")
            Records(plan.records).append("r0", "finished", by="the other")
        return False

    work(plan, robbed, told.append)
    assert read_records(plan.records)["r0"]["by"] == "the other"
    assert told[-1] == "lost r0"
    assert made_up.steps_taken(tmp_path) == ["r0 0", "r0 1"]
