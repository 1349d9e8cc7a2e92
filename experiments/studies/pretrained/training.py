"""Training of what stands behind the frozen part: a run of the study."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import disam_jax as dj
from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.batches import TrainingImages
from experiments.fields import digest
from experiments.methods.registry import find_method
from experiments.models.classifier import Classifier
from experiments.models.efficientnet_lite import BLOCKS, EfficientNetLite0
from experiments.models.linear_head import OF_A_HEAD
from experiments.models.tuning import Model
from experiments.studies.kit.run import load_once
from experiments.studies.pretrained.frozen import CUT, kept_maps, part
from experiments.studies.pretrained.images import Pool, draw_views, pool
from experiments.training.evaluation import CHUNK
from experiments.training.feed import batch_key
from experiments.training.pattern import numbers_of, pattern
from experiments.training.program import Program, TrainState
from experiments.training.run import init_key
from experiments.training.step import domain_losses, train_step

LOOKS = 10  # at the gradients of the domains, evenly over the steps
AVERAGED = 0.2  # share of the steps, the last ones, whose weights are averaged
STATISTICS = 64  # batches that BatchNorm's statistics are estimated on


@dataclasses.dataclass(frozen=True)
class TailSpec:
    """A run that trains the blocks behind the frozen ones, and the head.

    Attributes:
      config: of the run.
      permuted: whether the domain labels of every batch are permuted, images and classes
        left as they are.
    """

    config: RunConfig
    permuted: bool = False

    @property
    def data_options(self) -> tuple[tuple[str, Any], ...]:
        """None: the data set as it stands."""
        return ()

    @property
    def digest(self) -> str:
        """Of all fields, and of what the module fixes: the id of the run's record."""
        return digest([self, CUT, LOOKS, AVERAGED, STATISTICS], length=24)

    def train(self, folder: Path) -> dict[str, Any]:
        """The outcome, see `train_tail`; what the frozen part makes is kept."""
        data = load_once(self.config.data, self.config.preset.image_size)
        return train_tail(self, data, kept_maps(data, folder / "maps"))

    def first_batch(self) -> None:
        """It draws no images, but what the frozen part made of them."""


@dataclasses.dataclass(frozen=True)
class TailProgram(Program):
    """A method on the blocks behind the frozen ones."""

    @functools.cached_property
    def model(self) -> Model:
        """Those blocks and the head, all trained."""
        module = tail_model(len(self.classes), "frozen", self.preset.dtype)
        return Model(module, OF_A_HEAD["finetune"]())


def tail_model(num_classes: int, batch_norm: str, dtype: str = "float32") -> Classifier:
    """What the frozen part hands on [B, H, W, C] -> logits."""
    compute = jnp.dtype(dtype)
    backbone = EfficientNetLite0(batch_norm, compute, (CUT, BLOCKS))
    return Classifier(backbone, num_classes, (0.0,), (1.0,), compute)


def train_tail(spec: TailSpec, data: DomainData, maps: np.ndarray) -> dict[str, Any]:
    """Trains the run and measures it.

    Args:
      spec: of the run.
      data: that its config names.
      maps: what the frozen part makes of the data, see `kept_maps`.

    Returns:
      `looks`, of which there is one, at the end: accuracies of the averaged weights, and of
      LOOKS steps the domains' losses [T][M] and the products of their gradients
      [T][M][M]; `losses` of all steps [M]; `diverged`, the step at which a loss was not
      finite, or None.
    """
    config = spec.config
    sources = [data.domain_index(name) for name in config.sources(data.domains)]
    images = pool(config, data, maps)
    training = jax.device_put(images.training(sources))
    program = tail_program(config, data.classes, len(sources))
    given = numbers_of(config), training, batch_key(config)
    step, look = (make(program, spec.permuted) for make in (_compile_step, _compile_look))
    steps = config.preset.steps
    averaged = max(1, round(AVERAGED * steps))
    state, losses, seen, ends = first_state(program, config, training), [], [], None
    for done in range(steps):
        if done in look_steps(steps):
            seen.append(look(*given, state))
        state, evaluation = step(*given, state)
        losses.append(evaluation.losses)
        count = done + 1 - (steps - averaged)
        if count > 0:
            ends = _averaged(ends or state.params, state.params, 1 / count)
    finite = np.isfinite(np.asarray(losses)).all(1)
    if not finite.all():
        return {"looks": [], "losses": [], "diverged": int(np.argmin(finite))}
    unseen = data.domain_index(config.unseen)
    final = {
        "step": steps,
        **scores(program, state._replace(params=ends), images, sources, unseen),
        "batch_losses": _to_six_digits([of_each for of_each, _ in seen]),
        "batch_grams": _to_six_digits([products for _, products in seen]),
    }
    mean_losses = _to_six_digits(np.mean(losses, axis=0))
    return {"looks": [final], "losses": mean_losses, "diverged": None}


def look_steps(steps: int) -> set[int]:
    """The steps before which the gradients of the domains are looked at."""
    return {steps * (2 * i + 1) // (2 * LOOKS) for i in range(LOOKS)}


def tail_program(
    config: RunConfig, classes: tuple[str, ...], num_domains: int
) -> TailProgram:
    """The program of all runs of the config's pattern."""
    common = pattern(config)
    method = find_method(config.method)
    return TailProgram(method, common.hyperparameters, common.preset, classes, num_domains)


def first_state(
    program: Program, config: RunConfig, training: TrainingImages
) -> TrainState:
    """ImageNet's weights, a new head, and BatchNorm's statistics of the sources."""
    head = _draw_head(program.model.module, training.images.shape[2:], init_key(config))
    own = part((CUT, BLOCKS))
    params = {"backbone": own["params"], "head": head}
    params = jax.tree.map(jnp.array, params)  # a step donates them
    stats = {"backbone": jax.tree.map(jnp.array, own["batch_stats"])}
    live = _compile_statistics(len(program.classes), config.preset.batch_size)
    key = jax.random.fold_in(batch_key(config), STATISTICS)
    for i in range(STATISTICS):
        stats = live(params, stats, training, key, i)
    return TrainState(jnp.zeros([], jnp.int32), params, stats, program.tx.init(params), {})


@functools.partial(jax.jit, static_argnums=(0, 1))
def _draw_head(model: Classifier, shape: tuple[int, ...], key: jax.Array) -> Any:
    return model.init(key, jnp.zeros((1, *shape)), train=False)["params"]["head"]


def scores(
    program: Program, state: TrainState, images: Pool, sources: Sequence[int], unseen: int
) -> dict[str, float]:
    """Accuracies on the images as they are, and on those that are trained on."""
    predict = _compile_predict(len(program.classes))
    right = []
    for start in range(0, len(images.labels), CHUNK):
        chunk = images.maps[start : start + CHUNK, 0]
        filled = np.pad(chunk, ((0, CHUNK - len(chunk)), (0, 0), (0, 0), (0, 0)))
        logits = predict(state.params, state.batch_stats, filled)
        right.append(np.asarray(logits)[: len(chunk)].argmax(-1))
    correct = np.concatenate(right) == images.labels

    def accuracy(domains: Sequence[int], mask: np.ndarray) -> float:
        of_each = [correct[(images.domains == d) & mask].mean() for d in domains]
        return float(np.mean(of_each))

    everything = np.ones_like(images.held)
    return {
        "unseen_concept_accuracy": accuracy([unseen], images.held),
        "out_of_domain_accuracy": accuracy([unseen], everything),
        "in_domain_accuracy": accuracy(sources, images.held),
        "training_accuracy": accuracy(sources, ~images.held),
    }


Step = Callable[..., tuple[TrainState, dj.Evaluation]]


@functools.lru_cache(maxsize=16)  # runs of a pattern compile once
def _compile_step(program: TailProgram, permuted: bool) -> Step:
    def step(
        numbers: Any, training: TrainingImages, key: jax.Array, state: TrainState
    ) -> tuple[TrainState, dj.Evaluation]:
        batch = draw_views(training, key, state.step, program.preset.batch_size, permuted)
        return train_step(program.with_numbers(numbers), {}, state, batch)

    return jax.jit(step, donate_argnums=3)


@functools.lru_cache(maxsize=16)
def _compile_look(program: TailProgram, permuted: bool) -> Callable[..., Any]:
    """The losses [M] and the products of the gradients [M, M] that the next step meets."""

    @jax.jit
    def look(
        numbers: Any, training: TrainingImages, key: jax.Array, state: TrainState
    ) -> tuple[jax.Array, jax.Array]:
        own = program.with_numbers(numbers)
        batch = draw_views(training, key, state.step, own.preset.batch_size, permuted)
        losses, pull = jax.vjp(
            lambda p: domain_losses(own, own.model, {}, state, p, batch)[0], state.params
        )
        ways = [pull(row)[0] for row in jnp.eye(len(losses))]
        return losses, jnp.array([[_dot(a, b) for a in ways] for b in ways])

    return look


def _dot(a: Any, b: Any) -> jax.Array:
    return sum(
        jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)), jnp.zeros(())
    )


@functools.lru_cache(maxsize=4)
def _compile_statistics(num_classes: int, batch_size: int) -> Callable[..., Any]:
    model = tail_model(num_classes, "live")

    @jax.jit
    def move(
        params: Any, stats: Any, training: TrainingImages, key: jax.Array, step: jax.Array
    ) -> Any:
        batch = draw_views(training, key, step, batch_size)
        variables = {"params": params, "batch_stats": stats}
        kinds = ["batch_stats"]
        _, moved = model.apply(variables, batch.images, train=True, mutable=kinds)
        return moved["batch_stats"]

    return move


@functools.lru_cache(maxsize=4)
def _compile_predict(num_classes: int) -> Callable[..., jax.Array]:
    model = tail_model(num_classes, "frozen")

    @jax.jit
    def predict(params: Any, stats: Any, maps: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": stats}
        return model.apply(variables, maps.astype(jnp.float32), train=False)[0]

    return predict


@jax.jit
def _averaged(mean: Any, params: Any, share: float) -> Any:
    return jax.tree.map(lambda m, p: m + share * (p - m), mean, params)


def _to_six_digits(values: Any) -> Any:
    found = np.asarray(values, float)
    return np.vectorize(lambda x: float(f"{x:.6g}"))(found).tolist()
