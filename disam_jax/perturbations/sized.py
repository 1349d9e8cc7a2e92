"""Perturbations in units of the parameters' size, and the sizes that they may have."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_step,
    check_hyperparameter,
    check_number,
)
from disam_jax.perturbations.ascend import perturbation
from disam_jax.perturbations.masks import Mask
from disam_jax.trees import Tree

Size = Callable[[jax.Array], jax.Array]


def each_element(leaf: jax.Array) -> jax.Array:
    """The size of a parameter: its absolute value, so that every element has its own.

    Example:
      >>> import jax.numpy as jnp
      >>> print(each_element(jnp.array([-3.0, 4.0])))
      [3. 4.]

    Args:
      leaf: of the parameters.

    Returns:
      Sizes in the shape of the leaf.
    """
    return jnp.abs(leaf)


def each_layer(leaf: jax.Array) -> jax.Array:
    """The size of a parameter: the l2 norm of the leaf that holds it, a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> print(each_layer(jnp.array([-3.0, 4.0])))
      5.0

    Args:
      leaf: of the parameters.

    Returns:
      A scalar.
    """
    return trees.norm(leaf)


def each_weight(eta: float = 0.01) -> Size:
    """The size of a parameter in ASAM's release: |w| + eta, and 1 for biases.

    A bias, or a scale of a normalization layer, is a leaf of fewer than two axes.

    Example:
      >>> import jax.numpy as jnp
      >>> size = each_weight(eta=0.5)
      >>> print(size(jnp.array([[-2.0, 0.0]])), size(jnp.array([-2.0, 0.0])))
      [[2.5 0.5]] [1. 1.]

    Args:
      eta: >= 0, what is added so that a weight of 0 can move.

    Returns:
      leaf -> sizes of its elements.

    Raises:
      ValueError: eta is negative or not finite.

    References:
      Kwon et al., ASAM, ICML 2021; the rule of the authors' code, which goes by the name.
    """
    eta = check_number("eta", eta)
    return lambda leaf: jnp.abs(leaf) + eta if leaf.ndim > 1 else jnp.ones_like(leaf)


def ascend_adaptively(
    rho: Hyperparameter = 0.5, *, size: Size = each_element, mask: Mask = None
) -> optax.GradientTransformation:
    """ASAM's perturbation, eps = rho * T**2 * grad / norm(T * grad) with T = size(params).

    Scaling the parameters of a layer scales its perturbation along, so that
    norm(eps / T) = rho. A gradient that is zero wherever the parameters are not gives
    eps = 0.

    Example:
      >>> import jax.numpy as jnp
      >>> grad, params = jnp.array([3.0, 2.0]), jnp.array([1.0, -2.0])
      >>> tx = ascend_adaptively(rho=0.5)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [0.3 0.8]

    Args:
      rho: >= 0, the radius in units of the parameters' size; about ten times SAM's.
      size: leaf -> T, an array that multiplies the leaf: `each_element` (|w|),
        `each_layer` (the leaf's norm), `each_weight()` (ASAM's release).
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Kwon et al., ASAM, ICML 2021, Eq. 6, the element-wise form. Their code adds eta = 0.01
      to T and leaves biases unscaled; the DISAM release's SAM, the default here, does
      neither. By layer: Mueller et al., NeurIPS 2023, Table 10.
    """
    radius = check_hyperparameter("rho", rho)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        sizes = jax.tree.map(size, params)
        direction = trees.with_norm(optax.tree.mul(sizes, grad), at_step(radius, count))
        return optax.tree.mul(sizes, direction)

    return perturbation(rule, mask=mask, rho=radius)


def ascend_by_sign(
    rho: Hyperparameter = 0.01, *, size: Size = jnp.ones_like, mask: Mask = None
) -> optax.GradientTransformation:
    """The perturbation of the l-inf ball, eps = rho * T * sign(grad) with T = size(params).

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([3.0, -4.0, 0.0])
      >>> tx = ascend_by_sign(rho=0.1)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [ 0.1 -0.1  0. ]

    Args:
      rho: >= 0, by how much each parameter moves; the l2 norm of eps is rho times the root
        of their number, so this rho is far smaller than SAM's.
      size: leaf -> T, as in `ascend_adaptively`; the default is 1.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Foret et al., ICLR 2021, Eq. 2 with p = inf. Scaled: Mueller et al., NeurIPS 2023.
    """
    radius = check_hyperparameter("rho", rho)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        directions = jax.tree.map(lambda g, w: size(w) * jnp.sign(g), grad, params)
        return optax.tree.scale(at_step(radius, count), directions)

    return perturbation(rule, mask=mask)


def ascend_by_fisher(
    rho: Hyperparameter = 0.05, eta: Hyperparameter = 0.2, *, mask: Mask = None
) -> optax.GradientTransformation:
    """Fisher SAM's perturbation, eps = rho * f * grad / sqrt(sum(f * grad**2)).

    f = 1 / (1 + eta * grad**2) is the inverse of the Fisher information's diagonal, as one
    mini-batch shows it: what the predictions depend on most moves least. eta = 0 gives
    `ascend`; a zero gradient gives eps = 0.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([0.0, 2.0])
      >>> tx = ascend_by_fisher(rho=1.0, eta=2.0)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [0.         0.33333334]

    Args:
      rho: >= 0, the radius in the geometry of f; a float, array or schedule.
      eta: >= 0, how much the Fisher information counts; a float, array or schedule.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho or eta is negative or not finite.

    References:
      Kim et al., Fisher SAM: Information Geometry and Sharpness Aware Minimisation, ICML
      2022 (arXiv 2206.04920). No code of theirs was found; the formula is that of ports.
    """
    radius = check_hyperparameter("rho", rho)
    weight = check_hyperparameter("eta", eta)

    def rule(grad: Tree, params: Tree, count: jax.Array) -> Tree:
        del params
        eta = at_step(weight, count)
        sizes = jax.tree.map(lambda g: jax.lax.rsqrt(1 + eta * g**2), grad)
        direction = trees.with_norm(optax.tree.mul(sizes, grad), at_step(radius, count))
        return optax.tree.mul(sizes, direction)

    return perturbation(rule, mask=mask, rho=radius)
