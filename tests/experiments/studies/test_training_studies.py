"""The studies of trained models, on made-up runs of which the answers are known."""

import dataclasses
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.results.statistics import CANNOT_TELL, DOES_NOT, HOLDS
from experiments.studies import NAMES, find_study
from experiments.studies.kit.probes import SURFACE_AXIS
from experiments.studies.kit.run import load_once
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import read_numbers, run_study
from experiments.studies.kit.tuning import DIALS, TUNING_SEED, trials

SEEDS = 3
GAINS = {"erm": 0.0, "sam": 0.02, "disam": 0.021, "sagm": 0.02, "disam+sagm": -0.01}


class MadeUp:
    """Outcomes of runs that nobody trained: every value is a function of the spec."""

    seconds_used, commits_used, batches_used = 12.0, frozenset({"abc"}), {}

    def __init__(self, **changes):
        self.asked, self.changes = [], changes

    def outcomes(self, specs, watch):
        self.asked += specs
        return [self._outcome(spec) for spec in specs]

    def _outcome(self, spec):
        config = spec.config
        h, method = config.hyperparameters, config.method
        # A seed moves all methods alike, so that paired differences have no noise.
        accuracy = 0.6 + 0.03 * config.seed + GAINS.get(method, 0.0)
        if method == "sam" and h.rho > 0.1:
            accuracy -= 0.05  # SAM's largest usable rho is 0.1
        if config.seed == TUNING_SEED:
            accuracy = 0.5 + 0.1 * (config.preset.learning_rate == 1e-2)
        sources = load_once(config.data, options=spec.data_options).domains
        count = len(sources) - 1
        spread = {"erm": 0.1, "sam": 0.2}.get(method, 0.2 / (1 + h.lam))
        level = {"erm": 0.5, "sam": 1.0}.get(method, 1.0)
        losses = level + spread * np.linspace(-1.0, 1.0, count)
        steps = config.preset.steps
        flat = {"erm": 4.0, "sam": 2.0}.get(method, 1.0)
        look = {
            "in_domain_accuracy": accuracy,
            "out_of_domain_accuracy": accuracy,
            "unseen_gradient_variance": flat,
            "unseen_sharpness": flat,
            "unseen_sharpness_10": flat,
            "unseen_top_eigenvalue": flat,
            "source_sharpness": [flat] * count,
            "surface": (flat * np.add.outer(SURFACE_AXIS**2, SURFACE_AXIS**2)).tolist(),
        }
        return {
            "sources": [d for d in sources if d != config.unseen],
            "steps": [10, 20, 30, 40],
            "losses": [losses.tolist()] * 4,
            "looks": [
                {"step": round(steps * (i + 1) / spec.looks), **look}
                for i in range(spec.looks)
            ],
            "diverged": None,
        }


@pytest.fixture
def run(tmp_path):
    def run(name, data=None):
        study = find_study(name)
        store = MadeUp()
        setting = Setting(store, seeds=SEEDS, data=data or study.data)
        findings = run_study(study, setting, tmp_path / name, "python -m ...")
        return findings, read_numbers(tmp_path / name)[1], store, tmp_path / name

    return run


def answers(findings, where):
    return {f.claim: f.answer for f in findings if f.where.startswith(where)}


@pytest.mark.parametrize(
    "name",
    ["accuracy", "convergence", "sweeps", "flatness", "domain_labels", "readings"],
)
def test_a_study_leaves_numbers_figures_and_a_page(run, name):
    findings, _, _, out = run(name, ("rotated_digits", "colored_digits"))
    page = (out / "page.md").read_text()
    drawn = re.findall(r"\]\((\S+\.png)\)", page)
    assert drawn and {p.name for p in out.glob("*.png")} == set(drawn)
    for finding in findings:
        assert finding.claim in page and "nan" not in finding.because
    listed = json.loads((out / "page.json").read_text())
    assert len(listed["findings"]) == len(findings) > 0
    assert "abc" in page


def test_accuracy_is_tested_and_tuned_equally(run):
    findings, numbers, store, _ = run("accuracy", ("colored_digits",))
    found = answers(findings, "colored_digits, equal cost")
    assert found["SAM is more accurate on unseen domains than ERM"] == HOLDS
    # 0.1 points, without any noise: there, but too little to matter.
    assert found["DISAM is more accurate on unseen domains than SAM"] == DOES_NOT
    assert found["SAGM is more accurate on unseen domains than SAM"] == DOES_NOT
    assert found["DISAM+SAGM is more accurate on unseen domains than SAGM"] == DOES_NOT
    first = findings[0].because
    assert first.startswith("+2.00 points [+2.00, +2.00], p < 0.001")
    for method, values in numbers["colored_digits"]["equal cost, tuned"].items():
        assert values["chosen"]["learning_rate"] == 1e-2, method
        expected = [0.6 + 0.03 * seed + GAINS[method] for seed in range(SEEDS)]
        np.testing.assert_allclose(values["out_of_domain"], expected)
    reported = {s.config.seed for s in store.asked} - {TUNING_SEED}
    assert reported == set(range(SEEDS))
    steps = {s.config.method: s.config.preset.steps for s in store.asked if s.looks == 1}
    assert steps == dict.fromkeys(GAINS, 200) | {"erm": 400}
    as_printed = numbers["colored_digits"]["equal steps, untuned"]
    assert {name: values["steps"] for name, values in as_printed.items()} == {
        "erm": 200,
        "sam": 200,
        "disam": 200,
    }
    where = {f.where for f in findings if "ERM" in f.claim}
    assert where == {
        "colored_digits, equal cost, tuned",
        "colored_digits, equal steps, untuned",
    }


def test_every_method_has_as_many_trials():
    assert {len(set(trials(method))) for method in DIALS} == {8}


def test_convergence_compares_means_over_the_training(run):
    findings, numbers, _, _ = run("convergence", ("rotated_digits",))
    found = answers(findings, "rotated_digits")
    assert found["SAM widens the spread of the domain losses early on"] == HOLDS
    assert found["DISAM narrows SAM's spread"] == HOLDS
    assert found["DISAM's training loss falls faster than SAM's"] == DOES_NOT
    assert found["ERM's training loss falls faster than DISAM's"] == HOLDS
    told = {f.claim: f.because for f in findings}
    # Five domains from -0.2 to 0.2 deviate by 0.2 / sqrt(2); the ratio is 1 + lam.
    assert told["DISAM narrows SAM's spread"].startswith("SAM / DISAM = 1.100 [1.100,")
    spread = numbers["rotated_digits"]["SAM"]["spread"]
    np.testing.assert_allclose(spread, 0.2 / 2**0.5, rtol=1e-3)


def test_sweeps_find_the_largest_usable_rho(run):
    findings, numbers, _, _ = run("sweeps", ("colored_digits",))
    found = answers(findings, "colored_digits")
    told = {f.claim: f.because for f in findings}
    claim = "DISAM's largest usable rho is larger than SAM's"
    assert found[claim] == HOLDS and told[claim].startswith("median 0.5 against 0.1;")
    assert found["SAM is below ERM at every rho"] == DOES_NOT
    assert found["DISAM's accuracy is stable for lam in [0.1, 0.7]"] == HOLDS
    assert found["DISAM is above SAM over a wide range of rho"] == HOLDS
    shares = {
        point["lam"]: point["negative"]
        for point in numbers["colored_digits"]
        if point["method"] == "disam"
    }
    # beta_i = 1/2 - lam (L_i - mean) with L_i - mean = 0.2 / (1 + lam): never negative.
    assert set(shares.values()) == {0.0}


def test_negative_weights_are_counted():
    from experiments.studies.sweeps import _negative

    # beta_1 = 1/2 - lam * 0.1 turns negative beyond lam = 5.
    losses = [[1.1, 0.9], [1.0, 1.0]]
    assert [_negative(losses, lam) for lam in (4.9, 5.1)] == [0.0, 0.5]


def test_flatness_is_a_ratio_at_the_end(run):
    findings, _, store, _ = run("flatness", ("colored_digits",))
    found = answers(findings, "colored_digits")
    for measure in ("variance of the gradient", "loss increase", "random surface"):
        for pair in (("DISAM", "SAM"), ("SAM", "ERM"), ("DISAM", "ERM")):
            claim = f"{pair[0]} is flatter on the unseen domain than {pair[1]}, by the "
            assert found[claim + measure] == HOLDS
    assert "SAM / DISAM = 2.000 [2.000, 2.000]" in findings[0].because
    surfaces = [s for s in store.asked if s.probes == ("surface",)]
    assert {s.config.unseen for s in surfaces} == {"-90%"}


def test_domain_labels_changes_what_is_trained_on(run):
    findings, _, store, _ = run("domain_labels", ("rotated_digits",))
    assert {f.because[:13] for f in findings} == {"+0.10 points "}
    assert {f.answer for f in findings} == {DOES_NOT}
    assert len(findings) == 6 + 3 + 4
    merged = [s for s in store.asked if s.config.preset.batching == "merged"]
    assert {s.config.preset.batch_size for s in merged} == {32 * 5}
    counts = [s for s in store.asked if s.data_options]
    assert {s.config.unseen for s in counts} == {"90"}
    sizes = {
        len(dict(s.data_options)["angles"]) - 1: s.config.preset.batch_size for s in counts
    }
    assert sizes == {2: 80, 4: 40, 8: 20, 20: 8}


def test_readings_are_three_methods(run):
    findings, _, store, _ = run("readings", ("colored_digits",))
    methods = {s.config.method.rpartition(":")[2] for s in store.asked}
    assert methods == {"disam", "disam+sagm", "PURE", "CLOSURE"}
    equal = {f.claim: f.answer for f in findings}
    assert equal["At lam 10, 'count_weighted' and 'uniform' are equally accurate"] == HOLDS
    assert equal["At lam 10, 'listing' and 'pure' are equally accurate"] == DOES_NOT


def test_a_backbone_is_fine_tuned(run):
    findings, numbers, store, out = run("pretrained")
    presets = {s.config.preset.model: s.config.preset for s in store.asked}
    assert set(presets) == {"efficientnet_lite0"}
    assert presets["efficientnet_lite0"].weights == "package"
    at_equal_cost = [s for s in store.asked if s.probes == ("scores",)]
    steps = {s.config.method: s.config.preset.steps for s in at_equal_cost}
    assert steps == dict.fromkeys(GAINS, 40) | {"erm": 80}
    after_equal_steps = [s for s in store.asked if "unseen_flatness" in s.probes]
    assert {s.config.preset.steps for s in after_equal_steps} == {40}
    assert findings[0].answer == HOLDS
    (settings,) = numbers["accuracy"].values()
    for methods in settings.values():
        assert methods["erm"]["chosen"]["learning_rate"] == 3e-4  # the first of equal ones
    found = answers(findings, "emoji_styles, EfficientNet-Lite0")
    assert found["DISAM narrows SAM's spread"] == HOLDS
    claim = "SAM is flatter on the unseen domain than ERM, by the loss increase"
    assert found[claim] == HOLDS
    assert not any("surface" in claim for claim in found)
    drawn = re.findall(r"\]\((\S+\.png)\)", (out / "page.md").read_text())
    assert {p.name for p in out.glob("*.png")} == set(drawn)


def test_noise_leaves_the_answer_open():
    from experiments.studies.accuracy import find

    values = {method: {"out_of_domain": [0.6, 0.65, 0.55]} for method in GAINS}
    values["sam"] = {"out_of_domain": [0.66, 0.58, 0.62]}
    assert find({"data": {"tuned": values}})[0].answer == CANNOT_TELL


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "experiments.studies.kit.runs.Store", lambda path, jobs: MadeUp(jobs=jobs)
    )
    out = tmp_path / "readings"
    arguments = ("study", "readings", "--data", "colored_digits", "--out", str(out))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    before = (out / "page.md").read_text()
    made = json.loads((out / "numbers.json").read_text())["made"]
    assert dataclasses.asdict(find_study("readings"))["name"] == made["study"]
    (out / "page.md").unlink()
    result = CliRunner().invoke(app, ("study", "readings", "--redraw", "--out", str(out)))
    assert result.exit_code == 0 and (out / "page.md").read_text() == before
    result = CliRunner().invoke(app, ("report", "--studies", str(tmp_path)))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report.html").exists() and (tmp_path / "report.md").exists()


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match="unknown study 'sweep'; there are: accuracy,"):
        find_study("sweep")
    with pytest.raises(ValueError, match="unknown data set 'pacs'"):
        CliRunner().invoke(app, ("study", "toy", "--data", "pacs"), catch_exceptions=False)


def test_studies_are_listed():
    result = CliRunner().invoke(app, ("studies",))
    assert [line.split()[0] for line in result.output.splitlines()] == list(NAMES)
