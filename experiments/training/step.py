"""The training step of all methods and the forward pass, as pure functions.

They are compiled where they are called: by `compile_step` and `compile_predict` for one
run, under `vmap` for a population.
"""

import dataclasses
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
from experiments.models.tuning import Model, Params, among_classes
from experiments.training.bma import take_in
from experiments.training.micro_batches import of_batch, update_arguments
from experiments.training.pattern import Numbers
from experiments.training.program import Program, TrainState, shapes


def train_step(
    program: Program, frozen: Params, state: TrainState, batch: Batch
) -> tuple[TrainState, dj.Evaluation]:
    """Returns the state after one step, and what the step saw."""
    batch = batch._replace(labels=among_classes(batch.labels, program.seen))
    loss_fn = functools.partial(domain_losses, program, program.model, frozen, state)
    perturbed_loss_fn = None
    if program.perturbed_model is not None:
        perturbed_loss_fn = functools.partial(
            domain_losses, program, program.perturbed_model, frozen, state
        )
    choose = program.method.chooser(program.hyperparameters)
    chosen = choose(
        batch,
        program.num_domains,
        lambda batch: forward(program, program.model, frozen, state, state.params, batch)[
            0
        ],
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
    average, preset, done = {}, program.preset, state.step + 1
    if preset.bma:
        average = take_in(state.average, (params, stats), done, preset.steps, preset.bma)
    state = TrainState(done, params, stats, opt_state, average)
    # What would keep eps through the second pass is not asked for.
    return state, evaluation._replace(aux=None, perturbed_rise=None)


def domain_losses(
    program: Program,
    model: Model,
    frozen: Params,
    state: TrainState,
    params: Params,
    batch: Batch,
) -> tuple[jax.Array, Any]:
    """The losses of a batch's domains [M], and BatchNorm's statistics after it."""
    example_losses, logits, features, stats = forward(
        program, model, frozen, state, params, batch
    )
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
    program: Program,
    model: Model,
    frozen: Params,
    state: TrainState,
    params: Params,
    batch: Batch,
) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """Example losses [N], logits, features, and BatchNorm's statistics after the batch."""
    weights = model.tuning.weights(program.gather(frozen | params), program.seen)
    (logits, features), moved = model.module.apply(
        {"params": weights, "batch_stats": state.batch_stats},
        batch.images,
        train=True,
        dropout=program.preset.dropout,
        mutable=["batch_stats"],
        rngs={"dropout": batch.key},  # one mask at w and w + eps: one loss function
    )
    losses = model.tuning.loss(weights, logits, batch.labels)
    return losses, logits, features, moved.get("batch_stats", {})


@functools.lru_cache(maxsize=16)  # runs of a pattern compile once
def compile_step(
    program: Program, layout: Layout
) -> Callable[[Numbers, Params, TrainState, Batch], tuple[TrainState, dj.Evaluation]]:
    """The compiled step, (numbers, frozen, state, batch) -> (state, evaluation).

    The numbers are those of a run of the program's pattern; the state is donated.
    """
    program = dataclasses.replace(program, gather=layout.gather)

    def step(
        numbers: Numbers, frozen: Params, state: TrainState, batch: Batch
    ) -> tuple[TrainState, dj.Evaluation]:
        return train_step(program.with_numbers(numbers), frozen, state, batch)

    of_state, of_frozen = layout.of_state(shapes(program))
    return jax.jit(
        step,
        donate_argnums=2,
        in_shardings=(layout.replicated, of_frozen, of_state, batch_shardings(layout)),
        out_shardings=(of_state, layout.replicated),
    )


@functools.lru_cache(maxsize=16)  # all runs of a model
def compile_predict(
    model: Model, layout: Layout
) -> Callable[[Params, TrainState], Callable[[np.ndarray], np.ndarray]]:
    """(frozen, state) -> what makes logits of uint8 images on the host, compiled.

    The weights are made once, and then [N, H, W, 3] -> [N, classes] as often as asked.
    """
    weigh = jax.jit(model.tuning.weights)

    def compute(weights: Params, batch_stats: Any, images: jax.Array) -> jax.Array:
        variables = {"params": layout.gather(weights), "batch_stats": batch_stats}
        return model.module.apply(variables, scale_pixels(images), train=False)[0]  # pyright: ignore[reportReturnType]

    compiled = jax.jit(compute, out_shardings=layout.replicated)

    def predictor(frozen: Params, state: TrainState) -> Callable[[np.ndarray], np.ndarray]:
        weights = weigh(frozen | state.params)

        def predict(images: np.ndarray) -> np.ndarray:
            missing = -len(images) % len(layout.devices)
            filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
            placed = layout.put(filled, layout.spread)
            logits = compiled(weights, state.batch_stats, placed)
            return np.asarray(logits)[: len(images)]

        return predict

    return predictor
