"""CLIP's protocols, number by number, and which of them serves what is asked for."""

import dataclasses

import pytest

from experiments.config.preset import Preset
from experiments.config.protocols import find_protocol
from experiments.config.run import make_config
from experiments.data.benchmarks import BENCHMARKS
from experiments.models.clip.prompts import STD
from experiments.models.registry import MODELS
from tests.experiments.models.clip.recorded import DATA

CLIPOOD = {  # Shu et al., ICML 2023: main file, engine and scripts of their code
    "model": "clip_vit_b16",
    "weights": "",  # to be given
    "tuning": "clipood",
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "schedule": "annealed",  # from the first step on
    "batching": "balanced",
    "batch_size": 12,  # of each source
    "image_size": 224,
    "min_crop": 0.7,
    "jitter": 0.0,
    "grayscale": 0.0,
    "view": "center_crop",
    "split": "domainbed",
    "holdout_fraction": 0.2,
    "dropout": 0.0,
    "dtype": "float32",  # theirs is float16
    "class_order": "sorted",
}
COOP = {  # the DISAM paper's 4.3 and C.1, its release's transforms, and CoOp's code
    **CLIPOOD,
    "tuning": "coop",
    "steps": 5000,
    "learning_rate": 2e-3,
    "context": 16,
    "class_specific": False,
    "position": "end",
    "batching": "merged",
    "batch_size": 32,
    "jitter": 0.4,
    "grayscale": 0.1,
    "optimizer": "sgd",
    "weight_decay": 5e-4,
    "bma": 0.0,
    "open_classes": 0.0,
}
FIELDS = ("steps", "learning_rate", "margin", "bma", "open_classes")
NUMBERS = {
    ("clipood", "pacs"): (5000, 5e-6, 0.3, 0.5, 0.0),
    ("clipood", "vlcs"): (5000, 5e-6, 0.3, 0.5, 0.0),
    ("clipood", "terra_incognita"): (5000, 5e-6, 0.3, 0.5, 0.0),
    ("clipood", "office_home"): (5000, 1e-5, 0.3, 0.5, 0.0),
    ("clipood", "domain_net"): (10_000, 1e-5, 0.3, 0.5, 0.0),
    ("clipood_wild", "office_home"): (5000, 3e-6, 0.1, 0.1, 0.5),
    ("clipood_wild", "domain_net"): (10_000, 5e-6, 0.1, 0.5, 0.5),
    ("disam_open", "office_home"): (5000, 1e-7, 0.1, 0.1, 0.5),
    ("disam_open", "domain_net"): (10_000, 1e-7, 0.1, 0.5, 0.5),
}


def config(data, protocol=None, method="disam", **changes):
    overrides = {"weights": "ViT-B-16.pt", **changes}
    return make_config(
        data=data, method=method, unseen="x", seed=0, protocol=protocol, overrides=overrides
    )


def fields(preset, names):
    return {name: getattr(preset, name) for name in names}


@pytest.mark.parametrize(("protocol", "data"), NUMBERS)
def test_clipood_s_training(protocol, data):
    name, found = find_protocol(data, protocol)
    assert name == protocol and found.checkpoint_every == 500  # an epoch of theirs
    assert fields(found.preset, CLIPOOD) == CLIPOOD
    expected = dict(zip(FIELDS, NUMBERS[protocol, data], strict=True))
    assert fields(found.preset, FIELDS) == expected


@pytest.mark.parametrize("data", BENCHMARKS)
def test_coop_s_training(data):
    assert fields(find_protocol(data, "coop")[1].preset, COOP) == COOP
    assert STD == 0.02


def test_open_classes_are_of_the_two_benchmarks_of_table_3():
    for data in ("pacs", "vlcs", "terra_incognita"):
        for protocol in ("clipood_wild", "disam_open"):
            with pytest.raises(
                ValueError, match=f"unknown protocol of {data} '{protocol}'"
            ):
                find_protocol(data, protocol)


def test_rho_is_the_stated_one_with_open_classes_and_the_default_without():
    for method in ("sam", "disam", "disam+sagm"):
        assert config("office_home", "disam_open", method).hyperparameters.rho == 1e-5
    for protocol in ("clipood", "clipood_wild", "coop"):
        own = config("office_home", protocol).hyperparameters
        assert (own.rho, own.lam) == (0.05, 0.1)


def test_other_tunings_differ_from_clipood_s_training_in_what_is_said():
    base = dataclasses.asdict(find_protocol("pacs", "clipood")[1].preset)
    for tuning, changes in {
        "finetune": {"bma": 0.0},
        "lora": {"learning_rate": 1e-4, "bma": 0.0},
        "linear": {"learning_rate": 1e-3, "bma": 0.0},
        "zero_shot": {"steps": 0, "bma": 0.0},
    }.items():
        own = config("pacs", tuning=tuning, model="clip_vit_b16")
        expected = {**base, **changes, "tuning": tuning, "weights": "ViT-B-16.pt"}
        assert dataclasses.asdict(own.preset) == expected
        assert own.protocol == "clipood"
    assert config("pacs", tuning="lora", learning_rate=1e-6).preset.learning_rate == 1e-6


CLIP = {"model": "clip_vit_b16"}
CHOSEN = [
    ("pacs", {}, "disam"),
    ("pacs", {"model": "resnet50", "tuning": "linear"}, "disam"),
    ("pacs", {"tuning": "linear"}, "disam"),  # a ResNet's, as before there was CLIP
    ("pacs", {"tuning": "finetune"}, "disam"),
    ("pacs", {"tuning": "coop"}, "coop"),
    ("pacs", {"tuning": "clipood"}, "clipood"),
    ("pacs", {"tuning": "lora"}, "clipood"),
    ("pacs", {"tuning": "zero_shot"}, "clipood"),
    ("pacs", CLIP, "clipood"),
    ("pacs", {"model": "clip"}, "clipood"),
    ("pacs", {**CLIP, "tuning": "finetune"}, "clipood"),
    ("pacs", {**CLIP, "tuning": "linear"}, "clipood"),
    ("pacs", {**CLIP, "tuning": "coop"}, "coop"),
    ("pacs", {**CLIP, "tuning": "clipood", "open_classes": 0.5}, "clipood"),
    ("office_home", {"open_classes": 0.5}, "clipood_wild"),
    ("office_home", {"tuning": "clipood", "open_classes": 0.5}, "clipood_wild"),
    ("office_home", {**CLIP, "tuning": "lora", "open_classes": 0.3}, "clipood_wild"),
    ("office_home", {**CLIP, "tuning": "coop", "open_classes": 0.5}, "coop"),
    ("office_home", {**CLIP, "open_classes": 0.0}, "clipood"),
    ("emoji_styles", {"model": "clip", "tuning": "coop", "open_classes": 0.5}, "default"),
]


@pytest.mark.parametrize(("data", "asked", "name"), CHOSEN, ids=str)
def test_the_protocol_serves_what_is_asked_for(data, asked, name):
    assert find_protocol(data, None, asked)[0] == name
    if asked.get("model"):
        changes = {"dropout": 0.0} if data == "emoji_styles" else {}
        preset = config(data, **asked, **changes).preset
        assert fields(preset, asked) == asked


def test_a_folder_takes_clip_s_protocols_by_name():
    for name in ("clipood", "coop"):
        assert config("folder", name).preset == config("pacs", name).preset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet50", "tuning": "coop"}, "unknown tuning of resnet50 'coop'"),
        ({"model": "clip", "activation": "relu"}, "unknown activation 'relu'"),
        ({"model": "clip", "position": "start"}, "unknown position 'start'"),
        ({"model": "clip", "class_order": "random"}, "unknown class_order 'random'"),
        ({"model": "clip", "context": 0}, "context must be at least 1"),
        ({"model": "clip", "rank": 0}, "rank must be at least 1"),
        ({"model": "clip", "bma": -0.5}, "bma must be at least 0"),
        ({"model": "clip", "margin": -1.0}, "margin must be at least 0"),
        ({"model": "clip", "open_classes": 1.0}, r"open_classes must lie in \[0, 1\)"),
        ({"model": "clip", "dropout": 0.2}, "dropout is 0.2, and clip drops no features"),
        (
            {"model": "clip", "class_specific": True, "open_classes": 0.5},
            "class_specific gives every class vectors of its own, and new",
        ),
        (
            {"model": "clip", "label_noise": 0.4, "open_classes": 0.5},
            "label_noise draws wrong labels among all classes",
        ),
        ({"open_classes": 0.5}, r"resnet50 has a head that knows no class.*--model clip"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_the_mend(changes, message):
    with pytest.raises(ValueError, match=message):
        Preset(**changes)


@pytest.mark.parametrize("weights", ["scratch", "package"])
def test_clip_is_not_trained_from_nothing(weights):
    wanted = Preset(model="clip", weights=weights, tuning="coop")
    message = f"weights is '{weights}', and CLIP is not trained here.*--weights FILE"
    with pytest.raises(ValueError, match=message):
        MODELS["clip"].model(wanted, ("a", "b"), "float32")


def test_a_file_of_another_clip_than_the_name_says_is_refused():
    path = DATA / "open_clip.pth"
    wanted = Preset(weights=str(path), activation="gelu", image_size=16, model="clip")
    assert MODELS["clip"].model(wanted, ("a", "b"), "float32")
    message = r"open_clip.pth holds a CLIP of width 64 and patches of 8 pixels.*\(768, 16\)"
    with pytest.raises(ValueError, match=message):
        MODELS["clip_vit_b16"].model(wanted, ("a", "b"), "float32")


def test_the_activation_is_asked_for():
    wanted = Preset(weights=str(DATA / "open_clip.pth"), image_size=16, model="clip")
    with pytest.raises(ValueError, match=r"activation is None, and .*quick_gelu"):
        MODELS["clip"].model(wanted, ("a", "b"), "float32")
