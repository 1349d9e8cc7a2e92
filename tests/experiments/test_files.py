import os
import signal
import subprocess
import sys
import threading

import pytest

from experiments.files import is_unused, locked, write_whole, writing

HOLD = """
import sys, time
from pathlib import Path
from experiments.files import locked
with locked(Path(sys.argv[1]), wait=False, what="training"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_second_holder_is_told_in_one_line_who_is_there(holder, tmp_path):
    with pytest.raises(ValueError) as told, locked(tmp_path, wait=False, what="training"):
        pass
    message = str(told.value)
    assert f"{tmp_path} is taken: process {holder.pid} on " in message
    assert "is training there since" in message
    assert "choose another folder" in message
    assert "\n" not in message


def test_lock_of_a_killed_process_is_no_obstacle(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path, wait=False, what="training"):
        pass
    assert is_unused(tmp_path)


def test_who_waits_says_for_whom_and_comes_next(tmp_path, capsys):
    came = []

    def second():
        with locked(tmp_path, wait=True, what="preparing"):
            came.append("second")

    waiting = threading.Thread(target=second)
    with locked(tmp_path, wait=False, what="preparing"):
        waiting.start()
        while "waiting" not in (said := capsys.readouterr().err):
            waiting.join(0.01)
        came.append("first")
    waiting.join()
    assert came == ["first", "second"]
    assert f"process {os.getpid()}" in said
    assert "is preparing there" in said


def test_writers_of_one_file_do_not_meet(tmp_path):
    with writing(tmp_path / "a.txt") as one, writing(tmp_path / "a.txt") as other:
        one.write(b"one")
        other.write(b"other")
        assert is_unused(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "one"  # its block ended last
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_failed_write_leaves_the_file_as_it_was(tmp_path):
    write_whole(tmp_path / "a.txt", "before")
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "a.txt") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_files_are_written_with_the_user_s_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_whole(tmp_path / "whole", "")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode
