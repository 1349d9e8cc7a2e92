"""One training step and one evaluation for all methods, as pure functions."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import disam_jax as dj
from experiments.config.preset import Preset
from experiments.data.augment import scale_pixels
from experiments.data.batches import Batch, batch_shardings
from experiments.devices import Layout, one_device
from experiments.methods.penalties import PENALTIES, penalty_weight
from experiments.methods.registry import Hyperparameters, find_method
from experiments.models.backbones import load_pretrained
from experiments.models.classifier import make_classifier
from experiments.training.micro_batches import take_batch


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
      init: key -> TrainState, from the preset's weights, placed as the layout says.
      train_step: (state, batch) -> (state, evaluation); the state is donated.
      predict: (state, uint8 images [N, H, W, 3]) -> logits [N, classes] on the host.
    """

    init: Callable[[jax.Array], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dj.Evaluation]]
    predict: Callable[..., np.ndarray]


def make_optimizer(
    preset: Preset, learning_rate: Any = None
) -> optax.GradientTransformation:
    """Returns what stands after the method in the chain; see `build_program`."""
    rate = learning_rate_schedule(preset, learning_rate)
    if preset.optimizer == "adamw":
        return optax.adamw(rate, weight_decay=preset.weight_decay)
    base = optax.adam(rate) if preset.optimizer == "adam" else optax.sgd(rate, momentum=0.9)
    # As torch.optim: the decay is part of the gradient that the optimizer scales.
    return optax.chain(optax.add_decayed_weights(preset.weight_decay), base)


def learning_rate_schedule(preset: Preset, peak: Any = None) -> optax.Schedule:
    """The preset's schedule, step -> learning rate; see `Preset`.

    Args:
      preset: with the schedule.
      peak: a traced learning rate in place of the preset's.
    """
    if peak is not None:  # Optax looks at the number, which a traced one does not have.
        unit = learning_rate_schedule(dataclasses.replace(preset, learning_rate=1.0))
        return lambda step: peak * unit(step)
    if preset.schedule == "constant":
        return optax.constant_schedule(preset.learning_rate)
    if preset.schedule == "step":
        fall = int(0.8 * preset.steps)
        return optax.piecewise_constant_schedule(preset.learning_rate, {fall: 0.1})
    warmup = max(1, preset.steps // 20)
    return optax.warmup_cosine_decay_schedule(
        0.0, preset.learning_rate, warmup, max(preset.steps, warmup + 1)
    )


@functools.lru_cache(maxsize=16)  # runs that differ in seed or domain compile once
def make_program(
    method: str,
    hyperparameters: Hyperparameters,
    preset: Preset,
    num_classes: int,
    num_domains: int,
    layout: Layout | None = None,
) -> Program:
    """Returns the compiled functions of `method` on the preset's model.

    Args:
      method: a name in `METHODS`.
      hyperparameters: of the method.
      preset: the model and the optimizer.
      num_classes: length of the logits.
      num_domains: M, the source domains.
      layout: where its arrays lie; None is one device.

    Returns:
      The program.
    """
    layout = layout or one_device()
    own = build_program(method, hyperparameters, preset, num_classes, num_domains)
    of_state = layout.of_state(jax.eval_shape(own.fresh, jax.random.key(0)))
    train_step = jax.jit(
        own.train_step,
        donate_argnums=0,
        in_shardings=(of_state, batch_shardings(layout)),
        out_shardings=(of_state, layout.replicated),
    )
    logits = jax.jit(
        own.logits,
        in_shardings=(of_state, layout.spread),
        out_shardings=layout.replicated,
    )

    def predict(state: TrainState, images: np.ndarray) -> np.ndarray:
        missing = -len(images) % len(layout.devices)
        filled = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        placed = layout.put(filled, layout.spread)
        return np.asarray(logits(state, placed))[: len(images)]

    def init(key: jax.Array) -> TrainState:
        return layout.put(own.init(key), of_state)

    return Program(init, train_step, predict)


class Functions(NamedTuple):
    """The functions of a program before they are compiled, pure but for `init`.

    Attributes:
      fresh: key -> TrainState, from random weights.
      init: key -> TrainState, from the preset's weights.
      train_step: (state, batch) -> (state, evaluation).
      logits: (state, uint8 images [N, H, W, 3]) -> logits [N, classes].
    """

    fresh: Callable[[jax.Array], TrainState]
    init: Callable[[jax.Array], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dj.Evaluation]]
    logits: Callable[[TrainState, jax.Array], jax.Array]


def build_program(
    method: str,
    hyperparameters: Hyperparameters,
    preset: Preset,
    num_classes: int,
    num_domains: int,
    learning_rate: Any = None,
) -> Functions:
    """Returns the functions of `make_program` before they are compiled.

    Inside a function that is transformed or compiled, rho, alpha, lam and the learning
    rate may be traced.

    Args:
      method: a name in `METHODS`.
      hyperparameters: of the method.
      preset: the model and the optimizer.
      num_classes: length of the logits.
      num_domains: M, the source domains.
      learning_rate: a traced one in place of the preset's, which must be a number.

    Returns:
      The functions.
    """
    model = _model(preset, preset.dtype, num_classes)
    perturbed_model = None
    if preset.perturbed_dtype != "same":
        perturbed_model = _model(preset, preset.perturbed_dtype, num_classes)
    spec = find_method(method)
    examples = spec.chooser(hyperparameters)
    tx = _optimizer_chain(method, hyperparameters, preset, learning_rate)
    penalty = make_penalty(preset)

    def random_variables(key: jax.Array) -> Any:
        shape = (1, preset.image_size, preset.image_size, 3)
        return dict(model.init(key, jnp.zeros(shape), train=False))

    def as_state(variables: dict[str, Any]) -> TrainState:
        params, stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(jnp.zeros([], jnp.int32), params, stats, tx.init(params))

    def fresh(key: jax.Array) -> TrainState:
        return as_state(random_variables(key))

    def init(key: jax.Array) -> TrainState:
        variables = jax.jit(random_variables)(key)
        if preset.weights != "scratch":
            variables = _with_pretrained(preset, variables)
        return as_state(variables)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dj.Evaluation]:
        def forward(model: Any, params: Any, batch: Batch) -> tuple[jax.Array, Any]:
            if preset.trained == "head":
                backbone = jax.lax.stop_gradient(params["backbone"])
                params = params | {"backbone": backbone}
            (logits, features), moved = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch.images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": batch.key},  # one mask for both: one loss function
            )
            example_losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, batch.labels
            )
            return example_losses, (logits, features, moved.get("batch_stats", {}))

        def losses_of(model: Any) -> Callable[..., tuple[jax.Array, Any]]:
            def domain_losses(params: Any, batch: Batch) -> tuple[jax.Array, Any]:
                example_losses, seen = forward(model, params, batch)
                logits, features, stats = seen
                losses, _ = dj.domain_means(example_losses, batch.domains, num_domains)
                added = penalty(state.step, losses, features, logits, batch)
                return jnp.add(losses, added), stats

            return domain_losses

        chosen = examples(
            batch, num_domains, lambda batch: forward(model, state.params, batch)[0]
        )
        taken = take_batch(preset, chosen, num_domains, spec.micro_batches)
        perturbed_losses = None if perturbed_model is None else losses_of(perturbed_model)
        updates, opt_state = tx.update(
            None,  # pyright: ignore[reportArgumentType]  the method ignores what comes in
            state.opt_state,
            state.params,
            **taken.arguments(losses_of(model), perturbed_losses),
            has_aux=True,
            record=True,
            compute_dtype=None if preset.dtype == "float32" else preset.dtype,
        )
        evaluation, opt_state = dj.pop_evaluation(opt_state)
        evaluation = taken.of_batch(evaluation)
        # What overflowed leaves the statistics alone too.
        good = jnp.isfinite(evaluation.gradient_norm)
        stats = jax.tree.map(
            lambda new, old: jnp.where(good, new, old), evaluation.aux, state.batch_stats
        )
        params = optax.apply_updates(state.params, updates)
        state = TrainState(state.step + 1, params, stats, opt_state)
        return state, evaluation._replace(aux=None)

    def logits(state: TrainState, images: jax.Array) -> jax.Array:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return model.apply(variables, scale_pixels(images), train=False)[0]

    return Functions(fresh, init, train_step, logits)


def _model(preset: Preset, dtype: str, num_classes: int) -> Any:
    return make_classifier(
        preset.model,
        num_classes,
        batch_norm=preset.batch_norm,
        dropout=preset.dropout,
        dtype=dtype,
    )


def _optimizer_chain(
    method: str, hyperparameters: Hyperparameters, preset: Preset, learning_rate: Any
) -> optax.GradientTransformationExtraArgs:
    """The method, what it is computed on, the optimizer, and what keeps float16 whole."""
    source = find_method(method).make(hyperparameters)
    if preset.scope != "batch":
        source = dj.per_micro_batch(source)
    tx = optax.chain(source, make_optimizer(preset, learning_rate))
    if preset.trained == "head":  # last, so that no weight decay moves the backbone either
        tx = optax.chain(tx, optax.masked(optax.set_to_zero(), _is_backbone))
    return dj.scale_loss(tx) if preset.dtype == "float16" else tx


def make_penalty(preset: Preset) -> Callable[..., jax.Array | float]:
    """Returns what is added to every domain's loss, with its weight at the step.

    Added to all of them alike it joins their mean and leaves their variance as it is, so
    it combines with every ascent and descent objective.
    """
    if preset.penalty == "none":
        return lambda step, losses, features, logits, batch: 0.0
    spec = PENALTIES[preset.penalty]

    def added(
        step: jax.Array, losses: Any, features: Any, logits: Any, batch: Batch
    ) -> jax.Array:
        weight = penalty_weight(preset.penalty, preset.penalty_weight, step)
        return weight * spec.penalty(losses, features, logits, batch.labels, batch.domains)

    return added


def _is_backbone(params: Any) -> Any:
    return {name: name == "backbone" for name in params}


def _with_pretrained(preset: Preset, variables: dict[str, Any]) -> dict[str, Any]:
    """The variables with the backbone's read from the preset's file."""
    backbone = {
        name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree
    }
    path = None if preset.weights == "package" else Path(preset.weights)
    loaded = load_pretrained(preset.model, path, backbone)
    return {
        name: {**tree, "backbone": loaded[name]} if name in loaded else tree
        for name, tree in variables.items()
    }
