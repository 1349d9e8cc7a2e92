"""The studies of trained models, on made-up runs of which the answers are known."""

import functools
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.studies import NAMES, find_study
from experiments.studies.accuracy import HALF
from experiments.studies.dose.arms import LAMS, LIMIT_NAME
from experiments.studies.flatness import MATCHED, at_loss
from experiments.studies.kit.claims import CANNOT_TELL, NO_DIFFERENCE, OPPOSITE, SEEN
from experiments.studies.kit.run import load_once
from experiments.studies.kit.runs import Setting
from experiments.studies.kit.study import read_numbers, run_study
from experiments.studies.kit.tuning import TUNING_SEEDS
from experiments.studies.prediction import groups as predicted
from experiments.studies.prediction import tau
from experiments.studies.rho import name_of

SEEDS = 3
GAINS = {"erm": 0.0, "sam": 0.02, "disam": 0.021, "sagm": 0.02, "disam+sagm": -0.01}


class MadeUp:
    """Outcomes of runs that nobody trained: every value is a function of the spec."""

    seconds_used, commits_used = 12.0, frozenset({"abc"})
    batches_used, configs_used = {}, frozenset()

    def __init__(self, **changes):
        self.asked, self.changes = [], changes

    def outcomes(self, specs, watch):
        self.asked += specs
        return [self._outcome(spec) for spec in specs]

    def _outcome(self, spec):
        config = spec.config
        sources = [d for d in load_once(config.data).domains if d != config.unseen]
        steps = config.preset.steps
        at = [round(steps * (i + 1) / spec.looks) for i in range(spec.looks)]
        losses = [self._losses(spec, s / max(steps, 1), len(sources)) for s in at]
        return {
            "sources": sources,
            "steps": at,
            "losses": [each.tolist() for each in losses],
            "looks": [
                self._look(spec, step, each) for step, each in zip(at, losses, strict=True)
            ],
            "diverged": None,
        }

    def _losses(self, spec, time, count):
        method, h = spec.config.method, spec.config.hyperparameters
        spread = {"erm": 0.05, "sam": 0.1}.get(method) or 0.1 / (1 + h.lam)
        level = np.exp(-(2.0 if method == "erm" else 1.0) * time)
        return level + spread * np.linspace(-1.0, 1.0, count)

    def _look(self, spec, step, losses):
        config = spec.config
        accuracy = 0.6 + 0.03 * (config.seed % 5) + self._gain(spec)
        if config.seed in TUNING_SEEDS:
            accuracy = 0.5 + 0.1 * (config.preset.learning_rate == 0.01)
        # Twice as sharp as SAM where the loss is the same.
        sharp = losses.mean() * {"erm": 4.0, "sam": 2.0}.get(config.method, 1.0)
        gram = np.eye(len(losses)).tolist()
        base, new = accuracy, 0.2 + self._gain(spec)
        if config.preset.tuning == "zero_shot":
            base = new = 0.3
        halves = {"base": base, "new": new, "harmonic": 2 * base * new / (base + new)}
        halves |= {"averaged_in_domain": accuracy, "averaged_out_of_domain": accuracy}
        halves |= {"averaged_base": base, "averaged_new": new + 0.04}
        halves["averaged_harmonic"] = halves["harmonic"] + 0.04
        return {
            "step": step,
            **{f"{half}_accuracy": share for half, share in halves.items()},
            **{f"{name}_accuracy": accuracy for name in ("in_domain", "out_of_domain")},
            "unseen_concept_accuracy": accuracy,
            "unseen_concept_loss": 1 - accuracy,
            "unseen_gradient_variance": sharp,
            "unseen_sharpness": sharp,
            "unseen_sharpness_10": sharp,
            "unseen_top_eigenvalue": sharp,
            "source_sharpness": [sharp] * len(losses),
            "domain_losses": losses.tolist(),
            "domain_gram": gram,
            "batch_losses": [losses.tolist()] * 2,
            "batch_grams": [gram] * 2,
        }

    def _gain(self, spec):
        h = spec.config.hyperparameters
        gain = GAINS[spec.config.method]
        if spec.config.method == "sam" and h.rho > 0.1:
            gain -= 0.05  # SAM cannot take such a rho
        if spec.config.method == "disam" and h.lam > 1 and not spec.change:
            gain += 0.01  # what the domains are good for, not their penalty
        return gain


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A study by its name, each run once: findings, values, what it asked for, folder."""

    @functools.cache
    def run(name):
        study, store = find_study(name), MadeUp()
        setting = Setting(store, seeds=SEEDS, data=study.data)  # pyright: ignore[reportArgumentType]
        out = tmp_path_factory.mktemp(name)
        findings = run_study(study, setting, out, "python -m ...")
        return findings, read_numbers(out).values, store.asked, out

    return run


def answers(findings, where):
    return {f.claim: f.answer for f in findings if f.where == where}


@pytest.mark.parametrize(
    "name",
    ["accuracy", "dose", "convergence", "flatness", "rho", "prediction", "open_classes"],
)
def test_a_study_leaves_values_figures_and_a_page(run, name):
    findings, _, _, out = run(name)
    page = (out / "page.md").read_text()
    drawn = re.findall(r"\]\((\S+\.png)\)", page)
    assert drawn and {p.name for p in out.glob("*.png")} == set(drawn)
    for finding in findings:
        assert finding.claim in page and "nan" not in finding.because
    listed = json.loads((out / "page.json").read_text())
    assert len(listed["findings"]) == len(findings) > 0
    assert "abc" in page and "nan" not in page


def test_accuracy_is_tested_and_tuned_equally(run):
    findings, values, asked, _ = run("accuracy")
    found = answers(findings, "rotated_digits")
    assert found["SAM is more accurate on unseen domains than ERM"] == SEEN
    # 0.1 points, without any noise: there, but too little to matter.
    assert found["DISAM is more accurate on unseen domains than SAM"] == NO_DIFFERENCE
    assert found["DISAM+SAGM is more accurate on unseen domains than SAGM"] == OPPOSITE
    asked = [s for s in asked if s.config.data == "rotated_digits"]
    reported = [s for s in asked if s.config.seed not in TUNING_SEEDS]
    assert {s.config.seed for s in reported} == set(range(SEEDS))
    assert {s.config.preset.learning_rate for s in reported} == {0.01}
    steps = {(s.config.method, s.config.preset.steps) for s in reported}
    others = {(method, 300) for method in GAINS}
    assert steps == {("erm", 600), *others}
    erm = values.per_seed("rotated_digits", HALF, "unseen_concept_accuracy")
    np.testing.assert_allclose(erm, [0.6, 0.63, 0.66])


def test_convergence_compares_means_over_the_training(run):
    findings, values, _, _ = run("convergence")
    found = answers(findings, "rotated_digits")
    assert found["SAM widens ERM's spread of the domain losses early on"] == SEEN
    assert found["DISAM narrows SAM's spread"] == SEEN
    assert found["DISAM's training loss falls faster than SAM's"] == NO_DIFFERENCE
    assert found["ERM's training loss falls faster than DISAM's"] == SEEN
    told = {f.claim: f.because for f in findings}
    assert told["DISAM narrows SAM's spread"].startswith("ratio 1.100 [1.100, 1.100]")
    # Five domains from -0.1 to 0.1 deviate by 0.1 / sqrt(2).
    spread = values.per_seed("rotated_digits", "SAM", "mean_spread")
    np.testing.assert_allclose(spread, 0.1 / 2**0.5, rtol=1e-5)


def test_flatness_is_a_ratio_at_the_end_and_at_equal_loss(run):
    findings, values, _, _ = run("flatness")
    found = answers(findings, "emoji_styles")
    for what in ("variance of the gradient", "increase of the loss", "top eigenvalue"):
        assert found[f"DISAM is flatter than SAM, by the {what}"] == SEEN
        # At the end ERM's loss is smaller, which makes it 2 / e times as sharp.
        assert found[f"SAM is flatter than ERM, by the {what}"] == OPPOSITE
    assert answers(findings, "emoji_styles, equal training loss").popitem()[1] == SEEN
    ratio = values.per_seed("emoji_styles", MATCHED, "unseen_sharpness") / values.per_seed(
        "emoji_styles", "SAM", "unseen_sharpness"
    )
    np.testing.assert_allclose(ratio, 2.0, rtol=1e-5)
    whose = [f.claim for f in findings if f.whose == "papers"]
    assert set(whose) == {"DISAM is flatter than SAM, by the variance of the gradient"}


def test_a_loss_that_was_never_reached_has_no_match():
    losses = [[1.0, 1.0], [0.5, 0.5]]
    looks = [{"step": 10, "x": 4.0}, {"step": 20, "x": 1.0}]
    outcome = {"steps": [10, 20], "losses": losses, "looks": looks}
    assert at_loss(outcome, "x", 0.5**0.5) == pytest.approx(2.0)
    assert np.isnan([at_loss(outcome, "x", loss) for loss in (0.4, 1.1)]).all()


def test_the_dose_is_an_angle_and_the_placebo_takes_the_domains_away(run):
    findings, values, asked, _ = run("dose")
    # Gradients at right angles: tan(angle) = 2 lam spread, of -0.1 ... 0.1 / (1 + lam).
    for name, (lam, _) in LAMS.items():
        expected = np.degrees(np.arctan(2 * lam * 0.1 / (1 + lam) * (2 / 3) ** 0.5))
        found = values.per_seed("emoji_styles", name, "turn")
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
    assert set(values.per_seed("emoji_styles", LIMIT_NAME, "turn")) == {5.0}
    found = answers(findings, "emoji_styles")
    assert found["DISAM with lam 0.1 is more accurate than SAM"] == NO_DIFFERENCE
    assert found["DISAM with lam 10 is more accurate than SAM"] == SEEN
    placebo = "At lam {} the domains make DISAM more accurate than permuted ones do"
    assert {found[placebo.format(lam)] for lam in (10, 100)} == {SEEN}
    assert found["DISAM is as accurate with lam 1 as with 0.1"] == SEEN
    assert found["DISAM with lam 100 is as accurate as SAM with rho 0.02"] == OPPOSITE
    for where in ("emoji_styles", "emoji_styles, EfficientNet-Lite0"):
        told = answers(findings, f"{where}, turn")
        assert set(told.values()) == {SEEN} and len(told) == 1
    changed = {s.config.hyperparameters.lam for s in asked if s.change}
    assert changed == {10.0, 100.0}


def test_every_rho_is_a_claim_of_its_own(run):
    findings, values, asked, _ = run("rho")
    above = answers(findings, "rotated_digits, DISAM and SAM over rho")
    told = {float(claim.rsplit(" ", 1)[1]): answer for claim, answer in above.items()}
    small = dict.fromkeys((0.01, 0.02, 0.05, 0.1), NO_DIFFERENCE)
    assert told == small | dict.fromkeys((0.2, 0.5), SEEN)
    below = answers(findings, "rotated_digits, ERM and SAM over rho")
    assert list(below.values()) == [OPPOSITE] * 4 + [SEEN] * 2
    assert {s.config.preset.steps for s in asked if s.config.method == "sam"} == {300, 400}
    assert ("rotated_digits", name_of("SAM", 0.5), "out_of_domain_accuracy") in values


def test_tau_is_of_ranks_the_flattest_first():
    def outcome(sharpness, accuracy, diverged=None):
        look = {"sharpness": sharpness, "unseen_concept_accuracy": accuracy}
        return {"looks": [look], "diverged": diverged}

    def read(o):
        return o["looks"][-1]["sharpness"]

    models = [outcome(3.0, 0.1), outcome(2.0, 0.2), outcome(1.0, 0.3)]
    assert tau(models, read) == 1.0
    # One pair of three is ranked the other way: (2 - 1) / 3.
    assert tau([*models[:2], outcome(2.5, 0.3)], read) == pytest.approx(1 / 3)
    assert tau([*models, outcome(0.5, 0.0, diverged=7)], read) == 1.0
    assert tau([outcome(1.0, 0.5)] * 3, read) == 0.0


def test_prediction_takes_each_model_once(run):
    findings, values, _, _ = run("prediction")
    found = predicted(Setting(MadeUp(), data=("emoji_styles",)))  # pyright: ignore[reportArgumentType]
    # 4 of convergence, 4 more of the dose, 10 more of rho and ERM in twice the steps.
    assert len(found) == 4 + 4 + 10 + 1
    assert values.conditions == ["emoji_styles", "rotated_digits", "both data sets"]
    # The loss on the same images is the accuracy itself, in another unit.
    for condition in values.conditions:
        known = values.per_seed(condition, "loss on the same images", "kendall_tau")
        np.testing.assert_allclose(known, 1.0)
    assert len(findings) == 3 * 10


def test_open_classes_weighs_what_tuning_lifts_against_what_it_costs(run):
    findings, values, asked, _ = run("open_classes")
    contrasts = {(f.where, f.claim): f.contrast for f in findings}
    for title, scored in (("CoOp", ""), ("CLIPOOD", ", BMA"), ("LoRA", "")):
        base, new, harmonic = (
            answers(findings, f"emoji_concepts, {title}, {what}")
            for what in ("base classes", "new classes", "harmonic mean")
        )
        assert base[f"{title} lifts base classes above zero-shot"] == SEEN
        assert new[f"{title} costs accuracy on new classes"] == SEEN
        above = f"With {title} SAM is more accurate on new classes than ERM"
        assert new[above] == SEEN
        contrast = contrasts[f"emoji_concepts, {title}, new classes", above]
        assert contrast == f"SAM{scored} \N{MINUS SIGN} ERM, equal steps{scored}"
        same = f"With {title} DISAM is more accurate on new classes than SAM"
        assert new[same] == NO_DIFFERENCE
        assert new["BMA gives back accuracy on new classes (SAM)"] == SEEN
        costs = "BMA costs none on base classes: it is more accurate there too (SAM)"
        assert base[costs] == NO_DIFFERENCE
        assert harmonic["BMA has the better harmonic mean of both (SAM)"] == SEEN
        zero = values.per_seed(f"emoji_concepts, {title}", "zero-shot", "new_accuracy")
        np.testing.assert_allclose(zero, 0.3)
    reported = [s.config for s in asked if s.config.seed not in TUNING_SEEDS]
    steps = {(c.method, c.preset.steps) for c in reported if c.preset.tuning == "lora"}
    assert steps == {("erm", 50), ("erm", 100), ("sam", 50), ("disam", 50)}
    assert {c.preset.steps for c in reported if c.preset.tuning == "zero_shot"} == {0}
    assert {c.preset.open_classes for c in reported} == {0.5}


def test_noise_leaves_the_answer_open():
    from experiments.studies.accuracy import claims
    from experiments.studies.kit.claims import answer_claims
    from experiments.studies.kit.values import Value, Values

    accuracies = {"ERM": (0.6, 0.65, 0.55), "SAM": (0.66, 0.58, 0.62)}
    values = Values(
        Value("data", name, seed, "d", "unseen_concept_accuracy", found)
        for name, seeds in accuracies.items()
        for seed, found in enumerate(seeds)
    )
    assert [f.answer for f in answer_claims(claims(values), values)] == [CANNOT_TELL]


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "experiments.studies.kit.runs.Store", lambda path, jobs: MadeUp(jobs=jobs)
    )
    out = tmp_path / "convergence"
    arguments = ("study", "convergence", "--data", "rotated_digits", "--out", str(out))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    before = (out / "page.md").read_text()
    made = json.loads((out / "numbers.json").read_text())["made"]
    assert made["study"] == "convergence"
    (out / "page.md").unlink()
    again = ("study", "convergence", "--redraw", "--out", str(out))
    result = CliRunner().invoke(app, again)
    assert result.exit_code == 0 and (out / "page.md").read_text() == before
    result = CliRunner().invoke(app, ("report", "--studies", str(tmp_path)))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report.html").exists() and (tmp_path / "report.md").exists()


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match="unknown study 'sweep'; there are: accuracy,"):
        find_study("sweep")
    arguments = ("study", "accuracy", "--data", "pacs")
    with pytest.raises(ValueError, match="unknown data set of the study"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_studies_are_listed():
    result = CliRunner().invoke(app, ("studies",))
    assert [line.split()[0] for line in result.output.splitlines()] == list(NAMES)
