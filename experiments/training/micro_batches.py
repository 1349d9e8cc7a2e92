"""How a step takes its batch: whole, or in micro-batches."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import disam_jax as dj
from experiments.data.batches import Batch
from experiments.methods.examples import Chosen
from experiments.training.program import Program

LossFn = Callable[[Any, Batch], tuple[jax.Array, Any]]  # losses [M], aux


def update_arguments(
    program: Program, chosen: Chosen, loss_fn: LossFn, perturbed_loss_fn: LossFn | None
) -> dict[str, Any]:
    """What the method's update is given, as the preset's scope and micro_batches say.

    Args:
      program: of the step.
      chosen: the examples, flat; for scope `domain`, and for a method that takes the
        domains as micro-batches, as many of each domain, one after another.
      loss_fn: at w.
      perturbed_loss_fn: at w + eps; None is `loss_fn`.

    Returns:
      The arguments.
    """
    batch, ascent_batch = chosen
    micro_batches = _cut(program, batch)
    if micro_batches is not None:
        count = functools.partial(jnp.bincount, length=program.num_domains)
        weights = jax.vmap(count)(micro_batches.domains)  # [K, M], examples
        if program.method.micro_batches:  # they are the domains, and have one loss each
            weights = jnp.sum(weights, axis=1, keepdims=True)
            loss_fn = functools.partial(_of_one_domain, program.num_domains, loss_fn)
            if perturbed_loss_fn is not None:
                perturbed_loss_fn = functools.partial(
                    _of_one_domain, program.num_domains, perturbed_loss_fn
                )
        # XLA's convolutions are slow in loops on a CPU, and there memory is plentiful.
        on_cpu = jax.default_backend() == "cpu"
        return {
            "loss_fn": loss_fn,
            "perturbed_loss_fn": perturbed_loss_fn,
            "micro_batches": micro_batches,
            "domain_weights": weights,
            "unroll": len(weights) if on_cpu else 1,
        }

    def on(loss_fn: LossFn | None, batch: Batch | None) -> Callable[[Any], Any] | None:
        if loss_fn is None or batch is None:
            return None
        return lambda params: loss_fn(params, batch)

    return {
        "loss_fn": on(loss_fn, batch),
        "ascent_loss_fn": on(loss_fn, ascent_batch),
        "perturbed_loss_fn": on(perturbed_loss_fn, batch),
        "domain_weights": dj.domain_shares(batch.domains, program.num_domains),
    }


def _of_one_domain(
    num_domains: int, loss_fn: LossFn, params: Any, batch: Batch
) -> tuple[jax.Array, Any]:
    """The one loss of a batch that is of one domain."""
    losses, aux = loss_fn(params, batch)
    return dj.weighted_mean(losses, dj.domain_shares(batch.domains, num_domains)), aux


def of_batch(evaluation: dj.Evaluation, arguments: dict[str, Any]) -> dj.Evaluation:
    """What an update with these arguments saw of the whole batch.

    Where the ascent is on fewer examples, the losses at w are theirs.
    """
    if "micro_batches" in arguments:
        return _of_micro_batches(evaluation, arguments["domain_weights"])
    if arguments["ascent_loss_fn"] is not None:
        return evaluation._replace(losses=evaluation.ascent_losses)
    return evaluation


def _cut(program: Program, batch: Batch) -> Batch | None:
    """The batch as arrays [K, N / K, ...] with K keys, or None where it is taken whole."""
    preset, examples = program.preset, batch._replace(key=None)
    if program.method.micro_batches or preset.scope == "domain":
        count = program.num_domains
        cut = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), examples)
    elif preset.micro_batches > 1 or preset.scope == "micro_batch":
        count = preset.micro_batches
        cut = dj.micro_batches(examples, count)
    else:
        return None
    return cut._replace(key=jax.random.split(batch.key, count))


def _of_micro_batches(evaluation: dj.Evaluation, weights: jax.Array) -> dj.Evaluation:
    """Of what is stacked over micro-batches the mean, each loss by its examples."""

    def mean(x: Any) -> Any:
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), x)

    if evaluation.losses.ndim == 1:
        return evaluation._replace(aux=mean(evaluation.aux))
    shares = weights / jnp.maximum(jnp.sum(weights, axis=0), 1)
    return mean(evaluation)._replace(
        losses=jnp.sum(shares * evaluation.losses, axis=0),
        perturbed_losses=jnp.sum(shares * evaluation.perturbed_losses, axis=0),
    )
