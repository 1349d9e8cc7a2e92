"""Fine-tuning behind a frozen part: the same network, and one set of random numbers."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.batches import TrainingImages
from experiments.models.efficientnet_lite import BLOCKS, EfficientNetLite0
from experiments.studies.kit.claims import NO_DIFFERENCE, SEEN
from experiments.studies.kit.run import load_once
from experiments.studies.kit.runs import Setting, Store
from experiments.studies.kit.study import run_study
from experiments.studies.pretrained import STUDY, frozen, study, training
from experiments.studies.pretrained.images import draw_views, pool
from experiments.studies.pretrained.protocol import FROZEN, TRAINED
from experiments.studies.pretrained.training import TailSpec
from experiments.training.feed import batch_key
from experiments.training.run import init_key

SHAPE = (frozen.VIEWS, 2, 2, 192)  # of an image's maps
TUNED = {
    name: (("learning_rate", 1e-3), *([("rho", 0.05)] if name == study.SAM else []))
    for name in study.TUNED
}
ARMS = study.arms(TUNED, 3.0)


def spec(name, steps=2, **changes):
    """The first run of an arm, shortened."""
    overrides = (*ARMS[name].overrides, ("batch_size", 2), *changes.items())
    group = dataclasses.replace(ARMS[name], overrides=overrides, seeds=1)
    found = group.specs(Setting(Store(Path())))[0][0]
    assert isinstance(found, TailSpec)
    preset = dataclasses.replace(found.config.preset, steps=steps)
    return dataclasses.replace(
        found, config=dataclasses.replace(found.config, preset=preset)
    )


@pytest.fixture(scope="module")
def few():
    """A tenth of the images, and maps that nothing made."""
    data = load_once("emoji_styles", 64)
    data = data.subset([groups % 10 == 0 for groups in data.groups])
    count = sum(map(len, data.labels))
    maps = np.random.default_rng(0).normal(size=(count, *SHAPE)).astype(np.float16)
    return data, maps


@pytest.mark.slow
def test_the_parts_together_are_the_whole_network():
    images = jnp.asarray(load_once("emoji_styles", 64).images[0][:4])
    maps = frozen.frozen_part(frozen.CUT, frozen.part((0, frozen.CUT)), images / 255.0)
    tail = EfficientNetLite0(blocks=(frozen.CUT, BLOCKS))

    @jax.jit
    def features(maps):
        return tail.apply(frozen.part((frozen.CUT, BLOCKS)), maps, train=False)

    whole = frozen.frozen_part(BLOCKS, frozen.pretrained(), images / 255.0)
    scale = np.abs(whole).max()
    # Both round differently, 13 layers of sums of up to 1152 products of float32.
    np.testing.assert_allclose(features(maps), whole, atol=13 * 1152**0.5 * 6e-8 * scale)
    half = maps.astype(jnp.float16).astype(jnp.float32)
    # float16 has 11 bits, and multiples of 2**-24 below 2**-14.
    assert (np.abs(half - maps) <= 2.0**-11 * np.abs(maps) + 2.0**-25).all()
    moved = np.linalg.norm(features(half) - whole) / np.linalg.norm(whole)
    assert 0 < moved < 2.0**-10  # what is rounded moves the features by no more


def test_views_are_the_image_and_shifted_ones():
    images = jnp.asarray(load_once("emoji_styles", 64).images[3][:3])
    first, *others = frozen.views_of(images, jax.random.key(0), True)
    np.testing.assert_array_equal(first, images / np.float32(255))
    assert len(others) == frozen.VIEWS - 1
    for view in others:
        for one, image in zip(np.asarray(view), np.asarray(first), strict=True):
            both = [image, image[:, ::-1]]
            padded = [np.pad(x, ((4, 4), (4, 4), (0, 0)), "edge") for x in both]
            assert any(
                np.array_equal(one, x[i : i + 64, j : j + 64])
                for x in padded
                for i in range(9)
                for j in range(9)
            )


def test_maps_are_computed_once_and_again_where_they_are_missing(
    few, tmp_path, monkeypatch
):
    data, maps = few
    asked = []
    monkeypatch.setattr(frozen, "compute_maps", lambda *given: asked.append(given) or maps)
    for _ in range(2):
        np.testing.assert_array_equal(frozen.kept_maps(data, tmp_path), maps)
    assert len(asked) == 1
    other = data.subset([np.arange(len(y)) > 0 for y in data.labels])
    frozen.kept_maps(other, tmp_path)
    frozen.kept_maps(data, tmp_path, cut=15)
    assert len(asked) == 3
    for file in tmp_path.glob("*.npy"):
        file.unlink()
    frozen.kept_maps(data, tmp_path)
    assert len(asked) == 4


def test_what_is_frozen_is_in_no_state(few):
    data, maps = few
    config = spec(study.SAM).config
    own = jax.device_put(pool(config, data, maps).training([1, 2, 3]))
    program = training.tail_program(config, data.classes, 3)
    state = jax.eval_shape(lambda: training.first_state(program, config, own))
    names = {f"block{i}" for i in range(frozen.CUT, BLOCKS)} | {"head", "head_norm"}
    assert set(state.params) == {"backbone", "head"}
    assert set(state.params["backbone"]) == names
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert f"{trained:,}" == TRAINED
    # Adam's two means and nothing else are as large.
    kept = [leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.size > 1]
    assert sum(kept) == 2 * trained
    whole = sum(leaf.size for leaf in jax.tree.leaves(frozen.pretrained()["params"]))
    head = sum(leaf.size for leaf in jax.tree.leaves(state.params["head"]))
    assert f"{whole + head - trained:,}" == FROZEN


def test_permuted_labels_leave_images_and_classes():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(30, *SHAPE)).astype(np.float16)
    starts, counts = (np.array(x, np.int32) for x in ([0, 10, 25], [10, 15, 5]))
    own = TrainingImages(images, np.arange(30, dtype=np.int32), starts, counts)
    plain, permuted = (
        draw_views(own, jax.random.key(1), 7, 16, permuted) for permuted in (False, True)
    )
    for name in ("images", "labels"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(permuted, name))
    assert plain.key == permuted.key
    np.testing.assert_array_equal(plain.domains, np.repeat([0, 1, 2], 16))
    assert (permuted.domains != plain.domains).any()
    np.testing.assert_array_equal(np.sort(permuted.domains), plain.domains)
    ends = starts + counts
    drawn = np.searchsorted(ends, plain.labels, side="right")
    np.testing.assert_array_equal(drawn, plain.domains)
    for image, label in zip(plain.images, plain.labels, strict=True):
        assert any(np.array_equal(image, view) for view in images[label])


def test_arms_share_their_random_numbers_and_differ_in_what_they_are_named_for():
    first = {name: spec(name) for name in ARMS}
    for key_of in (batch_key, init_key):
        keys = [jax.random.key_data(key_of(s.config)).tolist() for s in first.values()]
        assert keys == [keys[0]] * len(ARMS)
    sam = first[study.SAM].config
    changed = dataclasses.replace(sam.preset, dropout=0.0)
    assert first[study.EVAL].config == dataclasses.replace(sam, preset=changed)
    assert not first[study.EVAL].permuted
    assert first[study.PLACEBO] == dataclasses.replace(first[study.STAR], permuted=True)
    star, disam = first[study.STAR].config, first[study.DISAM].config
    assert (star.hyperparameters.lam, disam.hyperparameters.lam) == (3.0, 0.1)
    for other in (star, disam):
        assert other.preset == sam.preset
        assert other.hyperparameters.rho == sam.hyperparameters.rho == 0.05
    lengths = {n: ARMS[n].specs(Setting(Store(Path()), seeds=1))[0][0] for n in ARMS}
    steps = {name: s.config.preset.steps for name, s in lengths.items()}
    assert steps == dict.fromkeys(ARMS, 300) | {study.ERM: 600}


@pytest.mark.slow
def test_without_a_variance_permuted_disam_is_sam_and_without_a_radius_erm(few):
    before = jax.tree.map(np.copy, frozen.pretrained())

    def train(name, **changes):
        return training.train_tail(spec(name, **changes), *few)

    sam, erm = train(study.SAM), train(study.HALF)
    placebo = train(study.PLACEBO, lam=0.0)
    for name in ("losses", "looks"):
        assert len(sam[name]) == len(erm[name])
    # The labels decide which loss counts where, and nothing about the mean.
    assert np.mean(placebo["losses"]) == pytest.approx(np.mean(sam["losses"]), rel=1e-5)
    tiny = train(study.SAM, rho=1e-12)
    assert tiny["losses"] == pytest.approx(erm["losses"], rel=1e-5)
    assert sam["losses"] != pytest.approx(erm["losses"], rel=1e-5)
    look = sam["looks"][0]
    assert np.shape(look["batch_losses"]) == (2, 3)
    gram = np.array(look["batch_grams"])
    np.testing.assert_allclose(gram, gram.transpose(0, 2, 1), rtol=1e-4)
    assert (np.linalg.eigvalsh(gram) > 0).all()
    for tree, kept in zip(
        *map(jax.tree.leaves, (frozen.pretrained(), before)), strict=True
    ):
        np.testing.assert_array_equal(tree, kept)


def test_a_run_that_diverges_says_when(few, monkeypatch):
    class Seen:
        losses = np.array([1.0, np.nan, 2.0])

    monkeypatch.setattr(training, "first_state", lambda *given: _State())
    monkeypatch.setattr(training, "_compile_step", lambda *given: lambda *a: (a[-1], Seen))
    monkeypatch.setattr(training, "_compile_look", lambda *given: lambda *a: (0, 0))
    monkeypatch.setattr(training, "_averaged", lambda *given: None)
    assert training.train_tail(spec(study.SAM), *few)["diverged"] == 0


class _State:
    params = None


def test_lam_is_found_by_its_angle():
    rng = np.random.default_rng(0)
    gradients, losses = rng.normal(size=(10, 3, 50)), rng.normal(1.0, 0.2, size=(10, 3))
    look = {
        "batch_losses": losses.tolist(),
        "batch_grams": (gradients @ gradients.transpose(0, 2, 1)).tolist(),
    }
    outcome = {"looks": [look], "diverged": None}
    lam = study.find_lam([outcome])
    weights = 1 - 2 * lam * (losses - losses.mean(1, keepdims=True))
    ours, sam = (weights[..., None] * gradients).sum(1), gradients.sum(1)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(sam, axis=1)
    angles = np.degrees(np.arccos((ours * sam).sum(1) / lengths))
    assert np.median(angles) == pytest.approx(30, abs=1.0)
    assert study.median_angle(outcome, lam) == pytest.approx(np.median(angles))


class MadeUp(Store):
    """Outcomes that nobody trained: DISAM with lam* is best, and 0.1 changes nothing."""

    def outcomes(self, specs, watch=None):
        self.asked = [*getattr(self, "asked", []), *specs]
        self.configs_used |= {s.config for s in specs}
        return [self._outcome(s) for s in specs]

    def _outcome(self, spec):
        config, rng = spec.config, np.random.default_rng(spec.config.seed)
        lam = config.hyperparameters.lam if config.method == "disam" else 0.0
        gain = 0.03 * (lam > 1) * (not spec.permuted) + 0.01 * (config.method != "erm")
        accuracy = 0.7 + 0.01 * rng.normal() + gain
        at = {0.0003: 0.01}.get(config.preset.learning_rate, 0.0)
        names = ("unseen_concept_accuracy", "out_of_domain_accuracy", "training_accuracy")
        look = {
            "step": config.preset.steps,
            "in_domain_accuracy": accuracy + at,
            "batch_losses": [[0.9, 1.0, 1.2]] * 10,
            "batch_grams": [np.eye(3).tolist()] * 10,
            **dict.fromkeys(names, accuracy),
        }
        return {"looks": [look], "losses": [1.0] * 3, "diverged": None}


def test_the_study_tells_what_was_put_into_it(tmp_path):
    store = MadeUp(Path())
    findings = run_study(STUDY, Setting(store, seeds=4), tmp_path, "the command")
    primary, (equal, *_) = findings[:4], findings[4:]
    assert [f.contrast for f in primary][:2] == [
        "DISAM, lam* \N{MINUS SIGN} SAM",
        "DISAM, lam* \N{MINUS SIGN} DISAM, lam*, permuted labels",
    ]
    assert [f.answer for f in primary] == [SEEN, SEEN, SEEN, NO_DIFFERENCE]
    assert equal.answer == SEEN and equal.mean == 0
    assert len(findings) == 4 + 1 + len(study.EXPLORATORY) + 4
    page = (tmp_path / "page.md").read_text()
    assert TRAINED in page and "differences.png" in page and "styles.png" in page
    assert {s.config.seed for s in store.asked} == {0, 1, 2, 3, 1000, 1001, 1002}
    assert all(
        s.config.preset.learning_rate == 3e-4 for s in store.asked if s.config.seed < 9
    )


def test_a_run_is_kept_by_what_it_is(few, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "kept_maps", lambda data, folder: folder)
    monkeypatch.setattr(
        training, "train_tail", lambda *given: asked.append(given) or {"looks": []}
    )
    specs = [spec(study.STAR), spec(study.PLACEBO)]
    for _ in range(2):
        assert Store(tmp_path).outcomes(specs) == [{"looks": []}] * 2
    assert len(asked) == 2 and {given[0] for given in asked} == set(specs)
    assert {given[2] for given in asked} == {tmp_path / "maps"}
