"""The studies that this repository keeps say what their numbers say."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from experiments.studies import NAMES, find_study
from experiments.studies.kit.study import read_numbers

STUDIES = Path(__file__).parents[3] / "docs" / "studies"
KEPT = sorted(folder.name for folder in STUDIES.iterdir() if folder.is_dir())


@pytest.mark.parametrize("name", KEPT)
def test_the_answers_follow_from_the_numbers(name):
    assert name in NAMES
    made, numbers = read_numbers(STUDIES / name)
    listed = json.loads((STUDIES / name / "page.json").read_text())
    found = [dataclasses.asdict(finding) for finding in find_study(name).find(numbers)]
    assert listed["findings"] == found
    assert all((STUDIES / name / figure["file"]).exists() for figure in listed["figures"])
    assert made["command"].endswith(f"--out docs/studies/{name}")
    assert not any("dirty" in commit for commit in made["commits"])


def test_the_report_tells_all_of_them():
    text = (STUDIES / "report.md").read_text()
    shown = {target.split("/")[0] for target in re.findall(r"\]\((\w+/\w+\.png)\)", text)}
    assert shown == set(KEPT)
    for name in KEPT:
        listed = json.loads((STUDIES / name / "page.json").read_text())
        told = re.findall(rf'<a id="study-{name}-\d+"></a>.*? \*\*([\w ]+)\*\*: ', text)
        assert told == [finding["answer"] for finding in listed["findings"]]
    page = (STUDIES / "report.html").read_text()
    assert page.count("data:image/png") == len(set(re.findall(r"\]\((\S+\.png)\)", text)))
