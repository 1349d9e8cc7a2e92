"""CLIP's weights by the names of OpenAI and open_clip, or of Hugging Face.

Both hold the same numbers. Hugging Face has three matrices for queries, keys and values
where OpenAI has one, and its two last projections are `Linear`s, [out, in]; OpenAI's are
bare matrices, [in, out].
"""

from typing import Any

import jax
import numpy as np
from flax import traverse_util

from experiments.models.clip.towers import Sizes, random_weights
from experiments.models.pretrained import from_torch
from experiments.models.weight_files import State

Tree = dict[str, Any]

OPENAI_TOWERS = {
    "visual.transformer.resblocks": "image",
    "transformer.resblocks": "text",
}
OPENAI_LAYERS = {  # of a block
    "ln_1": ("norm1",),
    "ln_2": ("norm2",),
    "attn.in_proj": ("attn", "qkv"),
    "attn.out_proj": ("attn", "proj"),
    "mlp.c_fc": ("fc1",),
    "mlp.c_proj": ("fc2",),
}
OPENAI = {  # outside the blocks
    "visual.conv1": ("image", "patch_embed"),
    "visual.class_embedding": ("image", "cls_token"),
    "visual.positional_embedding": ("image", "pos_embed"),
    "visual.ln_pre": ("image", "norm_pre"),
    "visual.ln_post": ("image", "norm_post"),
    "visual.proj": ("image", "proj"),
    "token_embedding": ("text", "token_embed"),
    "positional_embedding": ("text", "pos_embed"),
    "ln_final": ("text", "norm"),
    "text_projection": ("text", "proj"),
    "logit_scale": ("scale",),
}
FROM_THE_RIGHT = ("visual.proj", "text_projection")  # x @ matrix, so [in, out]
HUGGING_FACE_TOWERS = {
    "vision_model.encoder.layers": "image",
    "text_model.encoder.layers": "text",
}
HUGGING_FACE_LAYERS = {
    "layer_norm1": ("norm1",),
    "layer_norm2": ("norm2",),
    "self_attn.in_proj": ("attn", "qkv"),
    "self_attn.out_proj": ("attn", "proj"),
    "mlp.fc1": ("fc1",),
    "mlp.fc2": ("fc2",),
}
HUGGING_FACE = {
    "vision_model.embeddings.patch_embedding": ("image", "patch_embed"),
    "vision_model.embeddings.class_embedding": ("image", "cls_token"),
    "vision_model.embeddings.position_embedding": ("image", "pos_embed"),
    "vision_model.pre_layrnorm": ("image", "norm_pre"),  # so spelled there
    "vision_model.post_layernorm": ("image", "norm_post"),
    "visual_projection": ("image", "proj"),
    "text_model.embeddings.token_embedding": ("text", "token_embed"),
    "text_model.embeddings.position_embedding": ("text", "pos_embed"),
    "text_model.final_layer_norm": ("text", "norm"),
    "text_projection": ("text", "proj"),
}

TOWERS = OPENAI_TOWERS | HUGGING_FACE_TOWERS
LAYERS = OPENAI_LAYERS | HUGGING_FACE_LAYERS
OUTSIDE = OPENAI | HUGGING_FACE
# By the last part of the name: what can be computed, or is a record of sizes.
NO_WEIGHTS = (
    "attn_mask",
    "position_ids",
    "input_resolution",
    "context_length",
    "vocab_size",
)


def from_names(state: State) -> tuple[Sizes, Tree]:
    """The weights of a CLIP whose image tower is a ViT, and their sizes.

    Args:
      state: tensors by OpenAI's, open_clip's or Hugging Face's names.

    Returns:
      The sizes, and {"image": tree, "text": tree, "scale": the logarithm of what cosines
      are multiplied by}, float32.

    Raises:
      ValueError: a tensor is missing, not known, or of another shape; the message lists
        them.
    """
    state = {k: v for k, v in state.items() if k.rpartition(".")[2] not in NO_WEIGHTS}
    state = _as_linear_layers(_queries_keys_and_values(state))
    if np.size(state.get("logit_scale", ())) == 1:  # some have it as [1]
        state["logit_scale"] = np.reshape(state["logit_scale"], ())
    sizes = sizes_of(state)
    shapes = jax.eval_shape(lambda: random_weights(sizes, jax.random.key(0)))
    return sizes, from_torch(state, clip_path, {"params": shapes})["params"]


def clip_path(name: str) -> tuple[str, ...]:
    """Where a layer (without `.weight`) of any of the namings stands here.

    Raises:
      KeyError: it is in none of them.
    """
    for prefix, tower in TOWERS.items():
        if name.startswith(f"{prefix}."):
            block, _, layer = name.removeprefix(f"{prefix}.").partition(".")
            return (tower, f"block{block}", *LAYERS[layer])
    return OUTSIDE[name]


def sizes_of(state: State) -> Sizes:
    """The sizes that the shapes of a state dict say.

    Raises:
      ValueError: a tensor that says one is missing, or has another number of axes.
    """
    image_width, _, patch, _ = _shape(state, ("image", "patch_embed"), 4)
    patches = _shape(state, ("image", "pos_embed"), 2)[0] - 1
    vocabulary, text_width = _shape(state, ("text", "token_embed"), 2)
    return Sizes(
        image_width=image_width,
        image_depth=_depth(state, "image"),
        patch=patch,
        grid=round(max(patches, 0) ** 0.5),
        text_width=text_width,
        text_depth=_depth(state, "text"),
        length=_shape(state, ("text", "pos_embed"), 2)[0],
        vocabulary=vocabulary,
        embedding=_shape(state, ("image", "proj"), 2)[0],
    )


def to_openai_names(weights: Tree) -> State:
    """The tensors by OpenAI's names, for a file: `from_names` takes them back."""
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(weights)  # pyright: ignore[reportAssignmentType]
    return dict(_openai_tensor(path, np.asarray(array)) for path, array in flat.items())


def _queries_keys_and_values(state: State) -> State:
    """Three matrices of Hugging Face's attention as one; an odd one is left as it is."""
    state = dict(state)
    for name in [name for name in state if ".q_proj." in name]:
        names = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        parts = [state[other] for other in names if other in state]
        if len(parts) == 3 and len({part.shape for part in parts}) == 1:
            state[name.replace(".q_proj.", ".in_proj_")] = np.concatenate(parts)
            state = {k: v for k, v in state.items() if k not in names}
    return state


def _as_linear_layers(state: State) -> State:
    """OpenAI's bare matrices as the layers that they are elsewhere."""
    bare = {name for name in FROM_THE_RIGHT if name in state}
    layers = {f"{name}.weight": state[name].T for name in bare}
    return {k: v for k, v in state.items() if k not in bare} | layers


def _shape(state: State, path: tuple[str, ...], axes: int) -> tuple[int, ...]:
    layers = [layer for layer, place in OUTSIDE.items() if place == path]
    names = [name for name in layers + [f"{x}.weight" for x in layers] if name in state]
    if not names:
        raise ValueError(
            f"weights of no CLIP with a ViT: among its {len(state)} tensors "
            f"({', '.join(list(state)[:5])}, ..) there is no {' or '.join(layers)}."
        )
    shape = state[names[0]].shape
    if len(shape) != axes:
        raise ValueError(f"{names[0]} has shape {shape}: expected {axes} axes.")
    return shape


def _depth(state: State, tower: str) -> int:
    prefixes = [f"{prefix}." for prefix, found in TOWERS.items() if found == tower]
    return len(
        {
            name.removeprefix(prefix).partition(".")[0]
            for prefix in prefixes
            for name in state
            if name.startswith(prefix)
        }
    )


def _openai_tensor(path: tuple[str, ...], array: np.ndarray) -> tuple[str, np.ndarray]:
    outside = {place: name for name, place in OPENAI.items()}
    if path in outside:
        return outside[path], array  # of no layer
    *layer, leaf = path
    if layer[1].startswith("block"):
        name = _openai_block(layer[0], layer[1].removeprefix("block"), tuple(layer[2:]))
    else:
        name = outside[tuple(layer)]
    if name in FROM_THE_RIGHT:
        return name, array
    if leaf == "kernel":
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    joint = "_" if name.endswith("in_proj") else "."
    last = "bias" if leaf == "bias" else "weight"
    return f"{name}{joint}{last}", np.ascontiguousarray(array)


def _openai_block(tower: str, block: str, layer: tuple[str, ...]) -> str:
    prefixes = {found: prefix for prefix, found in OPENAI_TOWERS.items()}
    layers = {place: name for name, place in OPENAI_LAYERS.items()}
    return f"{prefixes[tower]}.{block}.{layers[layer]}"
