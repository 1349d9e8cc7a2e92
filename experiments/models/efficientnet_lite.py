"""EfficientNet-Lite0: images -> features [B, 1280].

No squeeze-and-excitation, relu6 throughout, TensorFlow's SAME padding (Tan and Le, ICML
2019; the Lite variants of the TensorFlow TPU repository).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.depthwise import DepthwiseConv

# (repeats, kernel, stride of the first, expansion, channels)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BLOCKS = sum(repeats for repeats, *_ in STAGES)


class Norm(nn.Module):
    """BatchNorm with EfficientNet's epsilon, followed by relu6 if asked."""

    fixed: bool
    dtype: Any
    activate: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x, normalized per channel."""
        norm = nn.BatchNorm(self.fixed, momentum=0.9, epsilon=1e-3, dtype=self.dtype)
        x = norm(x)
        return jnp.clip(x, 0.0, 6.0) if self.activate else x


class Block(nn.Module):
    """Inverted residual: widen, convolve each channel, narrow."""

    size: int
    stride: int
    expansion: int
    width: int
    fixed: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), width]."""

        def pointwise(width: int, name: str) -> nn.Module:
            return nn.Dense(width, use_bias=False, dtype=self.dtype, name=name)

        y = x
        if self.expansion != 1:
            y = pointwise(x.shape[-1] * self.expansion, "expand")(y)
            y = Norm(self.fixed, self.dtype, name="expand_norm")(y)
        y = DepthwiseConv(self.size, self.stride, self.dtype, name="depthwise")(y)
        y = Norm(self.fixed, self.dtype, name="depthwise_norm")(y)
        y = pointwise(self.width, "project")(y)
        y = Norm(self.fixed, self.dtype, activate=False, name="project_norm")(y)
        return x + y if x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier, or consecutive blocks of it.

    Attributes:
      batch_norm: `frozen` or `live`, see `make_classifier`.
      dtype: of the arithmetic.
      blocks: the first one, and the one after the last; the stem stands before block 0,
        and what makes features behind the last of all.
    """

    batch_norm: str = "frozen"
    dtype: Any = jnp.float32
    blocks: tuple[int, int] = (0, BLOCKS)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the features, [B, 1280], or what the next block takes, [B, H, W, C]."""
        fixed = self.batch_norm == "frozen" or not train
        first, end = self.blocks
        if first == 0:
            conv = nn.Conv(
                32, (3, 3), (2, 2), use_bias=False, dtype=self.dtype, name="stem"
            )
            x = Norm(fixed, self.dtype, name="stem_norm")(conv(x))
        for i, (size, stride, expansion, width) in enumerate(_blocks()):
            if first <= i < end:
                name = f"block{i}"
                x = Block(size, stride, expansion, width, fixed, self.dtype, name=name)(x)
        if end < BLOCKS:
            return x
        x = nn.Dense(1280, use_bias=False, dtype=self.dtype, name="head")(x)
        return jnp.mean(Norm(fixed, self.dtype, name="head_norm")(x), axis=(1, 2))


def _blocks() -> list[tuple[int, int, int, int]]:
    """Of every block the kernel, stride, expansion and channels."""
    return [
        (size, stride if first else 1, expansion, width)
        for repeats, size, stride, expansion, width in STAGES
        for first in (True, *(False,) * (repeats - 1))
    ]


LAYERS = {
    "_expand_conv": ("expand",),
    "_bn0": ("expand_norm", "BatchNorm_0"),
    "_depthwise_conv": ("depthwise",),
    "_bn1": ("depthwise_norm", "BatchNorm_0"),
    "_project_conv": ("project",),
    "_bn2": ("project_norm", "BatchNorm_0"),
}
ENDS = {
    "_conv_stem": ("stem",),
    "_bn0": ("stem_norm", "BatchNorm_0"),
    "_conv_head": ("head",),
    "_bn1": ("head_norm", "BatchNorm_0"),
}


def efficientnet_lite_path(name: str) -> tuple[str, ...] | None:
    """Where a layer of the PyTorch port (its name without `.weight`) stands here."""
    first, *rest = name.split(".")
    if first == "_fc":
        return None
    if first == "_blocks":
        return (f"block{rest[0]}", *LAYERS[rest[1]])
    return ENDS[first]
