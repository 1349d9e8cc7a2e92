"""What turns a method's gradients into updates."""

import dataclasses
from typing import Any

import optax

import disam_jax as dj
from experiments.config.preset import Preset


def make_chain(
    method: optax.GradientTransformationExtraArgs, preset: Preset, learning_rate: Any = None
) -> optax.GradientTransformationExtraArgs:
    """The method, what it is computed on, the optimizer, and what keeps float16 whole.

    A traced learning rate is the schedule's peak in place of the preset's.
    """
    if preset.scope != "batch":
        method = dj.per_micro_batch(method)
    tx = optax.chain(method, make_optimizer(preset, learning_rate))
    if preset.trained == "head":  # last, so that no weight decay moves the backbone either
        tx = optax.chain(tx, optax.masked(optax.set_to_zero(), _is_backbone))
    return dj.scale_loss(tx) if preset.dtype == "float16" else tx


def make_optimizer(
    preset: Preset, learning_rate: Any = None
) -> optax.GradientTransformation:
    """What stands after the method in the chain; see `make_chain`."""
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


def _is_backbone(params: Any) -> Any:
    return {name: name == "backbone" for name in params}
