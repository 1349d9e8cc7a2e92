import numpy as np
import pytest

from experiments.data import DATASETS
from experiments.studies.kit import tuning
from experiments.studies.kit.matrix import Group
from experiments.studies.kit.runs import Setting, Store
from experiments.studies.kit.tuning import DIALS, TUNING_SEEDS, tune

DOMAINS = ("noto", "twemoji", "fluent", "mono")


@pytest.fixture
def landscape(monkeypatch):
    """In place of trainings, a score that is best at given values; the runs asked for."""
    best, asked = {}, []

    def run_groups(setting, groups):
        found = {}
        for key, group in groups.items():
            domains = group.unseen
            asked.append((group.method, group.overrides, group.first_seed, domains))
            away = sum(
                np.log10(value / best[name]) ** 2
                for name, value in group.overrides
                if name in best
            )
            look = {"in_domain_accuracy": 0.9 - 0.01 * away}
            row = [{"diverged": None, "looks": [look]} for _ in domains]
            found[key] = [row] * group.seeds
        return found

    monkeypatch.setattr(tuning, "run_groups", run_groups)
    return best, asked


@pytest.mark.parametrize("rate", [1e-3, 3e-2])
@pytest.mark.parametrize("rho", [0.0125, 0.4])
def test_the_best_is_found_wherever_it_lies_and_never_at_an_edge(
    landscape, tmp_path, rate, rho
):
    best, asked = landscape
    best |= {"learning_rate": rate, "rho": rho}
    [found] = tune(Setting(Store(tmp_path)), {0: Group("emoji_styles", "sam")}).values()
    chosen = dict(found.overrides)
    for name, _, factor in DIALS["sam"]:  # a step of the search, at most half of one off
        assert abs(np.log(chosen[name] / best[name])) <= np.log(factor) / 2 + 0.02
    tried = {overrides for _, overrides, _, _ in asked}
    assert found.inside and found.trials == len(tried)
    for name, value in chosen.items():
        values = [dict(overrides)[name] for overrides in tried]
        assert min(values) < value < max(values)


def test_every_trial_leaves_every_domain_out_once_on_seeds_that_are_not_reported(
    landscape, tmp_path
):
    _, asked = landscape
    groups = {0: Group("emoji_styles", "erm"), 1: Group("emoji_styles", "disam")}
    tune(Setting(Store(tmp_path)), groups)
    trials = {}
    for method, overrides, seed, domains in asked:
        trials.setdefault((method, overrides), []).append((seed, domains))
    for runs in trials.values():
        assert sorted(d for _, domains in runs for d in domains) == sorted(DOMAINS)
        assert [seed for seed, _ in runs] == list(TUNING_SEEDS)
    assert min(TUNING_SEEDS) >= 1000 and "emoji_styles" in DATASETS


def test_a_search_that_never_ends_says_so(landscape, tmp_path):
    best, _ = landscape
    best["learning_rate"] = 1e6
    [found] = tune(Setting(Store(tmp_path)), {0: Group("emoji_styles", "erm")}).values()
    assert not found.inside
