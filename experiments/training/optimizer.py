"""What turns a method's gradients into updates."""

import optax

import disam_jax as dj
from experiments.config.preset import Preset
from experiments.methods.method import Hyperparameters, Method


def make_chain(
    method: Method, h: Hyperparameters, preset: Preset
) -> optax.GradientTransformationExtraArgs:
    """The method, what it is computed on, the optimizer, and what keeps float16 whole."""
    rate = learning_rate_schedule(preset, method.peak_rate(h))
    of_run = {"learning_rate": rate, "weight_decay": preset.weight_decay}
    tx = method.make(h, run_steps=preset.steps, **of_run)
    if preset.scope != "batch":
        tx = dj.per_micro_batch(tx)
    own = method.optimizer
    tx = optax.chain(tx, make_optimizer(preset) if own is None else own(**of_run))
    return dj.scale_loss(tx) if preset.dtype == "float16" else tx


def make_optimizer(preset: Preset) -> optax.GradientTransformation:
    """What stands after the method in the chain; its numbers may be traced."""
    rate = learning_rate_schedule(preset)
    if preset.optimizer == "adamw":
        return optax.adamw(rate, weight_decay=preset.weight_decay)
    base = optax.adam(rate) if preset.optimizer == "adam" else optax.sgd(rate, momentum=0.9)
    # As torch.optim: the decay is part of the gradient that the optimizer scales.
    return optax.chain(optax.add_decayed_weights(preset.weight_decay), base)


def learning_rate_schedule(preset: Preset, peak: float | None = None) -> optax.Schedule:
    """The preset's schedule, step -> learning rate; see `Preset`.

    Args:
      preset: of the run.
      peak: of a method that brings its optimizer; None is the preset's.
    """
    # Optax looks at the peak of a schedule, and a traced one cannot be looked at.
    unit = _unit_schedule(preset)
    highest = preset.learning_rate if peak is None else peak
    return lambda step: highest * unit(step)


def _unit_schedule(preset: Preset) -> optax.Schedule:
    """The schedule with a peak of 1."""
    if preset.schedule == "constant":
        return optax.constant_schedule(1.0)
    if preset.schedule == "annealed":
        return optax.cosine_decay_schedule(1.0, max(preset.steps, 1))
    if preset.schedule == "step":
        return optax.piecewise_constant_schedule(1.0, {int(0.8 * preset.steps): 0.1})
    warmup = max(1, preset.steps // 20)
    return optax.warmup_cosine_decay_schedule(
        0.0, 1.0, warmup, max(preset.steps, warmup + 1)
    )
