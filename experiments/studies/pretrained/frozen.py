"""The frozen part of the network: what it makes of every image, computed once and kept.

EfficientNet-Lite0 with ImageNet's weights is cut before a block. What stands before the cut
never changes, so its outputs on a few views of each image are all that training needs.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import DomainData
from experiments.data.augment import scale_pixels
from experiments.data.batches import random_shift
from experiments.fields import digest
from experiments.files import locked, writing
from experiments.models.backbones import BACKBONES, LITE0_SHA256, load_pretrained
from experiments.models.efficientnet_lite import BLOCKS, EfficientNetLite0

MODEL = "efficientnet_lite0"
CUT = 12  # the first block that is trained
VIEWS = 8  # of every image; the first one is the image as it is
SHIFT = 4  # pixels
CHUNK = 64  # images a call


@functools.cache
def pretrained() -> dict[str, Any]:
    """ImageNet's variables of the whole network, without its classifier."""
    whole = EfficientNetLite0()
    image = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(lambda: whole.init(jax.random.key(0), image, train=False))
    return load_pretrained(MODEL, None, shapes)


def part(blocks: tuple[int, int]) -> dict[str, Any]:
    """The variables of consecutive blocks, see `EfficientNetLite0`."""
    first, end = blocks
    names = {f"block{i}" for i in range(first, end)}
    if first == 0:
        names |= {"stem", "stem_norm"}
    if end == BLOCKS:
        names |= {"head", "head_norm"}
    return {
        kind: {name: tree for name, tree in layers.items() if name in names}
        for kind, layers in pretrained().items()
    }


def kept_maps(data: DomainData, folder: Path, cut: int = CUT) -> np.ndarray:
    """What the frozen part makes of every view, from a file, made where it is missing.

    Args:
      data: the images.
      folder: of such files.
      cut: the first block that is not frozen.

    Returns:
      float16 [N, VIEWS, H, W, C], of the images of all domains one after another.
    """
    images = np.concatenate(data.images)
    content = hashlib.sha256(images.tobytes()).hexdigest()
    name = digest([content, LITE0_SHA256, cut, VIEWS, SHIFT])
    file = folder / f"{name}.npy"
    with locked(folder, wait=True, what="computing what the frozen blocks make of images"):
        if not file.exists():
            maps = compute_maps(images, data.flip, cut)
            with writing(file) as stream:
                np.save(stream, maps)
    return np.load(file, mmap_mode="r")


def compute_maps(images: np.ndarray, flip: bool, cut: int) -> np.ndarray:
    """The same, computed."""
    variables = part((0, cut))
    found = []
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        key = jax.random.fold_in(jax.random.key(0), start)
        views = views_of(jnp.asarray(chunk), key, flip)
        maps = [frozen_part(cut, variables, view) for view in views]
        found.append(np.stack(maps, axis=1).astype(np.float16))
    return np.concatenate(found)


def views_of(images: jax.Array, key: jax.Array, flip: bool) -> list[jax.Array]:
    """VIEWS of every image: itself, and others shifted and, half of them, mirrored.

    Args:
      images: uint8 [N, H, W, 3].
      key: of the others.
      flip: whether a mirrored image is still of its class.

    Returns:
      VIEWS arrays, float32 [N, H, W, 3] in [0, 1].
    """
    views = [scale_pixels(images)]
    for own in jax.random.split(key, VIEWS - 1):
        mirrored, shifted = jax.random.split(own)
        mirror = flip & jax.random.bernoulli(mirrored, shape=(len(images), 1, 1, 1))
        view = jnp.where(mirror, views[0][:, :, ::-1], views[0])
        views.append(random_shift(shifted, view, SHIFT))
    return views


@functools.partial(jax.jit, static_argnums=0)
def frozen_part(cut: int, variables: Any, images: jax.Array) -> jax.Array:
    """What the blocks before `cut` make of images in [0, 1]; features where it is all."""
    backbone = BACKBONES[MODEL]
    images = (images - jnp.asarray(backbone.mean)) / jnp.asarray(backbone.std)
    return EfficientNetLite0(blocks=(0, cut)).apply(variables, images, train=False)  # pyright: ignore[reportReturnType]
