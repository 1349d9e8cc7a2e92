import pytest

from experiments.config.protocols import PROTOCOLS, find_protocol
from experiments.config.run import make_config
from experiments.data.benchmarks import BENCHMARKS


def config(data, protocol=None, method="disam", **overrides):
    overrides = {"weights": "scratch", **overrides}
    return make_config(
        data=data, method=method, unseen="x", seed=0, protocol=protocol, overrides=overrides
    )


# lr, weight decay, alpha, steps: Wang et al., CVPR 2023, the table in their repository.
SAGM = {
    "pacs": (3e-5, 1e-4, 1e-3, 5001),
    "vlcs": (1e-5, 1e-4, 1e-3, 5001),
    "office_home": (1e-5, 1e-4, 5e-4, 5001),
    "terra_incognita": (1e-5, 1e-4, 1e-3, 5001),
    "domain_net": (3e-5, 1e-6, 5e-4, 15001),
}


@pytest.mark.parametrize("data", BENCHMARKS)
@pytest.mark.parametrize("protocol", ["sagm", "disam"])
def test_the_papers_training(data, protocol):
    made = config(data, protocol, method="sagm")
    preset = made.preset
    rate, decay, alpha, steps = SAGM[data]
    assert (preset.learning_rate, preset.weight_decay, preset.steps) == (rate, decay, steps)
    assert (made.hyperparameters.alpha, made.hyperparameters.rho) == (alpha, 0.05)
    assert (preset.optimizer, preset.schedule, preset.dropout) == ("adam", "constant", 0.5)
    assert (preset.model, preset.batch_norm, preset.image_size) == (
        "resnet50",
        "frozen",
        224,
    )
    assert (preset.batching, preset.batch_size, preset.split) == (
        "balanced",
        32,
        "domainbed",
    )
    assert (preset.min_crop, preset.jitter, preset.grayscale) == (0.7, 0.3, 0.1)
    assert (preset.holdout_fraction, made.checkpoint_every) == (0.2, 100)


def test_disam_s_exception_is_for_disam_alone():
    disam = config("terra_incognita", "disam").hyperparameters
    assert (disam.rho, disam.lam) == (0.01, 0.2)
    for method in ("sam", "disam+sagm"):
        other = config("terra_incognita", "disam", method=method).hyperparameters
        assert (other.rho, other.lam) == (0.05, 0.1)
    assert config("pacs", "disam").hyperparameters.rho == 0.05


def test_sagm_s_alpha_is_not_gsam_s():
    assert config("pacs", method="gsam").hyperparameters.alpha == 0.2


@pytest.mark.parametrize("data", BENCHMARKS)
def test_the_release(data):
    made = config(data, "disam_release")
    preset = made.preset
    assert (preset.optimizer, preset.learning_rate, preset.weight_decay) == (
        "sgd",
        1e-3,
        5e-4,
    )
    assert (preset.schedule, preset.epochs, preset.batching) == ("step", 50.0, "merged")
    assert (preset.batch_norm, preset.dropout) == ("live", 0.5)
    assert made.hyperparameters.variance == "count_weighted"
    assert preset.split == {"office_home": "release", "terra_incognita": "release"}.get(
        data, "files"
    )
    assert preset.holdout_fraction == (0.2 if data == "terra_incognita" else 0.1)


def test_steps_given_replace_epochs():
    assert config("pacs", "disam_release", steps=7).preset.epochs == 0.0


def test_a_paper_s_protocol_asks_for_weights():
    with pytest.raises(
        ValueError, match=r"starts resnet50 from pretrained weights.*--weights"
    ):
        config("pacs", weights="")


def test_any_folder_takes_a_paper_s_protocol():
    for name in ("sagm", "disam"):
        assert config("folder", name).preset == config("pacs", name).preset
    assert config("folder", "disam_release").preset.split == "release"
    assert config("folder").preset.model == "efficientnet_lite0"


@pytest.mark.parametrize(
    ("tuning", "protocol"),
    [("coop", "coop"), ("lora", "clipood"), ("zero_shot", "clipood")],
)
def test_a_clip_on_a_folder_has_its_tuning_s_own_training(tuning, protocol):
    asked = {"model": "clip", "tuning": tuning, "weights": "F"}
    found = config("folder", **asked)
    assert found.protocol == protocol
    assert found.preset == config("pacs", **asked).preset


def test_a_protocol_without_numbers_for_a_tuning_is_refused():
    for name, tuning in (("clipood", "coop"), ("coop", "lora")):
        with pytest.raises(ValueError, match=f"{name} has numbers for .*, none for tuning"):
            config("pacs", name, tuning=tuning, weights="F")
    assert config("pacs", "coop", tuning="zero_shot", weights="F").preset.steps == 0


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        ("pcas", None, "unknown data set 'pcas'; there are: emoji_styles"),
        ("pacs", "sgd", "unknown protocol of pacs 'sgd'; there are: disam, sagm"),
        ("folder", "sgd", "unknown protocol of folder 'sgd'; there are: default, disam"),
    ],
)
def test_unknown_protocols_list_the_known(data, name, message):
    with pytest.raises(ValueError, match=message):
        find_protocol(data, name)


def test_every_protocol_says_where_it_is_written():
    assert all(p.reference for found in PROTOCOLS.values() for p in found.values())


@pytest.mark.parametrize("data", BENCHMARKS)
def test_domainbed_s_own_training(data):
    made = config(data, "domainbed", method="erm")
    preset = made.preset
    assert (preset.learning_rate, preset.weight_decay, preset.dropout) == (5e-5, 0.0, 0.0)
    assert (preset.model, preset.batch_norm, preset.optimizer) == (
        "resnet50",
        "frozen",
        "adam",
    )
    assert (preset.steps, preset.batching, preset.batch_size) == (5001, "balanced", 32)
    assert made.checkpoint_every == (1000 if data == "domain_net" else 300)
    assert find_protocol(data, None)[0] == "disam"
