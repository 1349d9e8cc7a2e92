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


@dataclasses.dataclass(frozen=True)
class Prompts(Tuning):
    """Trains the vectors that stand before, around or after every class's name.

    head_k = text tower([start] v_1 ... v_n [name of class k] . [end]); the gradient runs
    through the frozen text tower. The loss's logits use the fixed scale.

    Attributes:
      trained: `context`, [n, C], or [K, n, C] where every class has its own.
      frozen: `prompts`, see `class_prompts`, `text`, the tower's weights, and the others.
      tower: of texts.

    References:
      Zhou et al., IJCV 2022, section 3.2 and their code.
    """

    trained: tuple[str, ...] = ("context",)
    frozen: tuple[str, ...] = ("backbone", "text", "prompts", "scale")
    tower: TextTower | None = None

    def weights(self, params: Params) -> Params:
        """The image tower's, with the head that the prompts make."""
        assert self.tower is not None
        prompts = params["prompts"]
        vectors = with_context(prompts, params["context"])
        arguments = {"params": params["text"]}, vectors, prompts["end"]
        head = self.tower.apply(*arguments, method="encode")
        own = {name: params[name] for name in ("backbone", "scale")}
        return own | {"head": jnp.asarray(head, jnp.float32)}


def with_context(prompts: Params, context: jax.Array) -> jax.Array:
    """The prompts' vectors [K, T, C] with the context in its places."""
    fixed = prompts["fixed"]
    own = jnp.broadcast_to(context, (len(fixed), *context.shape[-2:]))
    both = jnp.concatenate([own, fixed], axis=1)
    return jnp.take_along_axis(both, prompts["order"][..., None], axis=1)


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
      end: int32 [K], where a prompt has its end token.

    Raises:
      ValueError: the position is unknown, or a prompt has more tokens than the model.
    """
    check_known("position", position, POSITIONS)
    tokens = clip.tokenizer([f"{name}." for name in names])
    lengths = tokens.argmax(-1) + 1  # start and end included
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
    return {"fixed": vectors, "order": order, "end": (count + lengths - 1).astype(np.int32)}


def _order(count: int, length: int, name: int, position: str) -> np.ndarray:
    """Of one prompt: the context is 0..n - 1, and its own `length` tokens follow."""
    context = np.arange(count)
    start, named, rest = np.split(count + np.arange(length), [1, 1 + name])
    before = {"end": count, "middle": count // 2, "front": 0}[position]
    return np.concatenate([start, context[:before], named, context[before:], rest])
