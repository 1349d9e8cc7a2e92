"""The studies that this repository keeps say what their values say."""

import dataclasses
from pathlib import Path

import pytest

from experiments.files import read_json
from experiments.studies import NAMES, find_study
from experiments.studies.kit import forest
from experiments.studies.kit.study import VALUES, read_numbers

STUDIES = Path(__file__).parents[3] / "docs" / "studies"
KEPT = sorted(file.parent.name for file in STUDIES.glob(f"*/{VALUES}"))


@pytest.mark.parametrize("name", KEPT)
def test_the_answers_follow_from_the_values(name):
    assert name in NAMES
    made, values, _ = read_numbers(STUDIES / name)
    listed = read_json(STUDIES / name / "page.json")
    found = [dataclasses.asdict(finding) for finding in find_study(name).find(values)]
    assert listed["findings"] == found
    assert made["command"].endswith(f"--out docs/studies/{name}")
    assert not any("dirty" in commit for commit in made["commits"])


@pytest.mark.parametrize("name", ["accuracy", "flatness", "open_classes", "pretrained"])
def test_a_forest_says_of_a_claim_what_the_page_says(name, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(forest, "draw_rows", lambda rows, *_: drawn.extend(rows))
    study, (_, values, curves) = find_study(name), read_numbers(STUDIES / name)
    study.draw(values, curves, tmp_path)
    # Holm's adjustment is of a whole family, of which a figure may show a part.
    found = study.find(values)
    assert drawn and all(finding in found for finding in drawn)


@pytest.mark.parametrize("name", KEPT)
def test_a_folder_holds_its_figures_and_no_others(name):
    listed = read_json(STUDIES / name / "page.json")
    drawn = {file.name for file in (STUDIES / name).glob("*.png")}
    assert drawn == {figure["file"] for figure in listed["figures"]}
