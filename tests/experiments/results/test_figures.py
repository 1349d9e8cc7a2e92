import numpy as np
import pytest
from matplotlib.cbook import is_math_text

from experiments.results import figures
from experiments.results.labels import COLORS
from tests.experiments.results.records import curves_of


def test_convergence_curves_are_means_over_the_runs_that_train_on_a_domain():
    curves = {
        **curves_of("disam/-90%/seed0", ["+90%", "+80%"], loss=1.0),
        **curves_of("disam/-90%/seed1", ["+90%", "+80%"], loss=2.0),
        **curves_of("disam/+90%/seed0", ["-90%", "+80%"], loss=9.0),
        **curves_of("erm/-90%/seed0", ["+90%", "+80%"], loss=8.0),
    }
    steps, losses = figures.mean_losses(curves, "disam")
    np.testing.assert_array_equal(steps, [1, 2, 3])
    assert losses.keys() == {"-90%", "+90%", "+80%"}
    np.testing.assert_array_equal(losses["+80%"], [4.0] * 3)
    np.testing.assert_array_equal(losses["+90%"], [1.5] * 3)


def test_a_figure_in_which_nothing_is_labelled_has_no_legend(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "save", lambda figure, path: shown.append(figure))
    figures.spread({}, ["erm"], ["a"], tmp_path / "spread.png")
    assert [axes.get_legend() for figure in shown for axes in figure.axes] == [None] * 2


def test_names_of_domains_are_drawn_as_they_are(tmp_path, monkeypatch):
    """Two dollars would be a formula, and a label that begins with `_` would be hidden."""
    shown = []
    monkeypatch.setattr(figures, "save", lambda figure, path: shown.append(figure))
    names = ["$5 and $6", "_x"]
    curves = curves_of("erm/a/seed0", names)
    figures.convergence(curves, ["erm"], ["a"], tmp_path / "convergence.png")
    ((told,),) = [figure.legends for figure in shown]
    texts = told.get_texts()
    assert len(texts) == 2
    for name, text in zip(names, texts, strict=True):
        assert not is_math_text(text.get_text())
        drawn = text.get_text().replace(r"\$", "$")  # as where there is no formula
        assert drawn.strip("\N{ZERO WIDTH SPACE}") == name


def test_a_seed_s_spread_is_the_mean_over_its_unseen_domains():
    curves = {
        **curves_of("sam/a/seed0", ["c"], spread=0.1),
        **curves_of("sam/b/seed0", ["c"], spread=0.3),
        **curves_of("sam/a/seed1", ["c"], spread=0.7),  # it did not finish on b
        **curves_of("disam+sam/a/seed0", ["c"], spread=0.9),
    }
    (found,) = figures.loss_spreads(curves, "sam", ["a", "b"]).values()
    assert found == {step: pytest.approx(0.2) for step in (1, 2, 3)}


def test_every_method_has_a_colour_of_its_own():
    assert len(set(COLORS.values())) == len(COLORS)
