import dataclasses
import json

import pytest

from experiments.config.preset import Preset
from experiments.config.run import make_config
from experiments.config.space import FIELDS, find_space, seed_hash
from experiments.data.benchmarks import BENCHMARKS
from experiments.methods import METHODS, Hyperparameters


def config(data="pacs", method="erm", **overrides):
    protocol = "domainbed" if data in BENCHMARKS else None
    return make_config(
        data=data,
        method=method,
        unseen="x",
        seed=0,
        protocol=protocol,
        overrides={"weights": "scratch", **overrides},
    )


def drawn(space, field, trials=(0, 1), draws=(1, 2)):
    return [space.draw(draw, trial)[field] for trial in trials for draw in draws]


# What DomainBed's registry answers (commit b93c22a, run), to six digits: draws 1 and 2 of
# trial 0, then of trial 1.
DOMAINBED = [
    ({}, "learning_rate", [2.70289e-05, 5.68419e-05, 2.23526e-05, 2.69268e-4]),
    ({}, "weight_decay", [4.48329e-4, 5.10022e-3, 1.99673e-06, 3.53979e-06]),
    ({}, "batch_size", [39, 25, 8, 18]),
    ({}, "dropout", [0.5, 0.5, 0.5, 0.5]),
    ({"penalty": "coral"}, "penalty_weight", [1.42276, 3.51468, 2.77755, 0.173399]),
    ({"penalty": "vrex"}, "penalty_weight", [3307.2, 0.149593, 58.6209, 1.01099]),
    ({"penalty": "vrex"}, "penalty_start", [47, 8, 2795, 5629]),
    ({"data": "domain_net"}, "batch_size", [28, 20, 8, 15]),
]


@pytest.mark.parametrize(("asked", "field", "expected"), DOMAINBED)
def test_draws_are_domainbed_s(asked, field, expected):
    found = drawn(find_space("domainbed", config(**asked)), field)
    assert found == pytest.approx(expected, rel=5e-6)
    assert all(type(value) is type(expected[0]) for value in found)


def test_data_held_in_memory_takes_the_ranges_of_small_images():
    space = find_space("domainbed", config("rotated_digits"))
    rates = drawn(space, "learning_rate", trials=(0,))
    assert rates == pytest.approx([1.19062e-4, 3.20793e-4], rel=5e-6)
    assert drawn(space, "batch_size", trials=(0,)) == [372, 126]
    assert space.draw(1, 0).keys() == {"learning_rate", "weight_decay", "batch_size"}
    assert set(drawn(space, "weight_decay")) == {0.0}


def test_the_seed_of_a_draw_is_domainbed_s():
    seeds = [seed_hash(draw, trial) for trial in (0, 1) for draw in (1, 2)]
    assert seeds == [785910682, 472130416, 1442673865, 181139023]


def test_dropout_is_hashed_under_the_backbone_s_name():
    def dropouts(**overrides):
        space = find_space("domainbed", config(**overrides))
        return drawn(space, "dropout", draws=range(1, 20))

    assert dropouts(model="resnet18") == dropouts() != dropouts(model="vit_b16")
    assert set(dropouts(model="vit_b16")) == {0.0, 0.1, 0.5}


@pytest.mark.parametrize("name", ["domainbed", "swad"])
def test_draw_0_is_the_default(name):
    assert find_space(name, config()).draw(0, 3) == {}


def test_draws_are_the_same_for_all_methods_of_a_trial():
    erm, disam = (find_space("domainbed", config(method=m)) for m in ("erm", "disam"))
    own = {**disam.draw(3, 2)}
    assert {own.pop("rho"), own.pop("lam")} <= {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.7}
    assert own == erm.draw(3, 2) != erm.draw(3, 1)


@pytest.mark.parametrize(
    ("method", "field", "choices"),
    [
        ("sam", "rho", {0.01, 0.02, 0.05, 0.1}),  # SWAD's
        ("sagm", "rho", {0.01, 0.02, 0.05, 0.1}),
        ("adaptive_sam", "rho", {0.1, 0.2, 0.5, 1.0}),
        ("linf_sam", "rho", {2e-5, 4e-5, 1e-4, 2e-4}),
        ("sagm", "alpha", {0.01, 0.02, 0.05, 0.1}),  # SWAD's
        ("disam+sagm", "alpha", {0.01, 0.02, 0.05, 0.1}),
        ("gsam", "alpha", {0.04, 0.08, 0.2, 0.4}),
        ("disam", "lam", {0.1, 0.2, 0.5, 0.7}),
    ],
)
def test_the_dials_of_sam_and_its_kin(method, field, choices):
    space = find_space("domainbed", config(method=method))
    assert set(drawn(space, field, draws=range(1, 40))) == choices


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", ["pacs", "domain_net", "folder", "emoji_styles"])
def test_every_draw_is_a_config_that_can_be(data, method):
    given = {"method": method, "penalty": "fishr"}
    space = find_space("domainbed", config(data, **given))
    for trial in range(3):
        for draw in range(trial, 20, 5):
            config(data, **given, **space.draw(draw, trial))


def test_only_what_the_method_reads_is_drawn():
    for name, method in METHODS.items():
        own = {"rho", "alpha", "lam"} & find_space("domainbed", config(method=name)).draw(
            1, 0
        ).keys()
        assert own == {"rho", "alpha", "lam"} & set(method.reads)


def test_what_the_user_fixed_is_not_drawn():
    fixed = frozenset({"learning_rate", "rho"})
    free = find_space("domainbed", config(method="sam"), fixed)
    whole = find_space("domainbed", config(method="sam"))
    assert free.draw(1, 0) == {k: v for k, v in whole.draw(1, 0).items() if k not in fixed}
    assert len({str(find_space("swad", config(), fixed).draw(h, 0)) for h in range(7)}) == 7


def test_swad_s_grid_has_18_points_and_the_default():
    space = find_space("swad", config())
    points = [space.draw(draw, trial=1) for draw in range(1, 19)]
    seen = {(p["learning_rate"], p["dropout"], p["weight_decay"]) for p in points}
    rates, dropouts, decays = map(set, zip(*seen, strict=True))
    assert len(seen) == 18 and {p["batch_size"] for p in points} == {32}
    assert rates == {1e-5, 3e-5, 5e-5} and decays == {1e-4, 1e-6}
    assert dropouts == {0.0, 0.1, 0.5}
    space.check(19)
    with pytest.raises(
        ValueError, match=r"swad has 19 draws, the default and 18 .* got 20"
    ):
        space.check(20)


def test_a_random_search_has_no_end():
    space = find_space("domainbed", config())
    space.check(1000)
    with pytest.raises(ValueError, match="draws must be at least 1; got 0"):
        space.check(0)


def file_of(tmp_path, content):
    file = tmp_path / "space.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def test_a_file_says_how_fields_are_drawn(tmp_path):
    ranges = {
        "learning_rate": {"log10": [-5, -3.5]},
        "batch_size": {"log2": [3, 5.5]},
        "dropout": [0, 0.1, 0.5],
        "rho": {"uniform": [0, 0.1]},
        "penalty_start": [0, 100],
    }
    file = file_of(tmp_path, ranges)
    sam = find_space(file, config(method="sam")).draw(1, 0)
    domainbed = find_space("domainbed", config()).draw(1, 0)
    assert 0 < sam.pop("rho") < 0.1
    assert sam == {k: domainbed[k] for k in ("learning_rate", "batch_size", "dropout")}
    vrex = find_space(file, config(penalty="vrex"))
    starts = drawn(vrex, "penalty_start", draws=range(1, 10))
    assert set(starts) == {0, 100} and {type(start) for start in starts} == {int}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"space.json cannot be read as JSON: .* line 1 column 2"),
        ("[]", "space.json must hold a JSON object, not a list"),
        ({}, "space.json says of no field how it is drawn"),
        ({"lr": [1]}, r"unknown field of .*space.json 'lr'; there are: learning_rate, w"),
        ({"rho": []}, r"space.json: rho has nothing to choose among, \[\]: give one"),
        ({"rho": 0.1}, r"space.json: rho must be a list of numbers, or one of .* got 0.1"),
        ({"rho": ["a"]}, r"rho must be a list of numbers, or one of .* got \['a'\]"),
        ({"rho": {"normal": [0, 1]}}, r"rho must be a list .* got {'normal': \[0, 1\]}"),
        ({"rho": {"log2": 3}}, r"rho must be a list of .* got {'log2': 3}"),
        ({"rho": {"uniform": [1, 0]}}, r"rho, uniform, must have two .* got \[1, 0\]"),
        ({"rho": {"uniform": [1]}}, r"rho, uniform, must have two bounds, .* got \[1\]"),
        ('{"rho": {"uniform": [0, NaN]}}', "rho must be a list of numbers, or one of"),
        ({"batch_size": [8, 8.5]}, r"batch_size must be a list of integers; got \[8, 8.5"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        find_space(file_of(tmp_path, content), config(method="sam"))


def test_an_unknown_space_lists_the_known():
    with pytest.raises(
        ValueError, match=r"unknown space 'dombed'; there are: domainbed, sw"
    ):
        find_space("dombed", config())


def test_what_is_drawn_is_a_field_of_the_config():
    owners = (Preset, Hyperparameters)
    names = {field.name for owner in owners for field in dataclasses.fields(owner)}
    assert set(FIELDS) <= names | {"penalty_start"}
