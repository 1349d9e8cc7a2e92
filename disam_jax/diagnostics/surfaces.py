"""Surfaces: the losses on a line or a grid through the parameters."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from disam_jax import trees
from disam_jax.diagnostics.checks import domain_losses, real_params
from disam_jax.diagnostics.compiled import compiled, scan
from disam_jax.domains import LossFn
from disam_jax.trees import Tree


def filter_normalized(key: jax.Array, params: Tree) -> Tree:
    """A random direction in which every filter is as long as the weights' own.

    direction = d * norm(w) / norm(d), filter by filter, with d Gaussian. A filter is what
    makes one output: all axes but the last, as Flax lays kernels out.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
      >>> direction = dj.diagnostics.filter_normalized(jax.random.key(0), params)
      >>> lengths = jnp.linalg.norm(direction["kernel"], axis=0)
      >>> print(lengths.round(3), direction["bias"])
      [5. 2.] [0. 0.]

    Args:
      key: of the direction; two of them give two nearly orthogonal ones.
      params: where the surface is seen.

    Returns:
      A tree in the shapes of `params`, in at least float32; 0 in leaves of fewer than two
      axes (biases, normalization layers) and filters of weight 0.

    References:
      Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, section 4,
      whose code adds 1e-10 to norm(d) and has the outputs first.
    """
    return trees.from_real(_filter_normalized(key, real_params(params)))


@jax.jit
def _filter_normalized(key: jax.Array, params: Tree) -> Tree:
    def direction(weights: jax.Array, drawn: jax.Array) -> jax.Array:
        if weights.ndim < 2:
            return jnp.zeros_like(weights)
        return drawn * trees.safe_divide(_filter_norms(weights), _filter_norms(drawn))

    drawn = trees.drawn_like(jax.random.normal, key, params)
    return jax.tree.map(direction, params, drawn)


def _filter_norms(leaf: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(leaf**2, axis=range(leaf.ndim - 1), keepdims=True))


def loss_surface(
    loss_fn: LossFn,
    params: Tree,
    directions: Sequence[Tree],
    coordinates: Sequence[ArrayLike],
) -> jax.Array:
    """The losses at params + sum_k c_k * directions[k], for all c_k in coordinates[k].

    The line to another model is the direction `optax.tree.sub(other, params)`: 0 is this
    model, 1 the other, and a barrier between them what rises above both.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp, optax
      >>> def loss_fn(w):
      ...     return jnp.sum((w**2 - 1) ** 2)
      >>> params, other = jnp.array([-1.0, 1.0]), jnp.array([1.0, 1.0])
      >>> to_other = optax.tree.sub(other, params)
      >>> line = dj.diagnostics.loss_surface(
      ...     loss_fn, params, [to_other], [jnp.linspace(0, 1, 5)])
      >>> print(line)
      [0.   0.56 1.   0.56 0.  ]

    Args:
      loss_fn: (params) -> losses [M] or a scalar.
      params: the origin; half precision is seen in float32.
      directions: trees in the shapes of params, e.g. from `filter_normalized`.
      coordinates: 1-d arrays, one per direction.

    Returns:
      [len(coordinates[0]), len(coordinates[1]), ..., M], or without M for a scalar loss, in
      at least float32; one forward pass per point.

    Raises:
      ValueError: there is not one 1-d array of coordinates per direction.

    References:
      Li et al., NeurIPS 2018, Eq. 1; between models: Goodfellow et al., Qualitatively
      Characterizing Neural Network Optimization Problems, ICLR 2015.
    """
    shapes = [np.shape(c) for c in coordinates]
    if len(shapes) != len(directions) or any(len(shape) != 1 for shape in shapes):
        raise ValueError(
            f"coordinates must be one 1-d array per direction; got shapes {shapes} for "
            f"{len(directions)} directions. For a line give one of each, in lists."
        )
    of_one = jax.eval_shape(loss_fn, params).shape
    params, directions = real_params(params), trees.to_real(tuple(directions))
    grids = jnp.meshgrid(*(jnp.asarray(c) for c in coordinates), indexing="ij")
    points = jnp.stack([grid.reshape(-1) for grid in grids], axis=-1)
    losses_at = compiled(_losses_at, loss_fn)
    _, found = scan(
        lambda _, point: (None, losses_at(params, directions, point)), None, points
    )
    return found.reshape(*grids[0].shape, *of_one)


def _losses_at(
    loss_fn: LossFn, params: Tree, directions: tuple[Tree, ...], point: jax.Array
) -> jax.Array:
    def displaced(origin: jax.Array, *along: jax.Array) -> jax.Array:
        moved = origin + sum(c * d for c, d in zip(list(point), along, strict=True))
        return moved.astype(origin.dtype)

    there = jax.tree.map(displaced, params, *directions)
    return domain_losses(loss_fn)(there)[0]
