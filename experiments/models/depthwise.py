"""Depthwise convolution, quick on a CPU too."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

LARGE = 500_000  # numbers; from there on the sum over images is quicker one by one


class DepthwiseConv(nn.Module):
    """Each channel convolved with a kernel of its own, TensorFlow's SAME padding.

    Attributes:
      size: of the kernel, odd.
      stride: along both axes.
      dtype: of the arithmetic.
    """

    size: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C]."""
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        kernel = kernel.astype(self.dtype)
        if jax.default_backend() != "cpu":
            return grouped_convolution(x, kernel, self.stride)
        # As measured: quicker up to 4 x 4 pixels under 5 x 5 taps, slower at 4 x 5.
        if self.stride == 1 and 3 * x.shape[1] * x.shape[2] <= 2 * self.size**2:
            return pixel_sums(x, kernel)
        return shifted_sums(x, kernel, self.stride)


def grouped_convolution(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The depthwise convolution as XLA has it, what an accelerator wants."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def shifted_sums(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same as a sum of shifted images, each times its weight.

    XLA's grouped convolution on a CPU takes about fifteen times as long; and of this sum it
    derives a backward pass of scattered additions, where the one given here is shifted sums
    again.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, 1, C], k odd.
      stride: along both axes.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C].
    """
    k = kernel.shape[0]
    taps = _shifts(_padded(x, k, stride), k, stride, _out(x.shape[1:3], stride))
    return sum(tap * w for tap, w in zip(taps, kernel.reshape(k * k, -1), strict=True))  # pyright: ignore[reportReturnType]


def _forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, Any]:
    return shifted_sums(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    k = kernel.shape[0]
    dkernel = _kernel_gradient(_padded(x, k, stride), dy, k, stride)
    # The input's gradient: dy with zeros between, convolved with the kernel turned round.
    margins = [(0, 0, 0)]
    for n, out in zip(x.shape[1:3], dy.shape[1:3], strict=True):
        before = k - 1 - _margin(n, k, stride)[0]
        margins.append((before, n + k - 1 - before - ((out - 1) * stride + 1), stride - 1))
    spread = jax.lax.pad(dy, jnp.zeros((), dy.dtype), [*margins, (0, 0, 0)])
    turned = kernel[::-1, ::-1].reshape(k * k, -1)
    shifts = _shifts(spread, k, 1, x.shape[1:3])
    dx = sum(tap * w for tap, w in zip(shifts, turned, strict=True))
    return dx, dkernel.reshape(kernel.shape).astype(kernel.dtype)  # pyright: ignore[reportReturnType]


shifted_sums.defvjp(_forward, _backward)


def _kernel_gradient(x: jax.Array, dy: jax.Array, k: int, stride: int) -> jax.Array:
    """[k*k, C]: each tap times dy, summed over images and pixels; x is padded."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)  # a long sum needs it

    def of_images(x: jax.Array, dy: jax.Array) -> jax.Array:
        taps = _shifts(x, k, stride, dy.shape[1:3])
        sums = [jnp.sum(jnp.sum(tap * dy, 0, dtype), (0, 1)) for tap in taps]
        return jnp.stack(sums)

    if dy.size < LARGE:
        return of_images(x, dy)

    def add_image(total: jax.Array, image: Any) -> tuple[jax.Array, None]:
        return total + of_images(image[0][None], image[1][None]), None

    # Image by image: one fits the cache, where all k*k taps find it again.
    zeros = jnp.zeros((k * k, x.shape[-1]), dtype)
    return jax.lax.scan(add_image, zeros, (x, dy))[0]


@jax.custom_vjp
def pixel_sums(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same, of stride 1, as a sum over pixels, quicker where they are few.

    y[b, p, c] = sum over q of x[b, q, c] * kernel[q - p + k // 2, 0, c], of the pixels q
    within the kernel's reach of p

    Nothing is padded, and no shifted copies of x are kept.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, 1, C], k odd.

    Returns:
      [B, H, W, C].
    """
    return _weigh(x, _between(kernel, x.shape[1:3]))


def _weigh(x: jax.Array, between: jax.Array) -> jax.Array:
    pixels = x.reshape(len(x), -1, 1, x.shape[-1])
    total = sum(pixels[:, q] * w for q, w in enumerate(between))
    return total.reshape(x.shape)  # pyright: ignore[reportAttributeAccessIssue]


def _between(kernel: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """[H*W, H*W, C]: the weight that pixel q has in the sum of pixel p."""
    taps = kernel.reshape(-1, kernel.shape[-1])
    return taps.at[_taps_between(kernel.shape[0], size)].get(mode="fill", fill_value=0)


def _taps_between(k: int, size: tuple[int, ...]) -> np.ndarray:
    """Int [H*W, H*W]: the tap between q and p; k*k where they lie out of its reach."""
    rows, columns = np.indices(size).reshape(2, -1)
    down, right = (at[:, None] - at + k // 2 for at in (rows, columns))
    within = (down >= 0) & (down < k) & (right >= 0) & (right < k)
    return np.where(within, down * k + right, k * k)


def _pixels_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    return pixel_sums(x, kernel), (x, kernel)


def _pixels_backward(saved: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    size, channels = x.shape[1:3], x.shape[-1]
    dx = _weigh(dy, _between(kernel, size).swapaxes(0, 1))
    # Of each pair of pixels the sum over images, then of each tap that over its pairs.
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    q, p = x.reshape(len(x), -1, 1, channels), dy.reshape(len(x), 1, -1, channels)
    of_pairs = jnp.sum(q * p, 0, dtype)
    taps = jnp.zeros((kernel.size // channels, channels), dtype)
    taps = taps.at[_taps_between(kernel.shape[0], size)].add(of_pairs, mode="drop")
    return dx, taps.reshape(kernel.shape).astype(kernel.dtype)


pixel_sums.defvjp(_pixels_forward, _pixels_backward)


def _out(size: tuple[int, ...], stride: int) -> tuple[int, ...]:
    return tuple(-(-n // stride) for n in size)


def _margin(n: int, k: int, stride: int) -> tuple[int, int]:
    """What SAME adds before and after an axis of n pixels."""
    missing = max((-(-n // stride) - 1) * stride + k - n, 0)
    return missing // 2, missing - missing // 2


def _padded(x: jax.Array, k: int, stride: int) -> jax.Array:
    height, width = x.shape[1:3]
    margins = (_margin(height, k, stride), _margin(width, k, stride))
    return jnp.pad(x, ((0, 0), *margins, (0, 0)))


def _shifts(x: jax.Array, k: int, stride: int, out: tuple[int, ...]) -> list[jax.Array]:
    """The k*k views of x that the weights meet, row by row."""
    height, width = ((n - 1) * stride + 1 for n in out)
    return [
        x[:, i : i + height : stride, j : j + width : stride]
        for i in range(k)
        for j in range(k)
    ]
