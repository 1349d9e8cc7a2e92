import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import disam_jax as dj
from experiments.studies.kit.claims import CANNOT_TELL, NO_DIFFERENCE, OPPOSITE, SEEN
from experiments.studies.kit.runs import Setting, Store
from experiments.studies.kit.study import read_numbers, run_study
from experiments.studies.kit.values import Value, Values
from experiments.studies.synthetic import study as synthetic
from experiments.studies.synthetic.findings import (
    CLOSELY,
    DISAM,
    EVERYWHERE,
    FAMILY,
    LARGE_AS_SAM,
    LARGE_DISAM,
    SAM,
    cell_of,
    claims,
    dials_in_words,
)
from experiments.studies.synthetic.problem import (
    BEST,
    DIMENSIONS,
    EXAMPLES,
    MOST_DOMAINS,
    SIGMA,
    SIGNAL,
    SPURIOUS,
    Dials,
    draw_problem,
    name_of,
    new_domain_error,
    sizes,
    source_errors,
)
from experiments.studies.synthetic.training import (
    FIRST_TUNING_SEED,
    Lab,
    Trial,
    ascending,
    not_ascending,
    train,
)
from tests.float32 import BOUND, assert_close


def draw(seed=0, gradients=20, **dials):
    return draw_problem(Dials(**dials), seed, gradients)


# The problem.


def test_no_predictor_errs_less_than_the_best_one():
    w = np.zeros(DIMENSIONS)
    w[0] = 3.0
    for gap in (0.0, 2.0):
        assert_allclose(new_domain_error(w, gap), BEST, atol=1e-7)
    assert_allclose(BEST, 0.0668072, atol=1e-7)
    for j in (1, 5, 40):
        assert new_domain_error(w + 0.5 * np.eye(DIMENSIONS)[j], 1.0) > BEST + 1e-5


def test_error_on_a_new_domain_against_drawn_ones():
    rng, count, gap = np.random.default_rng(0), 200_000, 1.3
    w = rng.normal(size=DIMENSIONS) / SIGMA
    w[:3] = 3.0, 2.0, -1.5
    y = np.where(rng.random(count) < 0.5, 1.0, -1.0)
    x = SIGMA * rng.normal(size=(count, DIMENSIONS))
    x[:, 0] += SIGNAL * y
    x[:, 1:3] += y[:, None] * gap * rng.normal(size=(count, SPURIOUS))
    errors = y * (x @ w) < 0
    # Four standard errors.
    assert_allclose(new_domain_error(w, gap), errors.mean(), atol=4 * 0.5 / count**0.5)


def test_errors_on_the_sources_against_their_own_examples():
    w = np.random.default_rng(1).normal(size=DIMENSIONS) / SIGMA
    w[:3] = 3.0, 2.0, -1.5
    dials = {"gap": 1.3, "contrast": 4.0, "noise": 0.1, "extra_noise": 0.3}
    problem = draw(**dials)
    rng, count = np.random.default_rng(2), 100_000
    for m in range(4):
        y = np.where(rng.random(count) < 0.5, 1.0, -1.0)
        x = SIGMA * rng.normal(size=(count, DIMENSIONS))
        x[:, 0] += SIGNAL * y
        x[:, 1:3] += y[:, None] * problem.shifts[m]
        x *= 4.0 ** (-m / 3)
        labels = np.where(rng.random(count) < (0.4, 0.1, 0.1, 0.1)[m], -y, y)
        found = np.mean(labels * (x @ w) < 0)
        assert_allclose(source_errors(w, problem)[m], found, atol=4 * 0.5 / count**0.5)


@pytest.mark.parametrize("w", [np.zeros(DIMENSIONS), np.full(DIMENSIONS, np.nan)])
def test_a_network_that_is_nothing_guesses(w):
    assert new_domain_error(w, 1.0) == 0.5
    assert_allclose(source_errors(w, draw())[:4], 0.5, rtol=1e-6)


def test_sizes():
    assert_array_equal(sizes(4, 1.0), [40, 40, 40, 40])
    assert_array_equal(sizes(4, 27.0), [108, 36, 12, 4])
    assert_array_equal(sizes(3, 1.0), [54, 53, 53])
    assert_array_equal(sizes(1, 9.0), [EXAMPLES])
    for domains, imbalance in ((20, 1.0), (4, 64.0), (2, 16.0)):
        assert sizes(domains, imbalance).sum() == EXAMPLES


def test_dials_of_the_examples():
    plain, turned = draw(), draw(imbalance=27.0, contrast=8.0, noise=0.2, extra_noise=0.3)
    assert_array_equal(np.bincount(turned.domains), [108, 36, 12, 4])
    assert_allclose(turned.shares, np.pad([0.675, 0.225, 0.075, 0.025], (0, 16)), rtol=1e-6)
    assert_allclose(turned.flips, np.pad([0.5, 0.2, 0.2, 0.2], (0, 16)), rtol=1e-6)
    # The last four examples: of the same domain in both.
    assert_allclose(turned.features[-4:] * 8, plain.features[-4:], rtol=1e-5)
    assert_allclose(turned.features[:40], plain.features[:40])


def test_dials_of_the_shifts_and_of_the_number_of_domains():
    near, far, many = draw(gap=1.0), draw(gap=3.0), draw(domains=20)
    assert_allclose(far.shifts, 3 * near.shifts, rtol=1e-6)
    moved = far.features - near.features
    y = draw(noise=0.0).labels
    expected = 2 * y[:, None] * near.shifts[near.domains]
    assert_allclose(moved[:, 1:3], expected, atol=1e-5)
    assert_allclose(np.delete(moved, [1, 2], axis=1), 0.0)
    assert_array_equal(many.domains, np.repeat(np.arange(20), 8))
    assert many.shares.shape == near.shares.shape == (MOST_DOMAINS,)


def test_noise_turns_labels_around():
    clean, noisy, odd = draw(noise=0.0), draw(noise=0.3), draw(noise=0.0, extra_noise=1.0)
    assert_array_equal(np.unique(clean.labels), [-1.0, 1.0])
    share = np.mean(
        [np.mean(draw(s).labels != draw(s, noise=0.0).labels) for s in range(50)]
    )
    assert_allclose(share, 0.1, atol=4 * (0.1 * 0.9 / (50 * EXAMPLES)) ** 0.5)
    # Those of little noise are among those of more.
    turned = clean.labels != draw(noise=0.1).labels
    assert ((clean.labels != noisy.labels) >= turned).all()
    assert_array_equal(odd.labels, np.where(odd.domains == 0, -1, 1) * clean.labels)


def test_names_of_settings():
    assert name_of("gap", 3.0) == "gap 3"
    assert name_of("domains", 4) == "default"
    assert dials_in_words("extra_noise 0.35") == "35 % more wrong labels in one domain"
    assert dials_in_words("default") == "the default dials"
    assert cell_of("L-V", "L", 0.3) == "climb L - 0.3 V, descend L"
    assert cell_of("none", "L+V", 2.0) == "descend L + 2 V"


# Training.


@functools.cache
def alone(make, steps):
    return jax.jit(functools.partial(train, make, steps))


LIBRARY = {
    "erm": (not_ascending, Trial(0.1, 0.2, 0.0, 0.0), dj.erm()),
    "vrex": (not_ascending, Trial(0.1, 0.2, 0.0, 2.0), dj.erm(descent=dj.vrex(2.0))),
    "sam": (ascending, Trial(0.1, 0.2, 0.0, 0.0), dj.sam(0.2)),
    "disam": (ascending, Trial(0.1, 0.2, -2.0, 0.0), dj.disam(0.2, 2.0)),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_two_numbers_make_the_library_s_methods(x64, name):
    make, trial, of_library = LIBRARY[name]
    w, centers = jnp.array([0.3, -0.2]), jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]])

    def gradient(tx):
        shares, losses = jnp.array([0.5, 0.2, 0.3]), lambda w: ((w - centers) ** 2).sum(1)
        return tx.update(None, tx.init(w), w, loss_fn=losses, domain_weights=shares)[0]

    assert_allclose(gradient(make(trial)), gradient(of_library), rtol=1e-12)


def test_a_step_by_hand():
    problem, rate = draw(), 0.1
    # All batches but the first hold one example without features: nothing moves there.
    features, batches = problem.features.copy(), np.zeros_like(problem.batches)
    features[0], batches[0] = 0.0, problem.batches[0]
    x, y = features[batches[0]], problem.labels[batches[0]]

    def loss(network):
        hidden, output = network
        return jnp.mean(jnp.log1p(jnp.exp(-y * (x @ hidden @ output))))

    start = (problem.hidden, problem.output)
    found = alone(not_ascending, 20)(
        problem._replace(features=features, batches=batches), Trial(rate, 0.0, 0.0, 0.0)
    )
    expected = jax.tree.map(lambda w, g: w - rate * g, start, jax.grad(loss)(start))
    assert_close(tuple(found.network), expected)


def test_every_method_takes_as_many_gradients():
    lab = Lab(Dials(), seeds=1, gradients=100)
    assert lab.reported.batches.shape == (1, 100, 32)
    for name in ("vrex", "disam 2"):
        method = synthetic.METHODS[name]
        make, steps = lab.steps_of(method.ascends)
        assert steps * evaluations(make(method.trials[0])) == 100


def evaluations(tx):
    calls, w = [], jnp.ones(2)

    def loss_fn(w):
        calls.append(w)
        return w**2

    tx.update(None, tx.init(w), w, loss_fn=loss_fn)
    return len(calls)


def test_every_method_has_as_many_trials():
    methods = (*synthetic.METHODS.values(), *synthetic.UNNAMED.values())
    assert {len(set(method.trials)) for method in methods} == {16}


def test_tuning_looks_at_other_problems_and_at_the_sources_alone():
    lab = Lab(Dials(), seeds=2, gradients=20, tunings=2)
    others = [draw_problem(Dials(), FIRST_TUNING_SEED + i, 20) for i in range(4)]
    assert_array_equal(lab.tuned_on.features, [p.features for p in others])
    trials = synthetic.METHODS["vrex"].trials
    chosen = lab.tune(synthetic.METHODS["vrex"])
    run = alone(not_ascending, 20)
    for seed, own in enumerate((others[:2], others[2:])):
        errors = [sum(float(run(p, trial).source_error) for p in own) for trial in trials]
        assert chosen[seed] == trials[int(np.argmin(errors))]


def test_a_run_of_many_is_the_run_alone():
    lab, trials = Lab(Dials(), seeds=2, gradients=20), [Trial(0.02, 0.0, 0.0, 2.0)] * 2
    together, single = (
        lab.run(False, trials),
        alone(not_ascending, 20)(draw(1, gradients=20), trials[1]),
    )
    assert_close(together.spread[1], single.spread)
    assert_allclose(together.excess[1], single.excess, atol=BOUND)


# The study.


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    tiny = functools.partial(
        synthetic.measure_all,
        2,
        gradients=20,
        sweeps={dial: values[-1:] for dial, values in synthetic.SWEEPS.items()}
        | {"gap": (0.0, 1.0, 3.0)},
        closer=("default", "gap 3"),
        lams=(0.1, 0.3, 0.7, 2.0),
    )
    study = dataclasses.replace(synthetic.STUDY, measure=lambda setting: tiny())
    findings = run_study(study, Setting(Store(out / "runs")), out, "the command")
    return out, findings


@pytest.mark.slow
def test_the_page_and_its_figures(page):
    out, findings = page
    text = (out / "page.md").read_text()
    for name in ("dials", "against_sam", "parts"):
        assert (out / f"{name}.png").stat().st_size > 10_000
        assert f"({name}.png)" in text
    assert "the command" in text
    assert all(finding.claim in text for finding in findings)


@pytest.mark.slow
def test_every_setting_has_its_values_and_the_pool_their_means(page):
    values = read_numbers(page[0]).values
    settings = [dials_in_words(name) for name in (
        "default", "gap 0", "gap 3", "contrast 8", "extra_noise 0.35", "noise 0.3",
        "imbalance 64", "domains 20",
    )]  # fmt: skip
    assert set(values.conditions) == {*settings, EVERYWHERE, CLOSELY}
    for method in (SAM, DISAM, LARGE_DISAM, LARGE_AS_SAM):
        for measure, mean in (("excess_error", np.mean), ("training_spread", geometric)):
            of_settings = [values.per_seed(s, method, measure) for s in settings]
            pooled = values.per_seed(EVERYWHERE, method, measure)
            assert pooled.shape == (2,)
            assert_allclose(pooled, mean(of_settings, axis=0), rtol=1e-4)
    assert (EVERYWHERE, cell_of("none", "L-V", 2), "excess_error") not in values
    assert (CLOSELY, cell_of("none", "L-V", 2), "excess_error") in values


def geometric(found, axis):
    return np.exp(np.mean(np.log(found), axis=axis))


def test_all_claims_are_one_family_and_answered_by_the_common_rule():
    gap, noise = dials_in_words("gap 3"), dials_in_words("extra_noise 0.35")
    rng = np.random.default_rng(0)
    base, unit = 0.1 + 0.02 * rng.normal(size=40), rng.normal(size=40)
    unit = (unit - unit.mean()) / unit.std(ddof=1)
    points = {  # by how much fewer than SAM, and its standard error
        (gap, LARGE_AS_SAM): (-0.52, 0.13),
        (noise, LARGE_DISAM): (0.33, 0.162),  # [+0.00, +0.66], p = 0.048
        (noise, LARGE_AS_SAM): (0.51, 0.11),
        (dials_in_words("default"), DISAM): (0.02, 0.01),
    }
    values = []
    for (condition, method), (mean, error) in points.items():
        fewer = (mean + error * 40**0.5 * unit) / 100
        for name, errors in ((SAM, base), (method, base - fewer)):
            values += [
                Value(condition, name, seed, "", "excess_error", float(x))
                for seed, x in enumerate(errors)
            ]
    found = Values(values)
    assert {claim.family for claim in claims(found)} == {FAMILY}
    answers = {
        (f.where, f.claim.rpartition(", ")[2]): f.answer
        for f in synthetic.STUDY.find(found)
    }
    assert answers == {
        (gap, "with SAM's learning rate and rho"): OPPOSITE,
        (noise, "both tuned"): CANNOT_TELL,  # nominally "seen": of four claims it is not
        (noise, "with SAM's learning rate and rho"): SEEN,
        (dials_in_words("default"), "lam = 0.1"): NO_DIFFERENCE,
    }
