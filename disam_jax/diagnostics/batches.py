"""The same measures of more data than fits at once."""

import jax
import jax.numpy as jnp

from disam_jax.diagnostics.checks import check_batches
from disam_jax.domains import LossFn
from disam_jax.trees import Tree, at_least_float32


def over_batches(loss_fn: LossFn, batches: Tree) -> LossFn:
    """The loss over a data set, the mean of those of its batches, one in memory at a time.

    loss(w) = mean_k L(w; batch_k). Each batch's forward pass is repeated on the way back,
    and nothing of it is held until then.

    Example:
      >>> import disam_jax as dj, jax.numpy as jnp
      >>> def loss_fn(w, batch):
      ...     return jnp.mean((batch - w) ** 2)
      >>> whole = dj.diagnostics.over_batches(loss_fn, jnp.array([[1.0, 2.0], [3.0, 6.0]]))
      >>> print(dj.diagnostics.sharpness(whole, jnp.array(0.0), 0.5))
      [3.25]

    Args:
      loss_fn: (params, batch) -> losses [M] or a scalar, each a mean over the batch.
      batches: a tree of arrays [K, ...], the batches, of one size: their mean is then that
        of all examples. They may be sharded along any axis but the first.

    Returns:
      (params) -> losses [M] or a scalar, in at least float32. On a CPU, convolutions
      inside of it are slow, as in any loop that is compiled.

    Raises:
      ValueError: batches have no common first axis K >= 1.
    """
    num = check_batches(batches)

    def mean(params: Tree, batches: Tree) -> jax.Array:
        @jax.checkpoint
        def step(total: jax.Array, batch: Tree) -> tuple[jax.Array, None]:
            return total + at_least_float32(loss_fn(params, batch)), None

        one = jax.eval_shape(loss_fn, params, jax.tree.map(lambda leaf: leaf[0], batches))
        zeros = at_least_float32(jnp.zeros(one.shape, one.dtype))
        total, _ = jax.lax.scan(step, zeros, batches)
        return total / num

    return jax.tree_util.Partial(mean, batches=batches)
