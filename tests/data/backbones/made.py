"""Images and weights made from names and fixed seeds, the same for PyTorch and for JAX."""

import zlib

import numpy as np

SIZE, CLASSES = 64, 7
LABELS = np.array([2, 5])


def generator(name):
    return np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))


def images():
    return generator("images").normal(size=(2, SIZE, SIZE, 3))


def head(features):
    return generator("head").normal(size=(features, CLASSES)) / features**0.5


def weights(shapes):
    return {name: weight(name, shape) for name, shape in shapes.items()}


def weight(name, shape):
    """Of the sizes that trained weights have, so that activations stay near one."""
    rng = generator(name)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 2.0, shape)
    if len(shape) == 1 and name.endswith("weight"):  # of a norm
        return rng.uniform(0.5, 1.0, shape)
    if len(shape) < 2 or "token" in name or "pos_embed" in name:
        return 0.1 * rng.normal(size=shape)
    fan_in = np.prod(shape[1:])
    return rng.normal(size=shape) * (1.5 / fan_in) ** 0.5


def digest(name, gradient):
    """Norm, largest entry, and some entries of a gradient in PyTorch's order of axes."""
    flat = np.asarray(gradient, np.float64).ravel()
    places = generator("digest " + name).integers(flat.size, size=14)
    return np.array([np.linalg.norm(flat), np.abs(flat).max(), *flat[places]])
