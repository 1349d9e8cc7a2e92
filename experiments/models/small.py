"""Small networks for small images, trained from scratch: images -> features [B, F]."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def merge_patches(x: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] -> [B, H/size, W/size, size*size*C]: each patch becomes one vector."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // size, w // size, size * size * c)


class PatchNet(nn.Module):
    """A pyramid of patches: convolutions whose stride is their size.

    Such a convolution is one matrix product, and a CPU is quick at those: about five
    times quicker here than 3x3 convolutions of the same depth, at the same accuracy.

    Images must divide by 16, which is what three stages of patches do to them.

    Attributes:
      batch_norm: there is none here; taken so that all backbones are made alike.
      dtype: of the arithmetic.
      widths: features after each stage; the first stage merges patches of 4 x 4 pixels,
        the others of 2 x 2.
      hidden: features of the last hidden layer.
    """

    batch_norm: str = "live"
    dtype: Any = jnp.float32
    widths: tuple[int, ...] = (24, 64, 160)
    hidden: int = 128

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the hidden layer; training and evaluation are the same here."""
        del train
        for stage, width in enumerate(self.widths):
            x = merge_patches(x, 4 if stage == 0 else 2)
            x = self._layer(width, x)
        x = x.reshape(x.shape[0], -1)
        return self._layer(self.hidden, x)

    def _layer(self, width: int, x: jax.Array) -> jax.Array:
        x = nn.Dense(width, dtype=self.dtype)(x)
        return nn.gelu(nn.LayerNorm(dtype=self.dtype)(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut (He et al., 2016)."""

    width: int
    stride: int
    use_running_average: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H/stride, W/stride, width]."""

        def conv_norm(x: jax.Array, size: int, stride: int) -> jax.Array:
            shape, strides = (size, size), (stride, stride)
            x = nn.Conv(self.width, shape, strides, use_bias=False, dtype=self.dtype)(x)
            return nn.BatchNorm(self.use_running_average, momentum=0.9, dtype=self.dtype)(x)

        y = nn.relu(conv_norm(x, 3, self.stride))
        y = conv_norm(y, 3, 1)
        if x.shape != y.shape:
            x = conv_norm(x, 1, self.stride)
        return nn.relu(x + y)


class SmallResNet(nn.Module):
    """A small ResNet with BatchNorm over the whole batch, all domains together.

    Attributes:
      batch_norm: `live`, batch statistics in training; or `frozen`, the running ones.
      dtype: of the arithmetic.
      widths: features of each stage; every stage but the first halves the image.
      blocks: residual blocks per stage.
    """

    batch_norm: str = "live"
    dtype: Any = jnp.float32
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the mean over the image."""
        fixed = self.batch_norm == "frozen" or not train
        x = nn.Conv(self.widths[0], (3, 3), use_bias=False, dtype=self.dtype)(x)
        x = nn.relu(nn.BatchNorm(fixed, momentum=0.9, dtype=self.dtype)(x))
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = ResidualBlock(width, stride, fixed, self.dtype)(x)
        return jnp.mean(x, axis=(1, 2))
