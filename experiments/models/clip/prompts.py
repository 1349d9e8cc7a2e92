"""CoOp: vectors in the place of a prompt's words (Zhou et al., IJCV 2022)."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fields import check_known
from experiments.models.clip.model import Clip
from experiments.models.clip.towers import TextTower
from experiments.models.tuning import Params, Tuning

POSITIONS = ("end", "middle", "front")  # of the name among the vectors
STD = 0.02  # of the vectors at first
ALIKE = 8  # names of 0 to 7 tokens are computed together, of 8 to 15, and so on


@dataclasses.dataclass(frozen=True)
class Prompts(Tuning):
    """Trains the vectors that stand before, around or after every class's name.

    head_k = text tower([start] v_1 ... v_n [name of class k] . [end]); the gradient runs
    through the frozen text tower. The loss's logits use the fixed scale. A token sees
    those before it alone, so what all prompts begin with is computed once, and a prompt is
    not filled up to the longest one: the same features by fewer operations than CoOp's.

    Attributes:
      trained: `context`, [n, C], or [K, n, C] where every class has its own.
      frozen: `prompts`, see `class_prompts`, `text`, the tower's weights, and the others.
      tower: of texts.
      position: of the context, see `class_prompts`.
      lengths: of every class's name with start, full stop and end, in tokens.

    References:
      Zhou et al., IJCV 2022, section 3.2 and their code.
    """

    trained: tuple[str, ...] = ("context",)
    frozen: tuple[str, ...] = ("backbone", "text", "prompts", "scale")
    tower: TextTower | None = None
    position: str = "end"
    lengths: tuple[int, ...] = ()

    def weights(self, params: Params, classes: Sequence[int] | None = None) -> Params:
        """The image tower's, with the head that the prompts make."""
        labels = np.arange(len(self.lengths)) if classes is None else np.array(classes)
        step = np.array(self.lengths)[labels] // ALIKE
        groups = [labels[step == s] for s in np.unique(step)]
        head = jnp.concatenate([self._features(params, group) for group in groups])
        own = {name: params[name] for name in ("backbone", "scale")}
        return own | {"head": head[np.argsort(np.concatenate(groups))]}

    def _features(self, params: Params, labels: np.ndarray) -> jax.Array:
        """Of the prompts of these classes, float32 [len(labels), D]."""
        assert self.tower is not None
        context = params["context"]
        count, shared = context.shape[-2], 1  # all begin with the same token
        if context.ndim == 2:
            shared += vectors_before(count, self.position)
        ends = count + np.array(self.lengths)[labels]

        def vectors(labels: np.ndarray, places: slice) -> jax.Array:
            prompts = jax.tree.map(lambda leaf: leaf[labels], params["prompts"])
            prompts = prompts | {"order": prompts["order"][:, places]}
            return with_context(prompts, context if context.ndim == 2 else context[labels])

        before = vectors(labels[:1], slice(shared))
        own = vectors(labels, slice(shared, ends.max()))
        arguments = {"params": params["text"]}, own, ends - 1 - shared, before
        return jnp.float32(self.tower.apply(*arguments, method="encode"))


def vectors_before(count: int, position: str) -> int:
    """Of so many vectors, how many stand before the name."""
    return {"end": count, "middle": count // 2, "front": 0}[position]


def with_context(prompts: Params, context: jax.Array) -> jax.Array:
    """The prompts' vectors [K, T, C] with the context in its places.

    Read from each apart: the gradient by the context is of the context's shape.
    """
    count, order = context.shape[-2], prompts["order"]
    rows = () if context.ndim == 2 else (np.arange(len(order))[:, None],)
    trained = context[*rows, jnp.minimum(order, count - 1)]
    at = jnp.maximum(order - count, 0)
    fixed = jnp.take_along_axis(prompts["fixed"], at[..., None], axis=1)
    return jnp.where((order < count)[..., None], trained, fixed)


def class_prompts(
    clip: Clip, names: Sequence[str], count: int, position: str = "end"
) -> Params:
    """What the prompts of classes are made of, the context aside.

    Args:
      clip: the model.
      names: of the classes, K.
      count: n, vectors of the context.
      position: of the context: `end`, the name at the end; `middle`, half of the vectors
        before it; `front`, the name first.

    Returns:
      fixed: float32 [K, S, C], start, name, full stop and end, as vectors.
      order: int32 [K, T], where each of a prompt's vectors stands in context and fixed, one
        after another; cut after the last end token.

    Raises:
      ValueError: the position is unknown, or a prompt has more tokens than the model.
    """
    check_known("position", position, POSITIONS)
    tokens, lengths = _tokens(clip, names)
    longest = count + int(lengths.max())
    if longest > clip.sizes.length:
        raise ValueError(
            f"a prompt of {count} vectors and the longest name has {longest} tokens, and "
            f"the model takes {clip.sizes.length}: take fewer, --context."
        )
    named = clip.tokenizer(names).argmax(-1) - 1  # tokens of the name alone
    order = np.zeros((len(names), longest), np.int32)
    for row, length, name in zip(order, lengths, named, strict=True):
        row[: count + length] = _order(count, int(length), int(name), position)
    vectors = clip.weights["text"]["token_embed"]["embedding"][tokens[:, : lengths.max()]]
    return {"fixed": vectors, "order": order}


def prompt_lengths(clip: Clip, names: Sequence[str]) -> tuple[int, ...]:
    """Tokens of every class's prompt without the context: start, name, full stop, end."""
    return tuple(_tokens(clip, names)[1].tolist())


def _tokens(clip: Clip, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of the prompts without the context, [K, T]; and how many each has, [K]."""
    tokens = clip.tokenizer([f"{name}." for name in names])
    return tokens, tokens.argmax(-1) + 1


def _order(count: int, length: int, name: int, position: str) -> np.ndarray:
    """Of one prompt: the context is 0..n - 1, and its own `length` tokens follow."""
    context = np.arange(count)
    start, named, rest = np.split(count + np.arange(length), [1, 1 + name])
    before = vectors_before(count, position)
    return np.concatenate([start, context[:before], named, context[before:], rest])
