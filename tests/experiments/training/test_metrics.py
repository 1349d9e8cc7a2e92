"""What a run's log leaves on the disk."""

import errno
import io
import json
import os
import struct

import pytest
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from experiments.devices import one_device
from experiments.training.metrics import MetricsLog, read_metrics


def events(file):
    """Of TensorBoard: length, checksum, event, checksum."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield Event.FromString(content[at + 12 : at + 12 + length])
        at += length + 16


def test_every_number_of_a_line_is_written_twice(tmp_path):
    log = MetricsLog(tmp_path, 0, one_device())
    lines = [
        {"step": 10, "kind": "train", "loss/a": 0.5, "loss/b": 0.25},
        {"step": 10, "kind": "evaluation", "in_domain_accuracy": 0.75},
    ]
    for line in lines:
        log.write(line)
    text = (tmp_path / "metrics.jsonl").read_text()  # a kill would lose nothing
    assert [json.loads(line) for line in text.splitlines()] == lines
    log.keep()
    log.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    told = {(e.step, v.tag): v.simple_value for e in events(file) for v in e.summary.value}
    assert told == {
        (10, "loss/a"): 0.5,
        (10, "loss/b"): 0.25,
        (10, "in_domain_accuracy"): 0.75,
    }


def test_lines_after_the_step_that_a_run_goes_on_from_are_dropped(tmp_path):
    log = MetricsLog(tmp_path, 0, one_device())
    for step in (10, 20):
        log.write({"step": step, "kind": "train", "loss/a": 1.0})
    log.close()
    assert [line["step"] for line in MetricsLog(tmp_path, 10, one_device()).lines] == [10]


class FullDisk(io.RawIOBase):
    def writable(self):
        return True

    def write(self, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_events_that_cannot_be_written_are_told_and_the_lines_stay_whole(
    tmp_path, monkeypatch
):
    """The lines are more than would fit into a queue that nobody reads any more."""
    full = io.BufferedWriter(FullDisk(), buffer_size=512)
    monkeypatch.setattr(record_writer, "open_file", lambda path: full)
    log = MetricsLog(tmp_path, 0, one_device())
    with pytest.raises(OSError, match="No space left") as raised:
        for step in range(1, 101):
            log.write({"step": step, "kind": "train", "loss/a": 1.0})
    assert raised.value.filename == str(tmp_path / "tensorboard")
    log.close()
    assert 1 < len(log.lines) < 100 and read_metrics(tmp_path) == log.lines
