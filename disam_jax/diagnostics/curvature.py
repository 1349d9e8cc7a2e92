"""Curvatures beside the Hessian, each the Hessian of a loss made for it.

So every measure of a Hessian, its eigenvalues, trace, density or distances, is one of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from disam_jax.domains import LossFn
from disam_jax.trees import Tree


def gauss_newton(outputs_fn: LossFn, loss_of_outputs: LossFn) -> LossFn:
    """The loss whose Hessian is Gauss and Newton's matrix: that of the linearized model.

    G = J^T H_L J with J = d outputs / d params and H_L the Hessian of the loss by the
    outputs: the first part of H = G + sum_k (dL / d outputs_k) * Hessian of outputs_k. It
    has no negative eigenvalue where the loss is convex in the outputs.

    The loss is loss_of_outputs(f + J (w - w_0)) with f and J at w_0 = w, wherever it is
    evaluated: its value and its gradient are those of the model. With the cross
    entropy of a softmax, or half of a squared error, G is Fisher's matrix, of labels that
    the model itself would draw.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def outputs_fn(w, batch):
      ...     return batch * w[0] * w[1]
      >>> def loss_of_outputs(outputs, batch):
      ...     return jnp.sum(outputs**2) / 2
      >>> of_linear = dj.diagnostics.gauss_newton(outputs_fn, loss_of_outputs)
      >>> loss_fn = jax.tree_util.Partial(of_linear, batch=jnp.array([3.0, 4.0]))
      >>> w, key = jnp.array([1.0, 2.0]), jax.random.key(0)
      >>> print(dj.diagnostics.hessian_top_eigenvalues(loss_fn, w, 1, key))
      [125.]

    Args:
      outputs_fn: (params, *batch) -> outputs, a tree of arrays.
      loss_of_outputs: (outputs, *batch) -> scalar or losses [M].

    Returns:
      (params, *batch) -> what loss_of_outputs returns. A product with its Hessian is one
      derivative forwards and one backwards, less work than with that of the model's loss.
      Like any loss function it is compiled once per function object: make it once.

    References:
      Schraudolph, Fast Curvature Matrix-Vector Products for Second-Order Gradient
      Descent, 2002; Martens, New Insights and Perspectives on the Natural Gradient Method,
      JMLR 2020, sections 8 and 9.
    """

    def loss_fn(params: Tree, *batch: Any, **more: Any) -> jax.Array:
        here = jax.lax.stop_gradient(params)
        away = optax.tree.sub(params, here)  # 0, of derivative 1
        outputs, along = jax.jvp(
            lambda w: jax.tree.map(jnp.asarray, outputs_fn(w, *batch, **more)),
            (here,),
            (away,),
        )
        outputs = jax.tree.map(_with_derivative, outputs, along)
        return loss_of_outputs(outputs, *batch, **more)

    return loss_fn


def _with_derivative(output: jax.Array, along: jax.Array) -> jax.Array:
    """The output; one of integers has no derivative."""
    inexact = jnp.issubdtype(jnp.result_type(output), jnp.inexact)
    return output + _derivative_alone(along) if inexact else output


@jax.custom_jvp
def _derivative_alone(leaf: jax.Array) -> jax.Array:
    """0, with the derivative of what is 0 already, as the compiler cannot know.

    It would be computed for nothing, at a third of a product's cost.
    """
    return jnp.zeros_like(leaf)


@_derivative_alone.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _derivative_alone(*primals), tangents[0]


def empirical_fisher(losses_fn: LossFn) -> LossFn:
    """The loss whose Hessian is the mean of g_n g_n^T over examples, of their gradients.

    F = mean_n g_n g_n^T with g_n = grad losses_n: the second moment of the gradients of
    examples. It is Fisher's matrix where the labels are drawn from the model, and the
    empirical one with those of the data, which is another matrix.

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def losses_fn(w):  # of three examples, with gradients (1, 0), (1, 2) and (4, 1)
      ...     return jnp.array([[1.0, 0.0], [1.0, 2.0], [4.0, 1.0]]) @ w
      >>> loss_fn = dj.diagnostics.empirical_fisher(losses_fn)
      >>> print(dj.diagnostics.hessian_product(loss_fn, jnp.ones(2), jnp.array([3.0, 0.0])))
      [18. 6.]

    Args:
      losses_fn: (params, *batch) -> the losses of the examples [..., N], such as [M, N] of
        those of each domain.

    Returns:
      (params, *batch) -> [...], whose Hessian alone means something.

    References:
      Kunstner et al., Limitations of the Empirical Fisher Approximation for Natural
      Gradient Descent, NeurIPS 2019, section 2, who have the sum over the examples.
    """

    def mean_square(losses: jax.Array, *batch: Any, **more: Any) -> jax.Array:
        return jnp.mean(losses**2, axis=-1) / 2

    return gauss_newton(losses_fn, mean_square)


def gradient_covariance(losses_fn: LossFn) -> LossFn:
    """The loss whose Hessian is the covariance of the gradients of examples.

    C = mean_n (g_n - mean g) (g_n - mean g)^T with g_n = grad losses_n

    Example:
      >>> import disam_jax as dj, jax, jax.numpy as jnp
      >>> def losses_fn(w):  # of three examples, with gradients (1, 0), (1, 2) and (4, 1)
      ...     return jnp.array([[1.0, 0.0], [1.0, 2.0], [4.0, 1.0]]) @ w
      >>> loss_fn = dj.diagnostics.gradient_covariance(losses_fn)
      >>> print(dj.diagnostics.hessian_product(loss_fn, jnp.ones(2), jnp.array([3.0, 0.0])))
      [6. 0.]

    Args:
      losses_fn: (params, *batch) -> the losses of the examples [..., N], such as [M, N] of
        those of each domain.

    Returns:
      (params, *batch) -> [...], whose Hessian alone means something. The `hessian_distance`
      of it is that between the domains' covariances.

    References:
      Rame et al., Fishr: Invariant Gradient Variances for Out-of-Distribution
      Generalization, ICML 2022, section 3, who compare the diagonals alone, of the
      classifier.
    """

    def variance(losses: jax.Array, *batch: Any, **more: Any) -> jax.Array:
        return jnp.var(losses, axis=-1) / 2

    return gauss_newton(losses_fn, variance)
