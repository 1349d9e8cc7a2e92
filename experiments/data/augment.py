"""What the device does to training images: flip, color jitter, grayscale.

The papers' pipeline is RandomResizedCrop(224, scale=(0.7, 1)), horizontal flip,
ColorJitter(0.3, 0.3, 0.3, 0.3), RandomGrayscale(0.1); the crop is in `transforms`. The
operations are torchvision's on floating-point images. On PIL images, as the papers run
them, torchvision rounds to 8 bits after each operation and turns the hue in steps of
1/255 of the circle.
"""

import jax
import jax.numpy as jnp
import numpy as np

LUMA = (0.2989, 0.587, 0.114)  # torchvision's; they sum to 0.9999
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def augment(
    key: jax.Array, images: jax.Array, *, jitter: float = 0.3, grayscale: float = 0.1
) -> jax.Array:
    """Augments each image by itself; half of them are mirrored.

    Args:
      key: of the batch.
      images: uint8 [N, H, W, 3].
      jitter: brightness, contrast and saturation are scaled by factors uniform in
        [1 - jitter, 1 + jitter], the hue turned by a share uniform in [-jitter, jitter] of
        the circle, in an order drawn for each image; 0 for none. Static under `jit`.
      grayscale: probability of a gray image; 0 for none. Static under `jit`.

    Returns:
      float32 [N, H, W, 3] in [0, 1].

    Raises:
      ValueError: the images are not uint8 [N, H, W, 3], or a strength is out of range.
    """
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8 [N, H, W, 3], as read; got {images.dtype} {images.shape}"
        )
    if not 0 <= jitter <= 0.5:  # half a circle is the farthest that a hue can turn
        raise ValueError(f"jitter must be in [0, 0.5]; got {jitter}")
    if not 0 <= grayscale <= 1:
        raise ValueError(f"grayscale must be a probability in [0, 1]; got {grayscale}")
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda k, x: _augment_one(k, x, jitter, grayscale))(keys, images)


def _augment_one(
    key: jax.Array, image: jax.Array, jitter: float, grayscale: float
) -> jax.Array:
    flipped, jittered, grayed = jax.random.split(key, 3)
    image = image.astype(jnp.float32) / 255.0
    image = jnp.where(jax.random.bernoulli(flipped), image[:, ::-1], image)
    if jitter:
        image = color_jitter(image, *draw_jitter(jittered, jitter))
    if grayscale:
        image = jnp.where(jax.random.bernoulli(grayed, grayscale), luma(image), image)
    return image


def draw_jitter(key: jax.Array, strength: float) -> tuple[jax.Array, jax.Array]:
    """Draws what `color_jitter` is to do.

    Args:
      key: of one image.
      strength: half the width of every factor's range.

    Returns:
      order: int32 [4], a permutation of BRIGHTNESS, CONTRAST, SATURATION and HUE.
      factors: float32 [4], of each operation, not of each place in the order.
    """
    ordered, drawn = jax.random.split(key)
    centers = jnp.array([1.0, 1.0, 1.0, 0.0])
    offsets = jax.random.uniform(drawn, (4,), minval=-strength, maxval=strength)
    return jax.random.permutation(ordered, 4), centers + offsets


def color_jitter(image: jax.Array, order: jax.Array, factors: jax.Array) -> jax.Array:
    """The four adjustments of [H, W, 3] in this order, see `draw_jitter`."""
    for place in range(4):
        image = _adjust(image, order[place], factors[order[place]])
    return image


def _adjust(image: jax.Array, operation: jax.Array, factor: jax.Array) -> jax.Array:
    # The image's order is not known to the compiler, so every operation is computed at
    # every place; as three of them are one blend, that is two operations, not four.
    gray = luma(image)
    base = jnp.where(operation == CONTRAST, jnp.mean(gray), gray)
    base = jnp.where(operation == BRIGHTNESS, 0.0, base)
    blended = _blend(image, base, factor)
    return jnp.where(operation == HUE, adjust_hue(image, factor), blended)


def luma(image: jax.Array) -> jax.Array:
    """The gray image, [..., H, W, 1]."""
    # Not a matrix product, which accelerators round to fewer digits.
    return jnp.sum(image * jnp.array(LUMA, image.dtype), axis=-1, keepdims=True)


def _blend(
    image: jax.Array, base: jax.Array | float, factor: jax.Array | float
) -> jax.Array:
    return jnp.clip(factor * image + (1.0 - factor) * base, 0.0, 1.0)


def adjust_hue(image: jax.Array, turn: jax.Array | float) -> jax.Array:
    """Turns the hue by a share of the circle; value and chroma are kept.

    With V the largest channel and C its distance to the smallest, a channel becomes
    V - C * clip(min(k, 4 - k), 0, 1), where k = (n + 6 * (hue + turn)) mod 6 and n is 5, 3
    and 1 for red, green and blue: the way from RGB to HSV and back in one formula.
    """
    value, chroma = image.max(-1), image.max(-1) - image.min(-1)
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    # Not value == red: where a compiler computes the two in two ways, no channel is it.
    is_red, is_green = (red >= green) & (red >= blue), green >= blue
    across = jnp.where(is_red, green - blue, jnp.where(is_green, blue - red, red - green))
    sector = jnp.where(is_red, 0.0, jnp.where(is_green, 2.0, 4.0))
    six_hue = sector + across / jnp.where(chroma > 0, chroma, 1.0)
    turns = (jnp.array([5.0, 3.0, 1.0]) + six_hue[..., None]) / 6.0 + turn
    k = 6.0 * (turns - jnp.floor(turns))
    fall = jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)
    return value[..., None] - chroma[..., None] * fall


def scale_pixels(images: jax.Array | np.ndarray) -> jax.Array:
    """Uint8 in [0, 255] -> float32 in [0, 1]."""
    return jnp.asarray(images).astype(jnp.float32) / 255.0
