"""The table of methods, methods from elsewhere, and what each looks at."""

import dataclasses
import importlib.metadata
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import disam_jax as dj
from disam_jax import testing
from experiments.config.run import RunConfig, make_config
from experiments.data import load
from experiments.methods import METHODS, Hyperparameters, Method, find_method, registry
from experiments.methods import method as method_module
from experiments.methods.examples import climb_fewer, only_hardest, take
from experiments.models.classifier import make_classifier
from experiments.training.feed import with_steps
from experiments.training.pattern import numbers_of, pattern
from tests.experiments.training.test_step import (
    BATCH,
    CLASSES,
    SGD,
    fresh,
    program,
    take_step,
)
from tests.float32 import assert_close

# Name, gradients of three source domains, and the defaults of what is read. Runs that are
# kept depend on them.
PINNED = """\
erm                   | 1.000 |
sam                   | 2.000 | rho 0.05
asam                  | 2.000 | rho 0.5
gsam                  | 2.000 | rho 0.05, alpha 0.2
sagm                  | 2.000 | rho 0.05, alpha 0.001
disam                 | 2.000 | rho 0.05, lam 0.1, variance uniform
disam+sagm            | 2.000 | rho 0.05, alpha 0.001, lam 0.1, variance uniform
disam+gsam            | 2.000 | rho 0.05, alpha 0.2, lam 0.1, variance uniform
interval_sam          | 1.200 | rho 0.05, period 5
looksam               | 1.200 | rho 0.05, alpha 0.7, period 5
late_sam              | 1.500 | rho 0.05, start 200
rst                   | 1.500 | rho 0.05, probability 0.5
ae_sam                | 1.500 | rho 0.05, threshold 0.0, decay 0.9
part_sam              | 1.250 | rho 0.05, fraction 0.25
ksam                  | 0.833 | rho 0.05, fraction 0.25
momentum_sam          | 1.000 | rho 0.5, decay 0.9
noise_sam             | 1.000 | rho 0.05
dgsam                 | 1.333 | rho 0.05
async_sam             | 2.000 | rho 0.05
sampa                 | 2.000 | rho 0.1, alpha 0.2
adaptive_sam          | 2.000 | rho 0.5
layerwise_sam         | 2.000 | rho 0.05
linf_sam              | 2.000 | rho 0.0001
sam_on                | 2.000 | rho 0.05
unnormalized_sam      | 2.000 | rho 0.05
nuclear_sam           | 2.000 | rho 0.05
spectral_sam          | 2.000 | rho 0.01
le_sam                | 2.000 | rho 0.1, sigma 0.05
fisher_sam            | 2.000 | rho 0.05
zsharp                | 2.000 | rho 0.05
friendly_sam          | 2.000 | rho 0.05, sigma 1.0, decay 0.9
vasso                 | 2.000 | rho 0.05, theta 0.9
gradient_norm_penalty | 2.000 | rho 0.05, alpha 0.8
wsam                  | 2.000 | rho 0.05, gamma 0.9
stable_sam            | 2.000 | rho 0.05
multi_step_sam        | 3.000 | rho 0.05, ascent_steps 2
bilateral_sam         | 3.000 | rho 0.05
cr_sam                | 3.000 | rho 0.05, alpha 0.1
gam                   | 4.000 | rho 0.2, gamma 0.03
tilted_sam            | 6.000 | rho 0.05, tilt 1.0
group_dro             | 1.000 | dro_eta 0.01
sam+group_dro         | 2.000 | rho 0.05, dro_eta 0.01
and_mask              | 1.000 | agreement 1.0
sand_mask             | 1.000 | agreement 0.5
agreement_sum         | 1.000 |
pcgrad                | 1.000 |
gga_l                 | 1.000 | gamma 0.001
fish                  | 1.000 | walk_rate 0.01
pgrad                 | 1.000 | walk_rate 0.01
disam+and_mask        | 3.333 | rho 0.05, agreement 1.0, lam 0.1, variance uniform
genie                 | 1.000 | own_rate 0.015
disam+genie           | 2.000 | rho 0.05, lam 0.1, variance uniform, own_rate 0.015
bsam                  | 2.000 | rho 0.05, num_examples 10000.0, own_rate 0.5
sassha                | 2.100 | rho 0.1, period 10, own_rate 0.15
polyak_sam            | 2.000 | rho 0.05, own_rate 1.0
disam+interval        | 1.200 | rho 0.05, period 5, lam 0.1, variance uniform
disam+looksam         | 1.200 | rho 0.05, alpha 0.7, period 5, lam 0.1, variance uniform
disam+part            | 1.250 | rho 0.05, fraction 0.25, lam 0.1, variance uniform
disam+ksam            | 0.833 | rho 0.05, fraction 0.25, lam 0.1, variance uniform
disam+one_pass        | 1.000 | rho 0.05, lam 0.1, variance uniform
disam+stale           | 1.667 | rho 0.05, lam 0.1, variance uniform
"""

# One of each cost; that of the library's methods is counted in test_testing.py.
COUNTED = (
    "erm", "disam+sagm", "disam+interval", "momentum_sam", "dgsam", "multi_step_sam", "gam",
    "bilateral_sam", "disam+one_pass",
)  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_the_gradients_of_a_budget_are_those_that_are_computed(name):
    method = METHODS[name]
    h = method.defaults
    found = testing.count_evaluations(method.make(h), micro_batches=method.micro_batches)
    assert found == pytest.approx(method.gradients(h, 3))


def test_what_a_method_reads_and_costs_stays():
    found = ""
    for name, method in METHODS.items():
        assert method.description
        values = ", ".join(f"{key} {getattr(method.defaults, key)}" for key in method.reads)
        cost = f"{method.gradients(method.defaults, 3):.3f}"
        found += f"{name:<22}| {cost} | {values}".rstrip() + "\n"
    assert found == PINNED


def test_a_budget_of_gradients_becomes_steps():
    data = load("rotated_digits")

    def steps(name, **overrides):
        config = make_config(
            data="rotated_digits", method=name, unseen=data.domains[0], seed=0,
            overrides=overrides,
        )  # fmt: skip
        return with_steps(config, data, 600).preset.steps

    sources = len(data.domains) - 1
    assert steps("erm") == 600
    assert steps("sam") == steps("disam") == 300
    assert steps("interval_sam", period=10) == round(600 / 1.1)
    assert steps("dgsam") == round(600 / (1 + 1 / sources))
    assert steps("ksam", fraction=0.5) == 450
    with pytest.raises(ValueError, match=r"gradients must be at least 2, one step of sam"):
        with_steps(config_of("sam"), data, 0.5)


def test_a_budget_of_gradients_takes_the_place_of_epochs_and_trains_no_zero_shot():
    """What a run's epochs say, its steps follow from: a record must not say them too."""
    data = load("rotated_digits")
    within = with_steps(config_of("sam", epochs=2.0), data, 600)
    assert (within.preset.steps, within.preset.epochs) == (300, 0.0)
    untrained = make_config(
        data="rotated_digits", method="erm", unseen=data.domains[0], seed=0,
        overrides={"model": "clip", "tuning": "zero_shot", "weights": "F"},
    )  # fmt: skip
    assert with_steps(untrained, data, 600).preset.steps == 0


def test_a_late_ascent_may_start_at_a_share_of_the_run():
    late = config_of("late_sam", start=0.75, steps=40)
    assert late.hyperparameters.start == 0.75
    kept = json.dumps(dataclasses.asdict(config_of("late_sam", start=100.0)))
    assert '"start": 100,' in kept  # a step, as in the runs of before
    tx = METHODS["late_sam"].make(late.hyperparameters, run_steps=4)
    w, norms = jnp.ones(2), []
    state = tx.init(w)
    for _ in range(4):
        _, state = tx.update(None, state, w, loss_fn=lambda w: w @ w, record=True)
        seen, state = dj.pop_evaluation(state)
        norms.append(float(seen.perturbation_norm))
    assert [norm > 0 for norm in norms] == [False, False, False, True]


def config_of(method, **overrides):
    return make_config(
        data="rotated_digits", method=method, unseen="deg0", seed=0, overrides=overrides
    )


LOCAL = '''
import disam_jax as dj
from experiments.methods import Method

def half_way(rho=0.025, tau=1.0):
    """SAM from half the radius."""
    return dj.sam(rho)

MINE = Method(dj.sam, "as SAM", name="mine")
TAKEN = Method(half_way, name="sam")
NEITHER = 3
'''


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere_methods.py").write_text(LOCAL)
    monkeypatch.syspath_prepend(tmp_path)
    yield "elsewhere_methods"
    sys.modules.pop("elsewhere_methods", None)
    find_method.cache_clear()


def test_a_method_is_found_by_its_place(elsewhere):
    mine = find_method(f"{elsewhere}:MINE")
    assert isinstance(mine, Method) and mine.name == "mine"
    config = config_of(f"{elsewhere}:MINE")
    assert isinstance(config, RunConfig) and config.name == "mine/deg0/seed0"


def test_a_function_is_a_method_whose_cost_is_counted(elsewhere):
    found = find_method(f"{elsewhere}:half_way")
    assert (found.name, found.description) == ("half_way", "SAM from half the radius")
    assert (found.reads, found.defaults) == (("rho",), Hyperparameters(rho=0.025))
    assert found.gradients(found.defaults, 3) == 2


def test_a_function_may_look_at_its_numbers(elsewhere):
    """They are constants of its program; those of a Method come as arrays."""
    rhos = [0.1, 0.2]
    alone = [config_of(f"{elsewhere}:half_way", rho=rho) for rho in rhos]
    method = [config_of(f"{elsewhere}:MINE", rho=rho) for rho in rhos]
    assert not any(numbers_of(config).hyperparameters for config in alone)
    assert [pattern(config).hyperparameters.rho for config in alone] == rhos
    assert len(set(map(pattern, method))) == 1


def test_a_cost_is_counted_once_and_only_when_it_is_asked_for(elsewhere, monkeypatch):
    counted = []
    monkeypatch.setattr(
        method_module, "count_evaluations", lambda *a, **k: counted.append(1)
    )
    found = find_method(f"{elsewhere}:half_way")
    assert not counted
    for _ in range(2):
        found.gradients(found.defaults, 3)
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "unknown method 'nothing'; there are: erm, sam"),
        ("no_such_module:MINE", "cannot be loaded: No module named 'no_such_module'"),
        ("elsewhere_methods:NOTHING", "cannot be loaded: .* no attribute 'NOTHING'"),
        ("elsewhere_methods:NEITHER", "is a int"),
        ("elsewhere_methods:TAKEN", "calls itself 'sam'"),
    ],
)
def test_what_cannot_be_found_is_said(elsewhere, name, message):
    del elsewhere
    with pytest.raises(ValueError, match=message):
        find_method(name)


def test_other_packages_announce_theirs(elsewhere, monkeypatch):
    point = importlib.metadata.EntryPoint(
        "mine", f"{elsewhere}:MINE", registry.ENTRY_POINTS
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert find_method("mine").description == "as SAM"
    assert list(registry.known_methods()) == [*METHODS, "mine"]


def test_every_kth_example_is_climbed():
    chosen = climb_fewer(0.25)(BATCH, 2, None)
    assert chosen.descended is BATCH
    np.testing.assert_array_equal(chosen.climbed.images, BATCH.images[::4])
    np.testing.assert_array_equal(chosen.climbed.domains, [0, 1])
    assert chosen.climbed.key is BATCH.key


def test_the_hardest_of_every_domain_are_taken():
    losses = jnp.array([3.0, 1.0, 2.0, 9.0, 5.0, 8.0, 7.0, 6.0])
    domains = jnp.array([0, 0, 0, 1, 1, 1, 1, 1])
    batch = BATCH._replace(domains=domains)
    descended, climbed = only_hardest(0.5)(batch, 2, lambda batch: losses)
    assert climbed is None
    np.testing.assert_array_equal(descended.labels, BATCH.labels[np.array([0, 2, 3, 5])])
    np.testing.assert_array_equal(descended.domains, [0, 0, 1, 1])
    descended, _ = only_hardest(1.0)(batch, 2, lambda batch: losses)  # 4 of the 3
    np.testing.assert_array_equal(descended.domains, [0, 0, 0, -1, 1, 1, 1, 1])


@pytest.mark.parametrize("make", [climb_fewer, only_hardest])
def test_a_fraction_is_one(make):
    with pytest.raises(ValueError, match=r"fraction must lie in \(0, 1\]; got 1.5"):
        make(1.5)


@jax.jit
def mean_loss(params, batch):
    model = make_classifier("patchnet", CLASSES)
    logits, _ = model.apply({"params": params}, batch.images, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)


@pytest.mark.parametrize("name", ["part_sam", "ksam", "dgsam"])
def test_a_step_looks_at_the_examples_that_the_method_says(name):
    """The recorded losses against those of the examples chosen here."""
    own = program(name, SGD)
    params = jax.tree.map(jnp.copy, fresh(own).params)
    rho = METHODS[name].defaults.rho
    _, seen = take_step(own, fresh(own))

    def domains(params, batch):
        return mean_loss(params, batch).reshape(2, -1).mean(1)

    @jax.jit
    def climb(params, batch):
        grad = jax.grad(lambda p: mean_loss(p, batch).mean())(params)
        scale = rho / optax.tree.norm(grad)
        return jax.tree.map(lambda w, g: w + scale * g, params, grad)

    if name == "part_sam":
        there = climb(params, take(BATCH, slice(None, None, 4)))
        expected = domains(there, BATCH)
    elif name == "ksam":
        hard = np.argsort(-np.asarray(mean_loss(params, BATCH)).reshape(2, 4), axis=1)
        chosen = take(BATCH, np.array([hard[0, 0], 4 + hard[1, 0]]))
        expected = domains(climb(params, chosen), chosen)
    else:
        key = jax.random.fold_in(jax.random.key(0), 0)
        first, second = np.asarray(jax.random.permutation(key, 2))
        half = [take(BATCH, np.arange(4) + 4 * i) for i in range(2)]
        there = climb(params, half[first])
        expected = [0.0, 0.0]
        expected[first] = mean_loss(params, half[first]).mean()
        expected[second] = mean_loss(there, half[second]).mean()
    assert_close(seen.perturbed_losses, expected)


@pytest.mark.parametrize("name", ["part_sam", "dgsam"])
def test_a_batch_of_ones_own_is_not_cut_again(name):
    with pytest.raises(ValueError, match=f"{name} takes the batch in its own way"):
        config_of(name, micro_batches=2)


def test_domains_as_micro_batches_need_balance():
    with pytest.raises(ValueError, match="dgsam takes each domain as a micro-batch"):
        config_of("dgsam", batching="merged")


def test_hardest_counts_from_one():
    with pytest.raises(ValueError, match=r"count must be in 1 ... 4, the batch; got 5"):
        dj.hardest(jnp.ones(4), jnp.zeros(4, int), 1, 5)
