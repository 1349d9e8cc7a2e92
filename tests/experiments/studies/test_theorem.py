import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import disam_jax as dj
from experiments.studies.kit.claims import CANNOT_TELL, OPPOSITE, SEEN
from experiments.studies.kit.runs import Setting, Store
from experiments.studies.kit.study import run_study
from experiments.studies.kit.trajectories import follow, lowest_within, top_eigenvalue
from experiments.studies.kit.values import Value, Values
from experiments.studies.theorem.findings import DISAM, NEAR, SAM, TITLES
from experiments.studies.theorem.problems import (
    CLASSES,
    PIXELS,
    digits_network,
    least_curvature,
    lowest_loss,
    network_loss,
    quadratics,
    shift_of_minimum,
)
from experiments.studies.theorem.study import (
    STUDY,
    correlation,
    last_slope,
    last_tenth,
    log_slope,
    measure_all,
    running_mean,
    share_of,
    spaced,
    theorem_rate,
)

RHO, LAMS, STEPS = 0.2, (0.0, 0.5), 1000
SINGLE = quadratics(2)
KNOWN = SINGLE._replace(  # in float64, as the loops here
    problem=SINGLE.problem._replace(
        batch=jax.tree.map(np.float64, SINGLE.problem.batch),
        start=np.float64(SINGLE.problem.start),
        first_step=np.float64(SINGLE.problem.first_step),
    )
)


@pytest.fixture(scope="module")
def trace():
    """Of SAM and DISAM; w is kept after 5 steps, 10 steps, and so on."""
    with jax.enable_x64(True):
        return follow(KNOWN.problem, RHO, LAMS, STEPS, parts=STEPS // 5)


def by_hand(seed, w):
    """Losses [M] and gradients [M, P]."""
    hessians, centers = (x[seed] for x in KNOWN.problem.batch)
    gradients = np.array([a @ (w - c) for a, c in zip(hessians, centers, strict=True)])
    losses = [g @ (w - c) / 2 for g, c in zip(gradients, centers, strict=True)]
    return np.array(losses), gradients


def betas(losses, lam):
    return 1 / len(losses) - 2 * lam / len(losses) * (losses - losses.mean())


def unit(x):
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("run", [0, 1])
def test_every_step_against_a_loop(run, trace):
    lam, seed = LAMS[run], 1
    w = KNOWN.problem.start[seed]
    for t in range(5):
        losses, gradients = by_hand(seed, w)
        beta = betas(losses, lam)
        eps = RHO * unit(beta @ gradients)
        there, at_ascended = by_hand(seed, w + eps)
        descended = at_ascended.mean(0)
        eta = KNOWN.problem.first_step[seed] / np.sqrt(t + 1)
        w = w - eta * descended
        next_losses, next_gradients = by_hand(seed, w)
        next_eps = RHO * unit(betas(next_losses, lam) @ next_gradients)
        g = beta @ gradients
        expected = {
            "angles": np.arccos(unit(eps) @ unit(next_eps)),
            "losses": losses,
            "norms": np.linalg.norm(gradients, axis=1),
            "gradient": np.linalg.norm(gradients.mean(0)),
            "ascended": np.linalg.norm(descended),
            "ascended_loss": there.mean(),
            "cosine": unit(descended) @ unit(next_eps - eps),
            "turn": (betas(next_losses, lam) - beta) @ (gradients @ g) / (g @ g),
        }
        for name, value in expected.items():
            found = getattr(trace, name)[run, seed, t]
            np.testing.assert_allclose(
                found, value, rtol=1e-9, atol=1e-9, err_msg=f"{name} at step {t}"
            )
    np.testing.assert_allclose(trace.visited[run, seed, 0], w, rtol=1e-9)


def test_the_proof_that_the_bound_fails(x64):
    """|grad L(w + eps)| >= |grad L(w)| + rho lambda_min(H), on a thousand quadratics."""
    rng = np.random.default_rng(0)
    method = dj.sam(RHO)

    def at_ascended(w, hessian):
        evaluate = dj.value_and_grad(lambda w: w @ hessian @ w / 2, method)
        return evaluate(w, method.init(w))[0][1]

    for size in (1, 2, 7):
        axes = np.linalg.qr(rng.normal(size=(1000, size, size)))[0]
        eigenvalues = 10 ** rng.uniform(-3, 3, (1000, size))
        hessians = np.einsum("nij,nj,nkj->nik", axes, eigenvalues, axes)
        w = rng.normal(size=(1000, size)) * 10 ** rng.uniform(-6, 3, (1000, 1))
        found = np.linalg.norm(jax.vmap(at_ascended)(w, hessians), axis=1)
        norms = np.linalg.norm(np.einsum("nij,nj->ni", hessians, w), axis=1)
        least = norms + RHO * eigenvalues.min(1)
        assert (found >= least * (1 - 1e-9)).all()
        if size == 1:  # L (|w| + rho)
            expected = eigenvalues[:, 0] * (abs(w[:, 0]) + RHO)
            np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_sam_stays_above_what_the_right_side_falls_below(trace):
    floor = RHO * least_curvature(KNOWN)
    assert (trace.ascended[0] > floor[:, None]).all()
    # Of the right side: G and L(w_1 + eps_1) are those of the run, Gamma = L.
    smooth, eta = KNOWN.smoothness, KNOWN.problem.first_step
    first = (trace.ascended_loss[0, :, 0] - lowest_loss(KNOWN)) / eta
    noise = (smooth * trace.ascended[0].max(1) ** 2 + RHO**2 * smooth**3) * eta
    logs = np.log(10.0) * np.arange(0, 30)  # of T
    right = (first[:, None] + noise[:, None] * (1 + logs)) * np.exp(-logs / 2)
    assert (right[:, 0] > floor**2).all() and (right[:, -1] < floor**2).all()


def test_what_a_lower_bound_of_the_smoothness_decides():
    def answers(name, bounds):
        values = [
            Value(TITLES[name], method, seed, "", measure, bound)
            for method in (SAM, DISAM)
            for measure in ("bound_over_angle", "least_bound_over_angle")
            for seed, bound in enumerate(bounds)
        ]
        return {finding.answer for finding in STUDY.find(Values(values))}

    enough, too_little = [1.5, 1.6, 1.7, 1.6], [0.2, 0.21, 0.22, 0.2]
    assert answers("quadratics", enough) == answers("large", enough) == {SEEN}
    assert answers("quadratics", too_little) == {OPPOSITE}
    assert answers("large", too_little) == {CANNOT_TELL}


def test_the_inequality_s_answer_names_the_proof():
    values = [
        Value(NEAR, SAM, seed, "", "right_over_left", ratio)
        for seed, ratio in enumerate([0.4, 0.45, 0.5, 0.45])
    ]
    (finding,) = STUDY.find(Values(values))
    assert finding.answer == OPPOSITE
    assert finding.because.endswith("; refuted by the proof above for any constant rho")


def test_shares_of_what_is_kept():
    found = np.array([[True, True, False], [False, True, True]])
    kept = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(share_of(found, kept), [0.5, 1.0, np.nan])


def test_which_way_the_weights_move(x64):
    """2 lam eta Cov(grad L_i . g, grad L_i . grad L(w + eps)) / |g|^2, to first order."""
    eta = np.full(2, 1e-3)
    slow = KNOWN.problem._replace(first_step=eta)
    found = follow(slow, RHO, LAMS, STEPS, parts=STEPS // 5).turn[1, :, 0]
    for seed in range(2):
        w = KNOWN.problem.start[seed]
        losses, gradients = by_hand(seed, w)
        g = betas(losses, LAMS[1]) @ gradients
        descended = by_hand(seed, w + RHO * unit(g))[1].mean(0)
        moved = np.cov(gradients @ g, gradients @ descended, bias=True)[0, 1]
        np.testing.assert_allclose(
            found[seed], 2 * LAMS[1] * eta[0] * moved / (g @ g), rtol=0.01
        )


def test_the_angle_that_smoothness_allows(trace):
    """The angle of g and g + d, |d| <= r |g| with r < 1, is at most arcsin(r)."""
    eta = KNOWN.problem.first_step[:, None] / np.sqrt(np.arange(1, STEPS + 1))
    ratio = eta * KNOWN.smoothness[:, None] * trace.ascended[0]
    ratio = ratio / trace.gradient[0]
    defined = ratio < 1
    assert 2 < defined.sum() < 40
    angles = trace.angles[0][defined]
    assert (angles <= np.arcsin(ratio[defined]) + 1e-7).all()


def test_where_sam_ends_on_quadratics(trace):
    """It jumps across the minimum along the axis of the largest eigenvalue."""
    np.testing.assert_allclose(trace.angles[0, :, -1], np.pi, atol=1e-3)
    level = trace.ascended[0, :, -1]
    eta = KNOWN.problem.first_step / np.sqrt(STEPS)
    # w = a u with -a = a - eta L (a + rho), the jump of period two.
    a = eta * KNOWN.smoothness * RHO / (2 - eta * KNOWN.smoothness)
    np.testing.assert_allclose(level, KNOWN.smoothness * (RHO + a), rtol=2e-3)


def test_the_minimum_and_how_it_moves_with_lam():
    for seed in range(2):
        assert abs(by_hand(seed, KNOWN.minimum[seed])[1].mean(0)).max() < 1e-6
    found = lowest_within(KNOWN.problem, KNOWN.minimum, RHO, (0.0, 0.01, 100.0))
    np.testing.assert_allclose(found[0], 0, atol=1e-5)
    np.testing.assert_allclose(found[1], 0.01 * shift_of_minimum(KNOWN), rtol=0.03)
    np.testing.assert_allclose(found[2], RHO, rtol=1e-5)


def test_the_top_eigenvalue_of_quadratics(x64):
    found = top_eigenvalue(KNOWN.problem, KNOWN.problem.start[:, None])
    np.testing.assert_allclose(found, KNOWN.smoothness, rtol=1e-4)


def test_the_network_by_hand(x64):
    problem = digits_network(1, first_step=0.5, images=3, hidden=4)
    images, labels = problem.batch
    assert images.shape == (1, 5, 3, PIXELS) and labels.shape == (1, 5, 3)
    assert images.min() == -1 and images.max() <= 1
    w = problem.start[0].astype(np.float64) + 0.1  # biases too
    images = images.astype(np.float64)  # in float32 no two orders of a sum agree
    kernel, rest = w[: PIXELS * 4].reshape(PIXELS, 4), w[PIXELS * 4 :]
    features = np.tanh(images[0, 2] @ kernel + rest[:4])
    logits = features @ rest[4:44].reshape(4, CLASSES) + rest[44:]
    chosen = logits[np.arange(3), labels[0, 2]]
    expected = np.mean(np.log(np.exp(logits).sum(1)) - chosen)
    found = network_loss(jnp.asarray(w), (images[0, 2], labels[0, 2]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_slopes_of_known_curves():
    times = np.arange(1, 1001)
    assert log_slope([1, 2, 8], [3, 6, 24]) == pytest.approx(1)
    assert last_slope(5 * times**-0.7) == pytest.approx(-0.7)
    assert theorem_rate(4)[[0, 3]] == pytest.approx([1, (1 + np.log(4)) / 2])
    # d log((1 + log T) / sqrt(T)) / d log T = 1 / (1 + log T) - 1 / 2
    middle = np.log(1000) - np.log(10) / 2
    assert last_slope(theorem_rate(1000)) == pytest.approx(1 / (1 + middle) - 0.5, abs=3e-3)


def test_sums_by_hand():
    assert running_mean(np.array([2.0, 4.0, 9.0])).tolist() == [2, 3, 5]
    assert last_tenth(np.arange(40.0)) == np.mean([36, 37, 38, 39])
    assert last_tenth(np.array([1.0, 5.0])) == 5
    a, b = np.array([[1.0, 2.0, 4.0]]), np.array([[1.0, 0.0, 5.0]])
    expected = np.corrcoef(a[0], b[0])[0, 1]
    assert correlation(a, b, axis=-1)[0] == pytest.approx(expected)
    assert spaced(3).tolist() == [1, 2, 3] and spaced(5000)[[0, -1]].tolist() == [1, 5000]


@pytest.mark.slow
def test_the_page(tmp_path):
    small = {"quadratic_steps": 40, "network_steps": 20, "images": 6, "hidden": 3}
    study = dataclasses.replace(STUDY, measure=lambda s: measure_all(s.seeds, **small))
    setting = Setting(store=Store(tmp_path / "runs"), seeds=2)
    findings = run_study(study, setting, tmp_path, "a command")
    page = (tmp_path / "page.md").read_text()
    for name in ("angles.png", "running_mean.png", "levels.png", "heuristics.png"):
        assert (tmp_path / name).stat().st_size > 1000
        assert f"]({name})" in page
    assert len(findings) == 23
    numbers = (tmp_path / "numbers.json").read_text()
    json.loads(numbers, parse_constant=pytest.fail)  # no NaN, no infinity
    for line in page.splitlines():  # a norm's bar would cut a table's cell
        if line.startswith("|"):
            assert line.count("|") in (5, 8)
