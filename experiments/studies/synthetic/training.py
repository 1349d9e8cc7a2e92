"""Training on the synthetic problem: a method is two numbers, and all cost the same.

The network is linear with two layers, f(x) = output . (x hidden), the loss
log(1 + exp(-y f(x))) and l_m its mean over the batch's examples of domain m, of which
there are n_m of BATCH. With L = sum_m n_m l_m / BATCH and V the variance of the l_m,

    a step that ascends:   eps climbs L + a V by rho, L + d V is descended at w + eps
    a step that does not:  L + d V is descended at w

    ERM (-, 0)    V-REx (-, beta)    SAM (0, 0)    DISAM (-lam, 0)

A step that ascends costs two gradients of a batch and the other one: it gets twice the
steps.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import disam_jax as dj
from experiments.studies.synthetic.problem import (
    BEST,
    EXAMPLES,
    MOST_DOMAINS,
    Dials,
    Problem,
    draw_problem,
    new_domain_error,
    source_errors,
)

Number = float | jax.Array
Objective = Callable[[Any, Any], Any]  # (losses, weights) -> scalar

MEASUREMENTS = 10
FIRST_TUNING_SEED = 1_000_000  # no reported seed is as large


class Trial(NamedTuple):
    """What a run may choose, numbers or arrays of them.

    Attributes:
      learning_rate: of SGD.
      rho: radius of the ascent.
      climbed: a, weight of the variance in the ascent.
      descended: d, weight of the variance in the descent.
    """

    learning_rate: Number
    rho: Number
    climbed: Number
    descended: Number


@dataclasses.dataclass(frozen=True)
class TunedMethod:
    """A way to train, and the trials it is tuned over.

    Attributes:
      ascends: whether a step costs two gradients.
      trials: to choose from.
    """

    ascends: bool
    trials: tuple[Trial, ...]


class Result(NamedTuple):
    """What a run ends with.

    Attributes:
      network: (hidden, output).
      excess: error on a new domain, less the best predictor's.
      source_error: the sources' mean error on an endless held-out set, by their shares.
      spread: standard deviation of the domains' training losses, mean of MEASUREMENTS.
    """

    network: tuple[jax.Array, jax.Array]
    excess: jax.Array
    source_error: jax.Array
    spread: jax.Array


Transformation = optax.GradientTransformationExtraArgs
Make = Callable[[Trial], Transformation]


def with_variance(weight: Number) -> Objective:
    """The objective L + weight V."""
    return lambda losses, shares: (
        dj.weighted_mean(losses, shares) + weight * dj.domain_variance(losses, shares)
    )


def ascending(trial: Trial) -> Transformation:
    """Climbs L + a V by rho and descends L + d V there."""
    return dj.sharpness_aware(
        dj.ascend(trial.rho),
        ascent=with_variance(trial.climbed),
        descent=with_variance(trial.descended),
    )


def not_ascending(trial: Trial) -> Transformation:
    """Descends L + d V."""
    return dj.erm(descent=with_variance(trial.descended))


def train(make: Make, steps: int, problem: Problem, trial: Trial) -> Result:
    """Trains by SGD on the first `steps` batches.

    Args:
      make: of the method.
      steps: a multiple of MEASUREMENTS.
      problem: to train on.
      trial: learning rate and the method's numbers.

    Returns:
      The outcome.
    """
    tx = optax.chain(make(trial), optax.sgd(trial.learning_rate))

    def losses_of(network, examples):
        hidden, output = network
        margins = problem.labels[examples] * (problem.features[examples] @ hidden @ output)
        losses = jnp.logaddexp(0.0, -margins)
        return dj.domain_means(losses, problem.domains[examples], MOST_DOMAINS)

    def step(carried, examples):
        network, state = carried
        updates, state = tx.update(
            None,  # pyright: ignore[reportArgumentType]  Optax has no type for "ignored".
            state,
            network,
            loss_fn=lambda network: losses_of(network, examples)[0],
            domain_weights=dj.domain_shares(problem.domains[examples], MOST_DOMAINS),
        )
        return (optax.apply_updates(network, updates), state), None

    def part(carried, batches):
        (network, state), _ = jax.lax.scan(step, carried, batches)
        losses, shares = losses_of(network, jnp.arange(EXAMPLES))
        return (network, state), jnp.sqrt(dj.domain_variance(losses, shares))

    network: Any = (problem.hidden, problem.output)
    batches = problem.batches[:steps].reshape(MEASUREMENTS, steps // MEASUREMENTS, -1)
    (network, _), spreads = jax.lax.scan(part, (network, tx.init(network)), batches)
    w = network[0] @ network[1]
    return Result(
        network,
        new_domain_error(w, problem.gap) - BEST,
        jnp.sum(problem.shares * source_errors(w, problem)),
        jnp.mean(spreads),
    )


def as_arrays(trials: Sequence[Trial]) -> Trial:
    """One trial whose fields hold those of all."""
    return Trial(*(jnp.array(values, float) for values in zip(*trials, strict=True)))


@functools.cache
def every_pair(make: Make, steps: int) -> Callable[[Problem, Trial], Result]:
    """(problems [P, ...], trials [T]) -> outcomes [P, T]."""
    over_trials = jax.vmap(functools.partial(train, make, steps), (None, 0))
    # A few problems at a time stay in the cache.
    return jax.jit(
        lambda problems, trials: jax.lax.map(
            lambda problem: over_trials(problem, trials), problems, batch_size=4
        )
    )


@functools.cache
def one_each(make: Make, steps: int) -> Callable[[Problem, Trial], Result]:
    """(problems [P, ...], trials [P]) -> outcomes [P]."""
    return jax.jit(jax.vmap(functools.partial(train, make, steps)))


@dataclasses.dataclass(frozen=True)
class Lab:
    """The problems of one setting of the dials.

    Reported seeds are 0, 1, ...; each has `tunings` seeds of its own to be tuned on, which
    no other one shares: what is reported then includes the luck of tuning.

    Attributes:
      dials: of the problems.
      seeds: how many are reported.
      gradients: of a batch, for every run.
      tunings: problems to tune on, per reported one.
    """

    dials: Dials
    seeds: int
    gradients: int
    tunings: int = 2

    @functools.cached_property
    def reported(self) -> Problem:
        """The problems that results are of."""
        return draw_problems(self.dials, range(self.seeds), self.gradients)

    @functools.cached_property
    def tuned_on(self) -> Problem:
        """The problems to tune on, those of reported seed 0 first."""
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.seeds * self.tunings)
        return draw_problems(self.dials, seeds, self.gradients)

    def tune(self, method: TunedMethod) -> list[Trial]:
        """For each reported seed, the trial of the least held-out error of the sources.

        Args:
          method: whose trials to choose from.

        Returns:
          A trial per reported seed.
        """
        program = every_pair(*self.steps_of(method.ascends))
        errors = program(self.tuned_on, as_arrays(method.trials)).source_error
        mean = np.reshape(errors, (self.seeds, self.tunings, -1)).mean(axis=1)
        return [method.trials[i] for i in mean.argmin(axis=1)]

    def run(self, ascends: bool, trials: Sequence[Trial]) -> Result:
        """Trains on the reported problems.

        Args:
          ascends: whether a step costs two gradients.
          trials: one per reported seed.

        Returns:
          The outcomes, per seed.
        """
        program = one_each(*self.steps_of(ascends))
        return jax.device_get(program(self.reported, as_arrays(trials)))

    def steps_of(self, ascends: bool) -> tuple[Make, int]:
        """What makes the transformation, and how many steps the gradients suffice for."""
        make, cost = (ascending, 2) if ascends else (not_ascending, 1)
        return make, self.gradients // cost


def draw_problems(dials: Dials, seeds: Sequence[int], gradients: int) -> Problem:
    """The problems of the seeds, stacked."""
    drawn = [draw_problem(dials, seed, gradients) for seed in seeds]
    return Problem(*(np.stack(arrays) for arrays in zip(*drawn, strict=True)))
