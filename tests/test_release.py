"""What a release says of itself agrees with itself; nothing is unpickled."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import disam_jax as dj

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
RECIPE = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())


def test_one_version():
    citing = (ROOT / "docs/citing.md").read_text()
    found = {
        PROJECT["version"],
        CITATION["version"],
        RECIPE["context"]["version"],
        *re.findall(r"^  version = \{(.*)\}", citing, re.M),
        *re.findall(r"^## (\S+) \(", (ROOT / "CHANGELOG.md").read_text(), re.M)[:1],
    }
    assert found == {dj.__version__}


def test_one_licence_and_summary():
    about = RECIPE["about"]
    assert {PROJECT["license"], CITATION["license"], about["license"]} == {"Apache-2.0"}
    assert PROJECT["description"] == about["summary"]


def test_the_recipe_asks_for_what_the_wheel_does():
    python, *others = RECIPE["requirements"]["run"]
    assert [other.replace(" ", "") for other in others] == PROJECT["dependencies"]
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert python == "python >=${{ python_min }}"
    assert RECIPE["context"]["python_min"] == lowest


def test_the_page_cites_the_papers_that_the_file_does():
    citing = " ".join((ROOT / "docs/citing.md").read_text().split())
    for paper in CITATION["references"]:
        assert f"title = {{{paper['title']}}}" in citing
        names = [f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]]
        assert f"author = {{{' and '.join(names)}}}" in citing
        assert paper["url"] in citing


def test_addresses_that_are_prepared_stand_in_one_file():
    prepared = PROJECT["urls"]["Repository"], PROJECT["urls"]["Documentation"]
    files = [ROOT / name for name in ("CITATION.cff", "mkdocs.yml", "conda/recipe.yaml")]
    for pattern in ("*.md", "docs/**/*.md", "disam_jax/**/*.py"):
        files += ROOT.glob(pattern)
    for file in files:
        assert not any(url in file.read_text() for url in prepared), file


@pytest.mark.parametrize("name", ["RELEASING.md", "conda/recipe.yaml"])
def test_addresses_that_are_not_known_yet_are_in_capitals(name):
    found = re.findall(r"https?://([^\s#]+)", (ROOT / name).read_text())
    assert found and all(re.fullmatch("[A-Z_]+", address) for address in found)


UNPICKLING = (
    r"pickle\.loads?\(|torch\.load|allow_pickle=True|yaml\.\w*load|\beval\(|joblib|dill"
)


@pytest.mark.parametrize("package", ["disam_jax", "experiments", "benchmarks"])
def test_nothing_is_unpickled_or_evaluated(package):
    for file in (ROOT / package).rglob("*.py"):
        assert not re.search(UNPICKLING, file.read_text()), file
    own = ROOT / "experiments/models/torch_files.py"  # its unpickler refuses unknown names
    uses = [f for f in ROOT.glob(f"{package}/**/*.py") if "Unpickler(" in f.read_text()]
    assert uses == ([own] if package == "experiments" else [])
