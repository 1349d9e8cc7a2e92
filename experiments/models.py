"""Flax Linen models: images float32 [B, H, W, 3] -> logits [B, classes]."""

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

    Attributes:
      num_classes: length of the logits.
      widths: features after each stage; the first stage merges patches of 4 x 4 pixels,
        the others of 2 x 2.
      hidden: features of the last hidden layer.
    """

    num_classes: int
    widths: tuple[int, ...] = (24, 64, 160)
    hidden: int = 128

    size_multiple = 16  # what three stages of patches divide an image by

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the logits; training and evaluation are the same here."""
        del train
        for stage, width in enumerate(self.widths):
            x = merge_patches(x, 4 if stage == 0 else 2)
            x = nn.gelu(nn.LayerNorm()(nn.Dense(width)(x)))
        x = x.reshape(x.shape[0], -1)
        x = nn.gelu(nn.LayerNorm()(nn.Dense(self.hidden)(x)))
        return nn.Dense(self.num_classes)(x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut (He et al., 2016)."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns [B, H/stride, W/stride, width]."""

        def norm(x: jax.Array) -> jax.Array:
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        strides = (self.stride, self.stride)
        y = nn.relu(norm(nn.Conv(self.width, (3, 3), strides, use_bias=False)(x)))
        y = norm(nn.Conv(self.width, (3, 3), use_bias=False)(y))
        if x.shape != y.shape:
            x = norm(nn.Conv(self.width, (1, 1), strides, use_bias=False)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A small ResNet with BatchNorm over the whole batch, all domains together.

    Attributes:
      num_classes: length of the logits.
      widths: features of each stage; every stage but the first halves the image.
      blocks: residual blocks per stage.
    """

    num_classes: int
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1

    size_multiple = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the logits; with train=True, batch statistics are used and moved."""
        x = nn.Conv(self.widths[0], (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = ResidualBlock(width, stride)(x, train)
        return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


MODELS = {"patchnet": PatchNet, "resnet": ResNet}
