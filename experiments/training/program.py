"""What a step computes, and what it begins with: a method on a model."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.config.preset import Preset
from experiments.config.run import RunConfig
from experiments.devices import Layout
from experiments.methods.registry import Hyperparameters, Method, find_method
from experiments.models.registry import MODELS, Classes, Kind
from experiments.models.tuning import Model, Params
from experiments.training.optimizer import make_chain
from experiments.training.parts import seen_classes
from experiments.training.pattern import Numbers, pattern, with_arrays


def as_they_lie(weights: Params) -> Params:
    """The weights, whole on every device."""
    return weights


@dataclasses.dataclass(frozen=True)
class Program:
    """A method on a model; the same for all runs of a pattern.

    Attributes:
      method: itself.
      hyperparameters: of the method.
      preset: the model and the optimizer.
      classes: names of the classes, in the order of the logits.
      num_domains: M, the source domains.
      seen: labels of the classes that are trained on; None is all.
      gather: of weights that lie in parts on several devices, the whole ones.
    """

    method: Method
    hyperparameters: Hyperparameters
    preset: Preset
    classes: Classes
    num_domains: int
    seen: tuple[int, ...] | None = None
    gather: Callable[[Params], Params] = as_they_lie

    def with_numbers(self, numbers: Numbers) -> "Program":
        """The program of a run: the pattern's with the run's numbers, also traced ones."""
        return dataclasses.replace(
            self,
            hyperparameters=with_arrays(self.hyperparameters, numbers.hyperparameters),
            preset=with_arrays(self.preset, numbers.preset),
        )

    @property
    def kind(self) -> Kind:
        """What makes its models."""
        return MODELS[self.preset.model]

    @functools.cached_property
    def model(self) -> Model:
        """The model at w."""
        return self.kind.model(self.preset, self.classes, self.preset.dtype)

    @functools.cached_property
    def perturbed_model(self) -> Model | None:
        """The model at w + eps, where its dtype is another."""
        dtype = self.preset.perturbed_dtype
        if dtype == "same":
            return None
        return self.kind.model(self.preset, self.classes, dtype)

    @functools.cached_property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """The method and the optimizer."""
        return make_chain(self.method, self.hyperparameters, self.preset)


def make_program(config: RunConfig, classes: Sequence[str], num_domains: int) -> Program:
    """The program of all runs of the config's pattern."""
    common = pattern(config)
    method = find_method(config.method)
    return Program(
        method,
        common.hyperparameters,
        common.preset,
        tuple(classes),
        num_domains,
        seen_classes(config, classes),
    )


class TrainState(NamedTuple):
    """All that a step changes; checkpoints hold just this.

    Attributes:
      step: int32 scalar, the steps done.
      params: the weights that are trained.
      batch_stats: BatchNorm's running statistics, empty without BatchNorm.
      opt_state: of the whole chain, the method's state first.
      average: of (params, batch_stats) over the steps, where the preset asks for it; else
        empty.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any

    @property
    def scored(self) -> tuple[Any, Any]:
        """What an evaluation reads: (params, batch_stats)."""
        return self.params, self.batch_stats

    def with_scored(self, scored: tuple[Any, Any]) -> "TrainState":
        """The state with others in their place."""
        return self._replace(params=scored[0], batch_stats=scored[1])


def begin(program: Program, key: jax.Array, layout: Layout) -> tuple[TrainState, Params]:
    """The state before the first step and the frozen weights, placed by the layout."""
    variables = program.kind.first(program.model, program.preset, program.classes, key)
    first = _begin(program, variables)
    return layout.put(first, layout.of_state(first))


def shapes(program: Program) -> tuple[TrainState, Params]:
    """The shapes of a state and of the frozen weights."""
    known = program.kind.shapes(program.model, program.preset, program.classes)
    return jax.eval_shape(functools.partial(_begin, program), known)


def _begin(program: Program, variables: dict[str, Any]) -> tuple[TrainState, Params]:
    params, frozen = program.model.split(variables["params"])
    stats = variables.get("batch_stats", {})
    average = jax.tree.map(jnp.copy, (params, stats)) if program.preset.bma else {}
    begun = jnp.zeros([], jnp.int32), params, stats, program.tx.init(params), average
    return TrainState(*begun), frozen
