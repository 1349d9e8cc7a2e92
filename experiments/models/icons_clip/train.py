"""Trains icons_clip on pairs of pictures and names; it goes on where it was stopped.

    python -m experiments.models.icons_clip.train --pairs DIR --out RUN --steps 5000

DIR is what `experiments.data.icon_pairs.pairs` wrote. RUN gets, every 200 steps, a
checkpoint and the weights so far, by OpenAI's names in float16, and in the end what they
were made with.
"""

import argparse
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.numpy import save

from experiments.files import read_json, write_json, write_whole
from experiments.models.clip import Clip, Sizes, random_clip, to_openai_names
from experiments.models.icons_clip import ACTIVATION, WEIGHTS
from experiments.models.icons_clip.distort import distorted
from experiments.models.icons_clip.examples import Examples, read_examples
from experiments.models.icons_clip.objective import contrastive_loss

SIZES = Sizes(
    image_width=192,
    image_depth=6,
    patch=16,
    grid=4,
    text_width=192,
    text_depth=3,
    length=24,
    vocabulary=4096,
    embedding=192,
)
LARGEST_SCALE = np.log(100)
CHECKPOINT, RECIPE = "checkpoint.msgpack", "recipe.json"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that the weights depend on but the pairs and the code."""

    steps: int
    batch_size: int = 256
    learning_rate: float = 5e-4  # at 1e-3 and more, tiny models collapsed
    weight_decay: float = 0.1
    seed: int = 0
    sizes: Sizes = SIZES


class State(NamedTuple):
    """What a step changes: the step's number, the weights, and the optimizer's state."""

    step: jax.Array
    weights: Any
    optimizer: optax.OptState


def optimizer_of(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW, its rate warmed up over a twentieth of the steps and falling to 0."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, max(1, recipe.steps // 20), recipe.steps
    )
    adam = optax.adamw(rate, b2=0.98, weight_decay=recipe.weight_decay)
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def first_state(recipe: Recipe) -> State:
    """Random weights before the first step."""
    clip = random_clip(recipe.sizes, ACTIVATION, jax.random.key(recipe.seed))
    weights = jax.device_put(clip.weights)
    return State(jnp.zeros((), jnp.int32), weights, optimizer_of(recipe).init(weights))


@functools.cache
def make_step(
    recipe: Recipe,
) -> Callable[[State, Examples], tuple[State, jax.Array]]:
    """A compiled step (state, examples) -> (state, loss), a function of the two alone."""
    clip = Clip({}, recipe.sizes, ACTIVATION)
    optimizer = optimizer_of(recipe)

    def loss(weights, images, tokens, names):
        pictures: Any = clip.image_tower.apply({"params": weights["image"]}, images)
        texts: Any = clip.text_tower.apply({"params": weights["text"]}, tokens)
        return contrastive_loss(pictures, texts, weights["scale"], names)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, examples: Examples) -> tuple[State, jax.Array]:
        key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
        batch = draw_batch(examples, recipe.batch_size, key)
        value, gradient = jax.value_and_grad(loss)(state.weights, *batch)
        updates, memory = optimizer.update(gradient, state.optimizer, state.weights)
        weights: Any = optax.apply_updates(state.weights, updates)
        weights = {**weights, "scale": jnp.minimum(weights["scale"], LARGEST_SCALE)}
        return State(state.step + 1, weights, memory), value

    return step


def draw_batch(
    examples: Examples, size: int, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Distorted images, tokens, and the numbers of their names."""
    which, sentence, change = jax.random.split(key, 3)
    drawn = jnp.searchsorted(examples.until, jax.random.uniform(which, (size,)))
    drawn = jnp.minimum(drawn, len(examples.until) - 1)
    names = examples.names[drawn]
    within = jax.random.bernoulli(sentence, shape=(size,)).astype(int)
    images = distorted(
        examples.images[drawn], examples.colored[drawn], examples.mirrored[drawn], change
    )
    return images, examples.tokens[within, names], names


def train(
    recipe: Recipe,
    examples: Examples,
    out: Path,
    save_every: int = 200,
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> Clip:
    """Trains from the last checkpoint of the folder, or from random weights.

    Args:
      recipe: of the training.
      examples: to train on.
      out: folder of the checkpoint, whole at any time, and of the recipe.
      save_every: steps between checkpoints.
      watch: called with (steps done, loss) after every step.

    Raises:
      ValueError: the folder holds a training by another recipe.
    """
    _check_recipe(recipe, out)
    state, step = first_state(recipe), make_step(recipe)
    if (out / CHECKPOINT).exists():
        state = serialization.from_bytes(state, (out / CHECKPOINT).read_bytes())
    state, examples = jax.device_put((state, examples))
    while (done := int(state.step)) < recipe.steps:
        state, loss = step(state, examples)
        watch(done + 1, float(loss))
        if (done + 1) % save_every == 0 or done + 1 == recipe.steps:
            write_whole(out / CHECKPOINT, serialization.to_bytes(state))
            write_weights(_clip(state, recipe), out / WEIGHTS.name)
    return _clip(state, recipe)


def _clip(state: State, recipe: Recipe) -> Clip:
    weights = jax.tree.map(np.asarray, state.weights)
    return Clip(weights, recipe.sizes, ACTIVATION)


def write_weights(clip: Clip, path: Path) -> str:
    """Writes float16 weights by OpenAI's names; returns the file's SHA-256."""
    named = to_openai_names(clip.weights)
    content = save({name: array.astype(np.float16) for name, array in named.items()})
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def _check_recipe(recipe: Recipe, out: Path) -> None:
    asked = dataclasses.asdict(recipe)
    if not (out / RECIPE).exists():
        write_json(out / RECIPE, asked)
    if read_json(out / RECIPE) != asked:
        raise ValueError(
            f"{out} holds a training by another recipe, {read_json(out / RECIPE)}: go on "
            "with that, or choose another folder."
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True, help="folder of the pairs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the training")
    parser.add_argument("--steps", type=int, required=True)
    args = parser.parse_args()
    recipe = Recipe(steps=args.steps)
    tokenizer = Clip({}, recipe.sizes, ACTIVATION).tokenizer
    examples = read_examples(args.pairs, tokenizer)
    columns = (
        *Progress.get_default_columns()[:-1],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("Training", total=recipe.steps, loss=float("nan"))

        def watch(step: int, loss: float) -> None:
            progress.update(bar, completed=step, loss=loss)
            if step % 50 == 0:
                progress.console.print(f"step {step}: loss {loss:.3f}")

        clip = train(recipe, examples, args.out, watch=watch)
    path = args.out / WEIGHTS.name
    made = {
        "sha256": write_weights(clip, path),
        "pairs": len(examples.names),
        "names": examples.tokens.shape[1],
    }
    write_json(path.with_suffix(".json"), dataclasses.asdict(recipe) | made)
    print(f"wrote {path} and {path.with_suffix('.json').name}")


if __name__ == "__main__":
    main()
