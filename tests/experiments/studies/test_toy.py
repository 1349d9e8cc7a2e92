import dataclasses
import json

import jax
import numpy as np
import pytest

import disam_jax as dj
from experiments.studies.kit.runs import Setting, Store
from experiments.studies.kit.study import read_numbers, run_study
from experiments.studies.toy.problem import (
    CENTERS,
    CURVATURES,
    STEP_SIZE,
    directions,
    dominance,
    drawn_toy,
    follow,
)
from experiments.studies.toy.study import STUDY, VISIBLE, measure_all

STARTS = np.array([[2.0, 1.0], [-0.5, -2.0]])


def toys(starts=STARTS):
    """In float64, as the loops here."""
    return jax.tree.map(np.float64, drawn_toy(starts))


def by_hand(w):
    """Losses [2] and gradients [2, 2] of the drawn toy."""
    losses, gradients = [], []
    for center, curvature in zip(CENTERS, CURVATURES, strict=True):
        pull = curvature @ (w - center)
        inside = 1 + (w - center) @ pull / 2
        losses.append(np.log(inside))
        gradients.append(pull / inside)
    return np.array(losses), np.array(gradients)


def climbed(w, lam):
    losses, gradients = by_hand(w)
    return (0.5 - lam * (losses - losses.mean())) @ gradients


def variance_gradient(w):
    losses, gradients = by_hand(w)
    return (losses - losses.mean()) @ gradients


def test_paths_against_a_loop(x64):
    rho, lam = 0.3, 0.7
    found = follow(dj.disam(rho, lam), toys(), steps=6)
    for n, w in enumerate(STARTS):
        for t in range(6):
            g = climbed(w, lam)
            eps = rho * g / np.linalg.norm(g)
            np.testing.assert_allclose(found.points[n, t], w, rtol=1e-12)
            np.testing.assert_allclose(found.losses[n, t], by_hand(w)[0], rtol=1e-12)
            np.testing.assert_allclose(
                found.perturbed_losses[n, t], by_hand(w + eps)[0], rtol=1e-12
            )
            w = w - STEP_SIZE * by_hand(w + eps)[1].mean(0)


def test_lam_of_zero_is_sam(x64):
    for ours, sams in zip(
        follow(dj.disam(0.2, 0.0), toys(), 20), follow(dj.sam(0.2), toys(), 20), strict=True
    ):
        np.testing.assert_allclose(ours, sams, rtol=1e-12)


def test_directions_and_dominance(x64):
    found = directions(toys(STARTS[:1]), STARTS[None])
    for t, w in enumerate(STARTS):
        _, gradients = by_hand(w)
        np.testing.assert_allclose(found["gradients"][0, t], gradients, rtol=1e-12)
        for name, lam in (("sam", 0.0), ("disam 0.1", 0.1), ("disam 1", 1.0)):
            expected = climbed(w, lam) / np.linalg.norm(climbed(w, lam))
            np.testing.assert_allclose(found[name][0, t], expected, rtol=1e-12)
    gradients = np.array([[[[3.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-2.0, 0.0]]]])
    climbs = np.array([[[0.8, 0.6], [0.6, 0.8]]])
    # 0.8 - 0.6 at the first point; -0.6 - 0.8 at the second, whose second is the longer.
    np.testing.assert_allclose(dominance(gradients, climbs), [(0.2 - 1.4) / 2])


def test_how_a_step_of_disam_differs_from_one_of_sam(x64):
    """By eta rho lam H v / |g| to first order, v the part of grad Var across g."""
    rho = lam = 1e-3
    ours, sams = (follow(m, toys(), 2) for m in (dj.disam(rho, lam), dj.sam(rho)))
    for n, start in enumerate(STARTS):
        g = climbed(start, 0.0)
        hessian = np.array(
            [
                (climbed(start + d, 0.0) - climbed(start - d, 0.0)) / 2e-5
                for d in 1e-5 * np.eye(2)
            ]
        )
        slope = variance_gradient(start)
        across = slope - slope @ g / (g @ g) * g
        expected = STEP_SIZE * rho * lam * hessian @ across / np.linalg.norm(g)
        np.testing.assert_allclose(
            ours.points[n, 1] - sams.points[n, 1], expected, rtol=0.02, atol=1e-12
        )


@pytest.mark.slow
def test_the_page(tmp_path):
    small = dataclasses.replace(STUDY, measure=lambda s: measure_all(s.seeds, steps=10))
    setting = Setting(store=Store(tmp_path / "runs"), seeds=2)
    findings = run_study(small, setting, tmp_path, "a command")
    page = (tmp_path / "page.md").read_text()
    for name in ("ascents.png", "paths.png", "gaps.png"):
        assert (tmp_path / name).stat().st_size > 1000
        assert f"]({name})" in page
    assert len(findings) == 8
    assert {finding.seeds for finding in findings} == {8}  # four starts each
    text = (tmp_path / "numbers.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # no NaN
    values = read_numbers(tmp_path).values
    for family in values.conditions:
        apart = values.per_seed(family, "SAM", "visibly_apart")
        np.testing.assert_allclose(apart, np.full(8, -VISIBLE), rtol=1e-5)
        here = values.per_seed(family, "ERM", "losses_apart")
        there = values.per_seed(family, "ERM", "ascended_losses_apart")
        np.testing.assert_array_equal(here, there)  # it does not climb
