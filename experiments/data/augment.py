"""What the device does to training images: flip, color jitter, grayscale.

The papers' pipeline is RandomResizedCrop(224, scale=(0.7, 1)), horizontal flip,
ColorJitter(0.3, 0.3, 0.3, 0.3), RandomGrayscale(0.1); the crop is in `transforms`. The
operations are torchvision's on floating-point images; on PIL images, as the papers run
them, it rounds to 8 bits after each.
"""

import jax
import jax.numpy as jnp

LUMA = (0.2989, 0.587, 0.114)  # torchvision's


def augment(
    key: jax.Array, images: jax.Array, *, jitter: float = 0.3, grayscale: float = 0.1
) -> jax.Array:
    """Augments each image by itself.

    Args:
      key: of the batch.
      images: uint8 [N, H, W, 3].
      jitter: brightness, contrast and saturation are scaled by factors uniform in
        [1 - jitter, 1 + jitter], the hue turned by a share uniform in [-jitter, jitter] of
        the circle, in an order drawn for each image; 0 for none.
      grayscale: probability of a gray image.

    Returns:
      float32 [N, H, W, 3] in [0, 1].
    """
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda k, x: _augment_one(k, x, jitter, grayscale))(keys, images)


def _augment_one(
    key: jax.Array, image: jax.Array, jitter: float, grayscale: float
) -> jax.Array:
    flipped, jittered, grayed = jax.random.split(key, 3)
    image = image.astype(jnp.float32) / 255.0
    image = jnp.where(jax.random.bernoulli(flipped), image[:, ::-1], image)
    if jitter:
        image = color_jitter(jittered, image, jitter)
    if grayscale:
        image = jnp.where(jax.random.bernoulli(grayed, grayscale), luma(image), image)
    return image


def color_jitter(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """The four adjustments of [H, W, 3], in a random order."""
    ordered, drawn = jax.random.split(key)
    order = jax.random.permutation(ordered, 4)
    u = jax.random.uniform(drawn, (4,), minval=-strength, maxval=strength)
    adjustments = (
        lambda x: adjust_brightness(x, 1.0 + u[0]),
        lambda x: adjust_contrast(x, 1.0 + u[1]),
        lambda x: adjust_saturation(x, 1.0 + u[2]),
        lambda x: adjust_hue(x, u[3]),
    )
    for position in range(4):
        image = jax.lax.switch(order[position], adjustments, image)
    return image


def luma(image: jax.Array) -> jax.Array:
    """The gray image, [..., H, W, 1]."""
    return image @ jnp.array(LUMA, image.dtype)[:, None]


def adjust_brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Factor * image, clipped to [0, 1]."""
    return jnp.clip(factor * image, 0.0, 1.0)


def adjust_contrast(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Away from the mean gray, clipped to [0, 1]."""
    mean = jnp.mean(luma(image))
    return jnp.clip(mean + factor * (image - mean), 0.0, 1.0)


def adjust_saturation(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Away from each pixel's own gray, clipped to [0, 1]."""
    gray = luma(image)
    return jnp.clip(gray + factor * (image - gray), 0.0, 1.0)


def adjust_hue(image: jax.Array, turn: jax.Array | float) -> jax.Array:
    """Turns the hue by a share of the circle, value and saturation kept.

    With V the largest channel and C its distance to the smallest, the channel at hue
    distance n is V - C * clip(min(k, 4 - k), 0, 1), k = (n + 6 hue) mod 6.
    """
    high, low = image.max(-1), image.min(-1)
    chroma = high - low
    safe = jnp.where(chroma > 0, chroma, 1.0)
    r, g, b = image[..., 0], image[..., 1], image[..., 2]
    hue = jnp.where(
        high == r,
        (g - b) / safe,
        jnp.where(high == g, 2.0 + (b - r) / safe, 4.0 + (r - g) / safe),
    )
    k = (jnp.array([5.0, 3.0, 1.0]) + (hue + 6.0 * turn)[..., None]) % 6.0
    return high[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)
