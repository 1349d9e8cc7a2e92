"""The training step of all methods and the forward pass, as pure functions.

They are compiled where they are called: by `compile_step` and `compile_predict` for one
run, under `vmap` for a population.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import disam_jax as dj
from experiments.config.preset import Preset
from experiments.data.augment import scale_pixels
from experiments.data.batches import Batch, batch_shardings
from experiments.devices import Layout
from experiments.methods.penalties import PENALTIES, penalty_weight
from experiments.training.micro_batches import of_batch, update_arguments
from experiments.training.pattern import Numbers
from experiments.training.program import Program, TrainState, state_shapes


def train_step(
    program: Program, state: TrainState, batch: Batch
) -> tuple[TrainState, dj.Evaluation]:
    """Returns the state after one step, and what the step saw."""
    loss_fn = functools.partial(domain_losses, program, program.model, state)
    perturbed_loss_fn = None
    if program.perturbed_model is not None:
        perturbed_loss_fn = functools.partial(
            domain_losses, program, program.perturbed_model, state
        )
    choose = program.method.chooser(program.hyperparameters)
    chosen = choose(
        batch,
        program.num_domains,
        lambda batch: forward(program, program.model, state, state.params, batch)[0],
    )
    arguments = update_arguments(program, chosen, loss_fn, perturbed_loss_fn)
    dtype = program.preset.dtype
    updates, opt_state = program.tx.update(
        None,  # pyright: ignore[reportArgumentType]  the method ignores what comes in
        state.opt_state,
        state.params,
        **arguments,
        has_aux=True,
        record=True,
        compute_dtype=None if dtype == "float32" else dtype,
    )
    evaluation, opt_state = dj.pop_evaluation(opt_state)
    evaluation = of_batch(evaluation, arguments)
    # What overflowed leaves the statistics alone too.
    good = jnp.isfinite(evaluation.gradient_norm)
    stats = optax.tree.where(good, evaluation.aux, state.batch_stats)
    params = optax.apply_updates(state.params, updates)
    state = TrainState(state.step + 1, params, stats, opt_state)
    return state, evaluation._replace(aux=None)


def domain_losses(
    program: Program, model: Any, state: TrainState, params: Any, batch: Batch
) -> tuple[jax.Array, Any]:
    """The losses of a batch's domains [M], and BatchNorm's statistics after it."""
    example_losses, logits, features, stats = forward(program, model, state, params, batch)
    losses, _ = dj.domain_means(example_losses, batch.domains, program.num_domains)
    penalty = weighted_penalty(program.preset, state.step, losses, features, logits, batch)
    return jnp.add(losses, penalty), stats


def weighted_penalty(
    preset: Preset, step: jax.Array, losses: Any, features: Any, logits: Any, batch: Batch
) -> jax.Array | float:
    """What is added to every domain's loss at a step.

    Added to all of them alike it joins their mean and leaves their variance as it is, so
    it combines with every ascent and descent objective.
    """
    if preset.penalty == "none":
        return 0.0
    penalty = PENALTIES[preset.penalty].penalty
    weight = penalty_weight(
        preset.penalty, preset.penalty_weight, step, preset.penalty_start
    )
    return weight * penalty(losses, features, logits, batch.labels, batch.domains)


def forward(
    program: Program, model: Any, state: TrainState, params: Any, batch: Batch
) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """Example losses [N], logits, features, and BatchNorm's statistics after the batch."""
    if program.preset.trained == "head":
        params = params | {"backbone": jax.lax.stop_gradient(params["backbone"])}
    (logits, features), moved = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        batch.images,
        train=True,
        dropout=program.preset.dropout,
        mutable=["batch_stats"],
        rngs={"dropout": batch.key},  # one mask at w and w + eps: one loss function
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    return losses, logits, features, moved.get("batch_stats", {})


@functools.lru_cache(maxsize=16)  # runs of a pattern compile once
def compile_step(
    program: Program, layout: Layout
) -> Callable[[Numbers, TrainState, Batch], tuple[TrainState, dj.Evaluation]]:
    """The compiled step, (numbers, state, batch) -> (state, evaluation).

    The numbers are those of a run of the program's pattern; the state is donated.
    """

    def step(
        numbers: Numbers, state: TrainState, batch: Batch
    ) -> tuple[TrainState, dj.Evaluation]:
        return train_step(program.with_numbers(numbers), state, batch)

    of_state = layout.of_state(state_shapes(program))
    return jax.jit(
        step,
        donate_argnums=1,
        in_shardings=(layout.replicated, of_state, batch_shardings(layout)),
        out_shardings=(of_state, layout.replicated),
    )


@functools.lru_cache(maxsize=16)  # all runs of a model
def compile_predict(
    model: Any, layout: Layout
) -> Callable[[TrainState, np.ndarray], np.ndarray]:
    """(state, uint8 images [N, H, W, 3]) -> logits [N, classes] on the host, compiled."""

    def compute(params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": batch_stats}
        return model.apply(variables, scale_pixels(images), train=False)[0]

    compiled = jax.jit(compute, out_shardings=layout.replicated)

    def predict(state: TrainState, images: np.ndarray) -> np.ndarray:
        missing = -len(images) % len(layout.devices)
        filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        placed = layout.put(filled, layout.spread)
        logits = compiled(state.params, state.batch_stats, placed)
        return np.asarray(logits)[: len(images)]

    return predict
