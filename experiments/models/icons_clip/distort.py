"""Pictures of icons, changed at random: place, size, mirror, colors."""

import jax
import jax.numpy as jnp

from experiments.models.clip import MEAN, STD

GRAY = jnp.array([0.299, 0.587, 0.114])
SHIFT = 0.12  # largest, as a share of the side
SIZES = (0.75, 1.15)  # of the picture, relative to its own


def normalized(pictures: jax.Array) -> jax.Array:
    """Pixels in [0, 1] as a CLIP takes them."""
    return (pictures - jnp.array(MEAN)) / jnp.array(STD)


def distorted(
    pictures: jax.Array, colored: jax.Array, mirrored: jax.Array, key: jax.Array
) -> jax.Array:
    """Pictures as the towers see them in training.

    Args:
      pictures: uint8 [B, H, W, 3], on white.
      colored: bool [B]; others are black on white, and get two colors at random.
      mirrored: bool [B], which may be mirrored.
      key: of the random numbers.

    Returns:
      float32 [B, H, W, 3], normalized.
    """
    keys = jax.random.split(key, len(pictures))
    changed = jax.vmap(_distort)(pictures / 255.0, colored, mirrored, keys)
    return normalized(jnp.clip(changed, 0, 1))


def _distort(picture, colored, mirrored, key):
    place, mirror, paint, tint = jax.random.split(key, 4)
    picture = _moved(picture, place)
    picture = jnp.where(mirrored & jax.random.bernoulli(mirror), picture[:, ::-1], picture)
    return jnp.where(colored, _tinted(picture, tint), _painted(picture, paint))


def _moved(picture, key):
    """Scaled about the center and shifted; white comes in from outside."""
    side = picture.shape[0]
    size_key, shift_key = jax.random.split(key)
    stretch = jax.random.uniform(size_key, (2,), minval=SIZES[0], maxval=SIZES[1])
    shift = jax.random.uniform(shift_key, (2,), minval=-SHIFT, maxval=SHIFT) * side
    corner = (1 - stretch) * side / 2 + shift
    moved = jax.image.scale_and_translate(
        1 - picture, picture.shape, (0, 1), stretch, corner, "linear", antialias=False
    )
    return 1 - moved


def _painted(picture, key):
    """Black on white -> one color on another; half of them stay black on white."""
    color_key, plain_key = jax.random.split(key)
    ink, paper = jax.random.uniform(color_key, (2, 1, 1, 3))
    painted = paper * picture + ink * (1 - picture)
    return jnp.where(jax.random.bernoulli(plain_key), picture, painted)


def _tinted(picture, key):
    """Brightness, contrast and channels changed; a quarter of them without color."""
    gain_key, lift_key, gray_key = jax.random.split(key, 3)
    gain = jax.random.uniform(gain_key, (3,), minval=0.6, maxval=1.2)
    lift = jax.random.uniform(lift_key, (), minval=-0.2, maxval=0.2)
    gray = (picture @ GRAY)[..., None] * jnp.ones(3)
    picture = jnp.where(jax.random.bernoulli(gray_key, 0.25), gray, picture)
    return picture * gain + lift
