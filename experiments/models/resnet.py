"""ResNet-18, 34 and 50 as torchvision has them: images -> features [B, 512 or 2048].

He et al., CVPR 2016, in the version whose bottleneck halves the image in its 3x3
convolution ("V1.5"). Padding is PyTorch's, the same on both sides.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Layers:
    """Convolutions and norms of one network, made alike.

    Args:
      fixed: BatchNorm takes its running statistics.
      dtype: of the arithmetic.
    """

    def __init__(self, fixed: bool, dtype: Any) -> None:
        self.fixed = fixed
        self.dtype = dtype

    def conv(self, width: int, size: int, stride: int, name: str) -> nn.Module:
        """A convolution without bias, size // 2 pixels of padding on every side."""
        pad = (size // 2, size // 2)
        shape, strides = (size, size), (stride, stride)
        return nn.Conv(
            width, shape, strides, (pad, pad), use_bias=False, dtype=self.dtype, name=name
        )

    def norm(self, name: str) -> nn.Module:
        """BatchNorm; the running variance is of the biased one, torch's of the unbiased."""
        return nn.BatchNorm(
            self.fixed, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name=name
        )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    width: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, width]."""
        layers = self.layers
        y = nn.relu(layers.norm("bn1")(layers.conv(self.width, 3, self.stride, "conv1")(x)))
        y = layers.norm("bn2")(layers.conv(self.width, 3, 1, "conv2")(y))
        return nn.relu(y + shortcut(x, y, self.stride, layers))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide."""

    width: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / stride, W / stride, 4 * width]."""
        layers = self.layers
        y = nn.relu(layers.norm("bn1")(layers.conv(self.width, 1, 1, "conv1")(x)))
        y = nn.relu(layers.norm("bn2")(layers.conv(self.width, 3, self.stride, "conv2")(y)))
        y = layers.norm("bn3")(layers.conv(4 * self.width, 1, 1, "conv3")(y))
        return nn.relu(y + shortcut(x, y, self.stride, layers))


def shortcut(x: jax.Array, y: jax.Array, stride: int, layers: Layers) -> jax.Array:
    """x, projected where its shape is not that of y."""
    if x.shape == y.shape:
        return x
    projected = layers.conv(y.shape[-1], 1, stride, "downsample_conv")(x)
    return layers.norm("downsample_norm")(projected)


class ResNet(nn.Module):
    """A ResNet for 224-pixel images without its classifier.

    Attributes:
      block: `BasicBlock` or `Bottleneck`.
      depths: blocks in each of the four stages.
      batch_norm: `frozen` or `live`, see `make_classifier`.
      dtype: of the arithmetic.
    """

    block: Callable[..., nn.Module]
    depths: tuple[int, ...]
    batch_norm: str = "frozen"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the features, the mean over the image."""
        layers = Layers(self.batch_norm == "frozen" or not train, self.dtype)
        x = nn.relu(layers.norm("bn1")(layers.conv(64, 7, 2, "conv1")(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"layer{stage + 1}_{i}"
                x = self.block(64 * 2**stage, stride, layers, name=name)(x)
        return jnp.mean(x, axis=(1, 2))


def resnet_path(name: str) -> tuple[str, ...] | None:
    """Where a layer of torchvision's (its name without `.weight`) stands here."""
    parts = name.split(".")
    if parts[0] == "fc":
        return None
    if not parts[0].startswith("layer"):
        return (parts[0],)
    block = f"{parts[0]}_{parts[1]}"
    if parts[2] == "downsample":
        return (block, "downsample_conv" if parts[3] == "0" else "downsample_norm")
    return (block, parts[2])
