"""One training step and one evaluation for all methods, as pure functions."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import disam_jax as dj
from experiments.batches import Batch, scale_pixels
from experiments.config import Preset
from experiments.methods import Hyperparameters, find_method
from experiments.models import MODELS


class TrainState(NamedTuple):
    """All that a step changes; checkpoints hold just this.

    Attributes:
      step: int32 scalar, the steps done.
      params: the model's parameters.
      batch_stats: BatchNorm's running statistics, empty without BatchNorm.
      opt_state: of the whole chain, the method's state first.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


class Program(NamedTuple):
    """The compiled functions of a method on a model; the same for every domain and seed.

    Attributes:
      init: (key, image shape) -> TrainState.
      train_step: (state, batch) -> (state, evaluation); the state is donated.
      predict: (state, uint8 images [N, H, W, 3]) -> logits [N, classes].
    """

    init: Callable[..., TrainState]
    train_step: Callable[..., tuple[TrainState, dj.Evaluation]]
    predict: Callable[..., jax.Array]


def make_optimizer(preset: Preset) -> optax.GradientTransformation:
    """Returns what stands after the method in the chain."""
    rate = learning_rate_schedule(preset)
    if preset.optimizer == "sgd":
        decay = optax.add_decayed_weights(preset.weight_decay)
        return optax.chain(decay, optax.sgd(rate, momentum=0.9))
    return optax.adamw(rate, weight_decay=preset.weight_decay)


def learning_rate_schedule(preset: Preset) -> optax.Schedule:
    """Linear from 0 over the first 5 % of the steps, then a cosine to 0."""
    warmup = max(1, preset.steps // 20)
    return optax.warmup_cosine_decay_schedule(
        0.0, preset.learning_rate, warmup, max(preset.steps, warmup + 1)
    )


@functools.lru_cache(maxsize=16)  # runs that differ in seed or domain compile once
def make_program(
    method: str, hyperparameters: Hyperparameters, preset: Preset, num_classes: int
) -> Program:
    """Returns the compiled functions of `method` on the preset's model.

    Args:
      method: a name in `METHODS`.
      hyperparameters: of the method.
      preset: the model and the optimizer.
      num_classes: length of the logits.

    Returns:
      The program.
    """
    model = MODELS[preset.model](num_classes=num_classes)
    source = find_method(method).make(hyperparameters)
    tx = optax.chain(source, make_optimizer(preset))

    def init(key: jax.Array, image_shape: tuple[int, ...]) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape)), train=True)
        params = variables["params"]
        stats = variables.get("batch_stats", {})
        return TrainState(jnp.zeros([], jnp.int32), params, stats, tx.init(params))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dj.Evaluation]:
        def domain_losses(params: Any) -> tuple[jax.Array, Any]:
            logits, moved = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch.images.reshape(-1, *batch.images.shape[2:]),
                train=True,
                mutable=["batch_stats"],
            )
            example_losses = optax.softmax_cross_entropy_with_integer_labels(
                logits.reshape(*batch.labels.shape, num_classes), batch.labels
            )
            return jnp.mean(example_losses, axis=1), moved.get("batch_stats", {})

        updates, opt_state = tx.update(
            None,  # pyright: ignore[reportArgumentType]  the method ignores what comes in
            state.opt_state,
            state.params,
            loss_fn=domain_losses,
            has_aux=True,
            record=True,
        )
        evaluation, opt_state = dj.pop_evaluation(opt_state)
        params = optax.apply_updates(state.params, updates)
        state = TrainState(state.step + 1, params, evaluation.aux, opt_state)
        return state, evaluation._replace(aux=None)

    def predict(state: TrainState, images: jax.Array) -> jax.Array:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return model.apply(variables, scale_pixels(images), train=False)  # pyright: ignore[reportReturnType]

    return Program(
        jax.jit(init, static_argnums=1),
        jax.jit(train_step, donate_argnums=0),
        jax.jit(predict),
    )


def accuracies(
    program: Program,
    state: TrainState,
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    chunk: int = 512,
) -> list[float]:
    """The share of right answers on each part.

    Args:
      program: of the run.
      state: to evaluate.
      parts: pairs of uint8 images [N, H, W, 3] and labels [N].
      chunk: images per call; the last chunk is filled up, so that all have one shape.

    Returns:
      One fraction per part.
    """
    parts = list(parts)
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    filled = np.pad(images, ((0, -len(images) % chunk), (0, 0), (0, 0), (0, 0)))
    logits = [
        program.predict(state, filled[i : i + chunk]) for i in range(0, len(filled), chunk)
    ]
    right = np.concatenate(logits)[: len(labels)].argmax(-1) == labels
    ends = np.cumsum([len(labels) for _, labels in parts])
    return [float(part.mean()) for part in np.split(right, ends[:-1])]
