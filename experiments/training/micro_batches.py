"""How a step takes its batch: whole, or in pieces."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import disam_jax as dj
from experiments.config.preset import Preset
from experiments.data.batches import Batch
from experiments.methods.examples import Chosen


class Whole(NamedTuple):
    """A batch taken at once.

    Attributes:
      batch: all of it.
      weights: [M], each domain's share of it.
      climbed: the examples that the ascent is on; None is all of them.
    """

    batch: Batch
    weights: Any
    climbed: Batch | None = None

    def arguments(self, loss_fn: Callable, perturbed: Callable | None) -> dict[str, Any]:
        """What the method's update is told; the loss functions take (params, Batch)."""
        on_batch = {
            "loss_fn": lambda params: loss_fn(params, self.batch),
            "domain_weights": self.weights,
        }
        if self.climbed is not None:
            on_batch["ascent_loss_fn"] = lambda params: loss_fn(params, self.climbed)
        if perturbed is not None:
            on_batch["perturbed_loss_fn"] = lambda params: perturbed(params, self.batch)
        return on_batch

    def of_batch(self, evaluation: dj.Evaluation) -> dj.Evaluation:
        """The evaluation of the whole batch, or at w of the examples that are climbed."""
        if self.climbed is None:
            return evaluation
        return evaluation._replace(losses=evaluation.ascent_losses)


class Pieces(NamedTuple):
    """A batch taken piece by piece.

    Attributes:
      batches: a Batch with arrays [K, N / K, ...] and a key for each piece.
      weights: [K, M], the examples of each domain in each piece.
    """

    batches: Batch
    weights: jax.Array

    def arguments(self, loss_fn: Callable, perturbed: Callable | None) -> dict[str, Any]:
        """What the method's update is told; the loss functions take (params, Batch)."""
        # XLA's convolutions are slow in loops on a CPU, and there memory is plentiful.
        on_cpu = jax.default_backend() == "cpu"
        return {
            "loss_fn": loss_fn,
            "perturbed_loss_fn": perturbed,
            "micro_batches": self.batches,
            "domain_weights": self.weights,
            "unroll": len(self.weights) if on_cpu else 1,
        }

    def of_batch(self, evaluation: dj.Evaluation) -> dj.Evaluation:
        """The evaluation of the whole batch: of what is stacked over pieces the mean."""
        evaluation = evaluation._replace(
            aux=jax.tree.map(lambda x: jnp.mean(x, axis=0), evaluation.aux)
        )
        if evaluation.losses.ndim == 1:
            return evaluation
        shares = self.weights / jnp.maximum(jnp.sum(self.weights, axis=0), 1)
        mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), evaluation._replace(aux=None))
        return mean._replace(
            losses=jnp.sum(shares * evaluation.losses, axis=0),
            perturbed_losses=jnp.sum(shares * evaluation.perturbed_losses, axis=0),
            aux=evaluation.aux,
        )


def take_batch(
    preset: Preset,
    chosen: Chosen,
    num_domains: int,
    pieces: bool = False,
) -> Whole | Pieces:
    """The batch as the preset's scope and micro_batches take it.

    Args:
      preset: says how.
      chosen: the examples, flat; for scope `domain`, and with `pieces`, as many of each
        domain, one after another.
      num_domains: M.
      pieces: whether the method is given the domains as pieces.

    Returns:
      What to give to the method.
    """
    batch = chosen.descended
    if pieces or preset.scope == "domain":
        count = num_domains
        cut = jax.tree.map(
            lambda x: x.reshape(count, -1, *x.shape[1:]), batch._replace(key=None)
        )
    elif preset.micro_batches > 1 or preset.scope == "micro_batch":
        count = preset.micro_batches
        cut = dj.micro_batches(batch._replace(key=None), count)
    else:
        shares = dj.domain_shares(batch.domains, num_domains)
        return Whole(batch, shares, chosen.climbed)
    examples_of = jax.vmap(lambda ids: jnp.bincount(ids, length=num_domains))
    keys = jax.random.split(batch.key, count)
    return Pieces(cut._replace(key=keys), examples_of(cut.domains))
