"""What a method is: a function of hyperparameters, its cost, and the data it needs."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optax

import disam_jax as dj
from disam_jax.testing import count_evaluations
from experiments.fields import option
from experiments.methods.examples import Examples, all_examples


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The papers' symbols; a method reads those it has.

    rho and lam default to the DISAM paper's, alpha to SAGM's on PACS.
    """

    rho: float = option(0.05, "radius of the perturbation")
    alpha: float = option(1e-3, "SAGM's step back; GSAM's, LookSAM's, GNP's weight")
    lam: float = option(0.1, "DISAM's weight of the variance of the domain losses")
    variance: str = option("uniform", "DISAM's variance, uniform or count_weighted")
    period: int = option(5, "steps from one ascent to the next")
    fraction: float = option(0.25, "of the examples, for the ascent or as the hardest")
    start: float = option(200, "first step of a late ascent, or its share of the run")
    probability: float = option(0.5, "that a step ascends")
    threshold: float = option(0.0, "AE-SAM's, in standard deviations")
    ascent_steps: int = option(2, "steps of an ascent")
    gamma: float = option(0.9, "WSAM's weight of the sharpness; GAM's")
    theta: float = option(0.9, "VaSSO's weight of the new gradient")
    sigma: float = option(
        1.0, "F-SAM's weight of the mean gradient; LE-SAM's rise of the loss"
    )
    decay: float = option(0.9, "of a mean or a momentum over steps")
    agreement: float = option(
        1.0, "share of the domains' signs that agree, of AND-mask and SAND-mask", later=True
    )
    dro_eta: float = option(0.01, "GroupDRO's weight of a step's losses", later=True)
    walk_rate: float = option(0.01, "of the steps of Fish's walk", later=True)
    own_rate: float = option(
        0.015, "peak learning rate of methods that bring an optimizer", later=True
    )
    num_examples: float = option(1e4, "bSAM's N, of the training set", later=True)
    tilt: float = option(1.0, "Tilted SAM's weight of the worst points", later=True)

    def __post_init__(self) -> None:
        """Refuses a rate that is none; a start that is no share becomes a step."""
        if not self.own_rate > 0:
            raise ValueError(f"own_rate must be > 0; got {self.own_rate}.")
        if float(self.start).is_integer():
            object.__setattr__(self, "start", int(self.start))


NAMES = tuple(field.name for field in dataclasses.fields(Hyperparameters))
STATIC = ("variance", "period", "fraction", "start", "ascent_steps")
Cost = Callable[[Hyperparameters, int], float]


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """A method by name.

    It reads the hyperparameters that its functions have among their arguments, and starts
    from their defaults.

    Attributes:
      function: hyperparameters -> transformation.
      description: one line, for `python -m experiments methods`; by default the first of
        the function's docstring.
      name: what the command line and the tables call it; by default the function's.
      overrides: the hyperparameters whose defaults are not the function's.
      cost: gradients of the whole batch per step, on average: a number, or a function of
        (hyperparameters, source domains); None counts them when they are asked for.
      disam: whether the function's `ascent` is DISAM's objective.
      examples: hyperparameters -> the examples it looks at; None is the whole batch.
      micro_batches: whether it is given the domains as micro-batches.
      optimizer: (learning_rate, weight_decay) -> what stands after it, where that cannot be
        the preset's optimizer; None is the preset's. The rate of one's own has `own_rate`
        for its peak and follows the preset's schedule.
      static: the hyperparameters that its step is compiled for. The others enter the step
        as arrays, so that runs that differ in them alone share a compiled program; the
        function must take them.
    """

    function: Callable[..., optax.GradientTransformationExtraArgs]
    description: str = ""
    name: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cost: float | Cost | None = 2.0
    disam: bool = False
    examples: Callable[..., Examples] | None = None
    micro_batches: bool = False
    optimizer: Callable[..., optax.GradientTransformation] | None = None
    static: tuple[str, ...] = STATIC

    def __post_init__(self) -> None:
        first_line = (self.function.__doc__ or "").strip().partition("\n")[0]
        description = self.description or first_line.removesuffix(".")
        object.__setattr__(self, "name", self.name or self.function.__name__)
        object.__setattr__(self, "description", description)

    @functools.cached_property
    def reads(self) -> tuple[str, ...]:
        """The hyperparameters that change it."""
        functions = (self.function, self.examples, disam_ascent if self.disam else None)
        read = tuple(name for f in functions if f for name in hyperparameters(f))
        return read if self.optimizer is None else (*read, "own_rate")

    @functools.cached_property
    def defaults(self) -> Hyperparameters:
        """The hyperparameters it runs with unless told otherwise."""
        own = hyperparameters(self.function)
        there = {name: p.default for name, p in own.items() if p.default is not p.empty}
        return Hyperparameters(**{**there, **self.overrides})

    def make(
        self, h: Hyperparameters, **of_run: Any
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation that stands before the optimizer.

        Args:
          h: its hyperparameters.
          of_run: `learning_rate`, a schedule, `weight_decay` and `run_steps`; for a
            function that has them among its arguments.
        """
        ascent = {"ascent": call(disam_ascent, h)} if self.disam else {}
        asked = of_run.keys() & inspect.signature(self.function).parameters.keys()
        return call(self.function, h, **ascent, **{name: of_run[name] for name in asked})

    def peak_rate(self, h: Hyperparameters) -> float | None:
        """Of its own optimizer's learning rate; None is the preset's."""
        return None if self.optimizer is None else h.own_rate

    def chooser(self, h: Hyperparameters) -> Examples:
        """What chooses the examples of a step."""
        return all_examples if self.examples is None else call(self.examples, h)

    def gradients(self, h: Hyperparameters, num_domains: int) -> float:
        """Gradients of the whole batch per step, on average, of as many source domains."""
        if self.cost is None:
            return _count(self, h)
        return float(self.cost(h, num_domains) if callable(self.cost) else self.cost)


def disam_ascent(lam: float, variance: str) -> Any:
    """DISAM's ascent objective."""
    return dj.variance_penalized(lam, variance=variance)


def hyperparameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The function's parameters that are hyperparameters."""
    parameters = inspect.signature(function).parameters
    return {name: parameter for name, parameter in parameters.items() if name in NAMES}


def call(function: Callable[..., Any], h: Hyperparameters, **others: Any) -> Any:
    """What the function returns for these hyperparameters."""
    given = {name: getattr(h, name) for name in hyperparameters(function)}
    return function(**given, **others)


@functools.cache
def _count(method: Method, h: Hyperparameters) -> float:
    """Counted over a short training, of whole periods of most lengths."""
    return count_evaluations(method.make(h), steps=60, micro_batches=method.micro_batches)
