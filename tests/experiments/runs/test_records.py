import json
import os

import pytest

from experiments.runs.records import FINISHED, Records, read_records


def lines(folder):
    (file,) = folder.glob("*.jsonl")
    return file.read_text().splitlines()


def test_what_one_appends_another_reads(tmp_path):
    records, reader = Records(tmp_path), Records(tmp_path)
    records.append("a", FINISHED, accuracy=0.5)
    reader.refresh()
    assert reader.heads.keys() == {"a"} and reader.heads["a"][0] == FINISHED
    records.append("b", "diverged", why="loss")
    reader.refresh()
    assert [state for state, _ in reader.heads.values()] == [FINISHED, "diverged"]
    found = read_records(tmp_path)
    assert found["a"]["accuracy"] == 0.5 and found["b"]["why"] == "loss"
    assert len(lines(tmp_path)) == 2


def test_only_what_is_new_is_read(tmp_path, monkeypatch):
    records, reader = Records(tmp_path), Records(tmp_path)
    records.append("a", FINISHED)
    reader.refresh()
    reader.heads.clear()
    records.append("b", FINISHED)
    reader.refresh()
    assert reader.heads.keys() == {"b"}


@pytest.mark.parametrize("cut", [1, 20, 55, 90])
def test_a_torn_last_line_is_no_record(tmp_path, cut):
    records = Records(tmp_path)
    records.append("a", FINISHED, accuracy=0.5)
    records.append("b", FINISHED, accuracy=0.5)
    (file,) = tmp_path.glob("*.jsonl")
    whole, line, _ = file.read_bytes().split(b"\n")
    file.write_bytes(whole + b"\n" + line[:cut])
    reader = Records(tmp_path)
    reader.refresh()
    assert reader.heads.keys() == read_records(tmp_path).keys() == {"a"}
    # Its writer may have been slow, and not killed: then the rest comes.
    with file.open("ab") as rest:
        rest.write(line[cut:] + b"\n")
    reader.refresh()
    assert reader.heads.keys() == read_records(tmp_path).keys() == {"a", "b"}


def test_of_a_doubled_record_the_first_counts(tmp_path):
    Records(tmp_path).append("a", FINISHED, accuracy=0.5)
    Records(tmp_path).append("a", "diverged")
    reader = Records(tmp_path)
    reader.refresh()
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert len(reader.heads) == len(read_records(tmp_path)) == 1
    assert reader.heads["a"][0] == read_records(tmp_path)["a"]["state"]


def test_a_full_disk_leaves_nothing_of_a_record(tmp_path, monkeypatch):
    records = Records(tmp_path)
    records.append("a", FINISHED)

    def full(number):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as raised:
            records.append("b", FINISHED)
    assert raised.value.filename.endswith(".jsonl")
    records.append("c", FINISHED)
    assert read_records(tmp_path).keys() == {"a", "c"}
    assert [json.loads(line)["id"] for line in lines(tmp_path)] == ["a", "c"]


def test_a_line_that_is_no_record_is_named(tmp_path):
    records = Records(tmp_path)
    records.append("a", FINISHED)
    (file,) = tmp_path.glob("*.jsonl")
    head = file.read_text().rstrip("}\n")
    file.write_text(f"{head}, broken: }}\n")
    with pytest.raises(ValueError, match=r"jsonl, line 1, is no record"):
        read_records(tmp_path)
