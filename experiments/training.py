"""One training step and one evaluation for all methods, as pure functions."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import disam_jax as dj
from experiments.backbones import load_pretrained
from experiments.batches import Batch
from experiments.methods import Hyperparameters, find_method
from experiments.models import make_classifier, scale_pixels
from experiments.penalties import PENALTIES, penalty_weight
from experiments.presets import Preset


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
      init: key -> TrainState, from the preset's weights.
      train_step: (state, batch) -> (state, evaluation); the state is donated.
      predict: (state, uint8 images [N, H, W, 3]) -> logits [N, classes].
    """

    init: Callable[[jax.Array], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dj.Evaluation]]
    predict: Callable[..., jax.Array]


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
) -> Program:
    """Returns the compiled functions of `method` on the preset's model.

    Args:
      method: a name in `METHODS`.
      hyperparameters: of the method.
      preset: the model and the optimizer.
      num_classes: length of the logits.
      num_domains: M, the source domains.

    Returns:
      The program.
    """
    own = build_program(method, hyperparameters, preset, num_classes, num_domains)
    step, predict = jax.jit(own.train_step, donate_argnums=0), jax.jit(own.predict)
    return Program(own.init, step, predict)


def build_program(
    method: str,
    hyperparameters: Hyperparameters,
    preset: Preset,
    num_classes: int,
    num_domains: int,
    learning_rate: Any = None,
) -> Program:
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
      The program.
    """
    model = make_classifier(
        preset.model,
        num_classes,
        batch_norm=preset.batch_norm,
        dropout=preset.dropout,
        dtype=preset.dtype,
    )
    optimizer = make_optimizer(preset, learning_rate)
    tx = optax.chain(find_method(method).make(hyperparameters), optimizer)
    if preset.trained == "head":  # last, so that no weight decay moves the backbone either
        tx = optax.chain(tx, optax.masked(optax.set_to_zero(), _is_backbone))
    penalty = make_penalty(preset)

    @jax.jit
    def fresh_variables(key: jax.Array) -> Any:
        shape = (1, preset.image_size, preset.image_size, 3)
        return model.init(key, jnp.zeros(shape), train=False)

    def init(key: jax.Array) -> TrainState:
        variables = dict(fresh_variables(key))
        if preset.weights != "scratch":
            variables = _with_pretrained(preset, variables)
        params, stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(jnp.zeros([], jnp.int32), params, stats, tx.init(params))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dj.Evaluation]:
        def domain_losses(params: Any) -> tuple[jax.Array, Any]:
            if preset.trained == "head":
                params = params | {"backbone": jax.lax.stop_gradient(params["backbone"])}
            (logits, features), moved = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch.images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": batch.key},  # one mask for both passes: one loss function
            )
            example_losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, batch.labels
            )
            losses, _ = dj.domain_means(example_losses, batch.domains, num_domains)
            added = penalty(state.step, losses, features, logits, batch)
            return jnp.add(losses, added), moved.get("batch_stats", {})

        updates, opt_state = tx.update(
            None,  # pyright: ignore[reportArgumentType]  the method ignores what comes in
            state.opt_state,
            state.params,
            loss_fn=domain_losses,
            domain_weights=dj.domain_shares(batch.domains, num_domains),
            has_aux=True,
            record=True,
        )
        evaluation, opt_state = dj.pop_evaluation(opt_state)
        params = optax.apply_updates(state.params, updates)
        state = TrainState(state.step + 1, params, evaluation.aux, opt_state)
        return state, evaluation._replace(aux=None)

    def predict(state: TrainState, images: jax.Array) -> jax.Array:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return model.apply(variables, scale_pixels(images), train=False)[0]

    return Program(init, train_step, predict)


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
