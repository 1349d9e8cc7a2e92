"""What is kept under docs/ was trained on the batches that today's code draws."""

import functools
import json
from pathlib import Path

import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.data.export import export
from experiments.data.prepare import prepare
from experiments.training.first_batch import first_batch

DOCS = Path(__file__).parents[3] / "docs"
RESULTS = sorted((DOCS / "results").glob("*/*.json"))
STUDIES = [
    file
    for file in sorted((DOCS / "studies").glob("*/numbers.json"))
    # They draw no images; the last draws what its frozen part made of them.
    if file.parent.name not in ("toy", "theorem", "synthetic", "pretrained")
]
load_once = functools.cache(load)


def told(file):
    return str(file.relative_to(DOCS))


def slow_if_decoded(file):
    """Results of a folder of images are drawn from what is decoded and written first."""
    data = {record["data"] for record in json.loads(file.read_text())["records"]}
    return pytest.param(file, marks=pytest.mark.slow) if data == {"folder"} else file


def config_of(data, unseen, seed, **overrides):
    return make_config(
        data=data, method="erm", unseen=unseen, seed=int(seed), overrides=overrides
    )


@functools.cache
def drawn(data, unseen, seed, **overrides):
    """The first batch of today's code."""
    config = config_of(data, unseen, seed, **overrides)
    return first_batch(config, load_once(data, image_size=config.preset.image_size))


@pytest.fixture(scope="module")
def drawn_of_folder(tmp_path_factory):
    """The same of the drawings as a folder of images, which results of it name."""
    path = tmp_path_factory.mktemp("emoji")
    export(load_once("emoji_styles"), path / "emoji")
    prepared = prepare("folder", path / "emoji", path / "prepared")

    @functools.cache
    def drawn(data, unseen, seed, **overrides):
        return first_batch(config_of(data, unseen, seed, **overrides), prepared)

    return drawn


@pytest.mark.parametrize("file", [*map(slow_if_decoded, RESULTS)], ids=told)
def test_kept_results_are_of_today_s_batches(file, request):
    results = json.loads(file.read_text())
    preset = results["presets"][0]
    names = ("batching", "batch_size", "image_size", "shift", "min_crop", "split")
    names += ("label_noise", "noisy_sources", "open_classes", "class_order", "model")
    overrides = {name: preset[name] for name in names if name in preset}
    of_folder = results["records"][0]["data"] == "folder"
    if not of_folder and "unseen_concept_accuracy" not in results["records"][0]:
        pytest.skip("made before concepts were dealt to folds: others were held out")
    draw = request.getfixturevalue("drawn_of_folder") if of_folder else drawn
    for record in results["records"]:
        today = draw(record["data"], record["unseen_domain"], record["seed"], **overrides)
        assert record["first_batch"] == today, record["commit"]


@pytest.mark.parametrize("file", STUDIES, ids=told)
def test_kept_studies_are_of_today_s_batches(file):
    made = json.loads(file.read_text())["made"]
    for name, kept in made["first_batches"].items():
        data, unseen, seed, size, pixels, *more = name.split("/")
        overrides = {"batch_size": int(size), "image_size": int(pixels)}
        for setting, value in (part.split("=") for part in more):
            share = setting in ("label_noise", "open_classes")
            overrides[setting] = float(value) if share else value
        today = drawn(data, unseen, seed, **overrides)
        assert kept == today, (name, made["commits"])
    assert made["first_batches"]


def test_a_first_batch_is_told_by_what_is_drawn_alone():
    def of(seed=0, unseen="75", **overrides):
        config = config_of("rotated_digits", unseen, seed, **overrides)
        return first_batch(config, load_once("rotated_digits"))

    assert of() == of(steps=3, learning_rate=0.1, jitter=0.1)
    changes = ({"seed": 1}, {"unseen": "0"}, {"batch_size": 8}, {"shift": 2})
    assert len({of(), *(of(**change) for change in changes)}) == 1 + len(changes)
