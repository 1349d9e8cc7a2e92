"""What a step computes, and what it begins with: a method on a model."""

import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.config.preset import Preset
from experiments.config.run import RunConfig
from experiments.devices import Layout
from experiments.methods.registry import Hyperparameters, Method, find_method
from experiments.models.backbones import BACKBONES, load_pretrained
from experiments.models.classifier import Classifier, make_classifier
from experiments.models.tuning import Model, Params, Tuning
from experiments.training.optimizer import make_chain
from experiments.training.pattern import Numbers, pattern, with_arrays


@dataclasses.dataclass(frozen=True)
class Program:
    """A method on a model; the same for all runs of a pattern.

    Attributes:
      method: itself.
      hyperparameters: of the method.
      preset: the model and the optimizer.
      num_classes: length of the logits.
      num_domains: M, the source domains.
    """

    method: Method
    hyperparameters: Hyperparameters
    preset: Preset
    num_classes: int
    num_domains: int

    def with_numbers(self, numbers: Numbers) -> "Program":
        """The program of a run: the pattern's with the run's numbers, also traced ones."""
        return dataclasses.replace(
            self,
            hyperparameters=with_arrays(self.hyperparameters, numbers.hyperparameters),
            preset=with_arrays(self.preset, numbers.preset),
        )

    @functools.cached_property
    def tuning(self) -> Tuning:
        """What is trained of the model."""
        return make_tuning(self.preset)

    @functools.cached_property
    def model(self) -> Model:
        """The model at w."""
        return Model(self._module(self.preset.dtype), self.tuning)

    @functools.cached_property
    def perturbed_model(self) -> Model | None:
        """The model at w + eps, where its dtype is another."""
        dtype = self.preset.perturbed_dtype
        return None if dtype == "same" else Model(self._module(dtype), self.tuning)

    @functools.cached_property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """The method and the optimizer."""
        method = self.method.make(self.hyperparameters)
        return make_chain(method, self.preset)

    def _module(self, dtype: str) -> Classifier:
        return make_classifier(
            self.preset.model,
            self.num_classes,
            batch_norm=self.preset.batch_norm,
            dtype=dtype,
        )


def make_tuning(preset: Preset) -> Tuning:
    """What the preset trains of its model."""
    make = BACKBONES[preset.model].tunings[preset.tuning]
    wanted = inspect.signature(make).parameters
    return make(**{name: getattr(preset, name) for name in wanted})


def make_program(config: RunConfig, num_classes: int, num_domains: int) -> Program:
    """The program of all runs of the config's pattern."""
    common = pattern(config)
    method = find_method(config.method)
    return Program(method, common.hyperparameters, common.preset, num_classes, num_domains)


class TrainState(NamedTuple):
    """All that a step changes; checkpoints hold just this.

    Attributes:
      step: int32 scalar, the steps done.
      params: the weights that are trained.
      batch_stats: BatchNorm's running statistics, empty without BatchNorm.
      opt_state: of the whole chain, the method's state first.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def begin(program: Program, key: jax.Array, layout: Layout) -> tuple[TrainState, Params]:
    """The state before the first step and the frozen weights, placed by the layout."""
    variables = random_variables(program.model, program.preset.image_size, key)
    if program.preset.weights != "scratch":
        variables = _with_pretrained(program.preset, variables)
    first = _begin(program, variables)
    return layout.put(first, layout.of_state(first))


def shapes(program: Program) -> tuple[TrainState, Params]:
    """The shapes of a state and of the frozen weights; nothing is computed."""

    def drawn(key: jax.Array) -> tuple[TrainState, Params]:
        size = program.preset.image_size
        return _begin(program, random_variables(program.model, size, key))

    return jax.eval_shape(drawn, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def random_variables(model: Model, image_size: int, key: jax.Array) -> dict[str, Any]:
    """A model's variables, drawn with the key, and among them what the tuning adds."""
    images = jnp.zeros((1, image_size, image_size, 3))
    drawn = dict(model.module.init(key, images, train=False))
    own = drawn["params"]
    return drawn | {"params": own | model.tuning.added(own, jax.random.fold_in(key, 1))}


def _begin(program: Program, variables: dict[str, Any]) -> tuple[TrainState, Params]:
    params, frozen = program.model.split(variables["params"])
    stats = variables.get("batch_stats", {})
    state = TrainState(jnp.zeros([], jnp.int32), params, stats, program.tx.init(params))
    return state, frozen


def _with_pretrained(preset: Preset, variables: dict[str, Any]) -> dict[str, Any]:
    """The variables with the backbone's read from the preset's file."""
    backbone = {
        name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree
    }
    path = None if preset.weights == "package" else Path(preset.weights)
    pretrained = load_pretrained(preset.model, path, backbone)
    return {
        name: {**tree, "backbone": pretrained[name]} if name in pretrained else tree
        for name, tree in variables.items()
    }
