"""Runs that differ in numbers alone share a compiled program, and each has its numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.devices import one_device
from experiments.methods.registry import METHODS
from experiments.studies.kit import run
from experiments.studies.kit.run import Spec, train_spec
from experiments.training.loop import train
from experiments.training.pattern import numbers_of, pattern
from experiments.training.program import begin, make_program, shapes
from experiments.training.step import compile_step, train_step
from tests.experiments.training.test_step import BATCH, KEY, NAMES, SIZE
from tests.slow import slow_but

DATA = load("rotated_digits")
SMALL = {
    **{"steps": 4, "batch_size": 4, "log_every": 2, "checkpoint_every": 4},
    **{"image_size": SIZE, "optimizer": "sgd", "schedule": "constant", "penalty": "coral"},
}
PRESET = {
    "learning_rate": (0.1, 0.05),
    "weight_decay": (0.1, 0.0),
    "dropout": (0.2, 0.5),
    "penalty_weight": (1.0, 3.0),
    "penalty_start": (1, 0),
}
HYPERPARAMETERS = {
    "rho": (0.05, 0.5),
    "alpha": (0.2, 0.8),
    "lam": (0.1, 0.9),
    "probability": (1.0, 0.0),
    "threshold": (0.0, 9.0),
    "gamma": (0.9, 0.5),
    "theta": (0.9, 0.5),
    "sigma": (1.0, 0.5),
    "decay": (0.9, 0.1),
}
STATIC = {"period": 2, "start": 1, "ascent_steps": 3, "fraction": 0.5}


A, B = (
    {name: values[i] for name, values in (PRESET | HYPERPARAMETERS).items()} for i in (0, 1)
)


def config(method="disam+sagm", seed=0, unseen="75", **changes):
    return make_config(
        data="rotated_digits",
        method=method,
        unseen=unseen,
        seed=seed,
        overrides={**SMALL, **changes},
    )


@pytest.mark.parametrize("method", slow_but({"erm", "sam", "disam+sagm"}, METHODS))
def test_every_method_takes_its_numbers_as_arrays(method):
    a, b = config(method, **A), config(method, seed=1, unseen="0", **B)
    assert pattern(a) == pattern(b) == pattern(pattern(a))
    read = set(METHODS[method].reads)
    assert numbers_of(a).hyperparameters.keys() == read - {"variance", *STATIC}
    program = make_program(a, NAMES, 2)
    before, frozen = shapes(program)
    step = compile_step.__wrapped__(program, one_device())
    state, _ = jax.eval_shape(step, numbers_of(b), frozen, before, BATCH)
    same = jax.tree.map(
        lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), state, before
    )
    assert all(jax.tree.leaves(same))
    for name in read & STATIC.keys():
        assert pattern(config(method, **A, **{name: STATIC[name]})) != pattern(a)


def test_what_the_step_is_compiled_for_is_told_apart():
    own = config(**A)
    preset = {"dropout": 0.0, "penalty_weight": None, "steps": 5}
    others = [
        dataclasses.replace(own, preset=dataclasses.replace(own.preset, **{name: value}))
        for name, value in preset.items()
    ]
    others += [config(**A, variance="count_weighted"), config("sagm", **A)]
    others += [dataclasses.replace(own, also_unseen="0")]
    assert len({pattern(other) for other in (own, *others)}) == len(others) + 1


def test_no_weight_decay_is_a_number_too():
    assert pattern(config(**{**A, "weight_decay": 0.0})) == pattern(config(**A))


def steps_of(step, state, count=3):
    """The parameters after some steps, as one vector."""
    for at in range(count):
        images = jnp.roll(BATCH.images, at, axis=0)
        state, _ = step(state, BATCH._replace(images=images, key=jax.random.key(at)))
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])


# Together they read all hyperparameters that are arrays.
@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["disam+sagm", "rst", "ae_sam", "wsam", "vasso", "friendly_sam"]
)
def test_each_number_acts_as_the_constant_does(method):
    program = make_program(config(method, **A), NAMES, 2)
    step = compile_step(program, one_device())

    def traced(own):
        fresh, frozen = begin(program, KEY, one_device())
        return steps_of(functools.partial(step, numbers_of(own), frozen), fresh)

    other = config(method, **B)
    constant = functools.partial(
        jax.jit(train_step, static_argnums=0),
        dataclasses.replace(
            program, hyperparameters=other.hyperparameters, preset=other.preset
        ),
        {},
    )
    expected = steps_of(constant, begin(program, KEY, one_device())[0])
    difference = np.linalg.norm(traced(other) - expected)
    assert difference < 1e-5 * np.linalg.norm(expected)
    first = traced(config(method, **A))
    read = [name for name in HYPERPARAMETERS if name in METHODS[method].reads]
    for name in (*PRESET, *read) if method == "disam+sagm" else read:
        changed = traced(config(method, **{**A, name: B[name]}))
        assert np.linalg.norm(changed - first) > 1e-4 * np.linalg.norm(first), name
    assert step._cache_size() == 1


def test_train_compiles_one_step_for_runs_that_differ_in_numbers(tmp_path):
    compile_step.cache_clear()
    configs = [config(**A), config(seed=1, unseen="0", **B)]
    for i, own in enumerate(configs):
        train(own, DATA, tmp_path / str(i))
    info = compile_step.cache_info()
    assert (info.misses, info.hits) == (1, 1)
    step = compile_step(make_program(configs[0], DATA.classes, 5), one_device())
    assert step._cache_size() == 1


@pytest.mark.slow
def test_studies_compile_one_step_for_runs_that_differ_in_numbers():
    run._compile_step.cache_clear()
    for own in (config(**A), config(seed=1, **B)):
        train_spec(Spec(own, probes=()))
    assert run._compile_step.cache_info().misses == 1
    step = run._compile_step(make_program(config(**A), DATA.classes, 5), DATA.flip)
    assert step._cache_size() == 1
