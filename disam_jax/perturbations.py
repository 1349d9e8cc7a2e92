"""Perturbations: the ascent gradient -> the displacement eps, as Optax transformations.

A perturbation's `update(ascent_grad, state, params)` returns the displacement that is
*added* to the parameters. Any Optax transformation will do, for instance
`optax.scale(rho)` for unnormalized SAM; `perturbation` makes one from a formula.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from disam_jax import trees
from disam_jax.hyperparameters import (
    Hyperparameter,
    at_count,
    check_hyperparameter,
    check_number,
)
from disam_jax.parameters import from_real, is_complex, is_masked, to_real
from disam_jax.trees import Tree

Rule = Callable[[Tree, Tree, chex.Array], Tree]
Size = Callable[[chex.Array], chex.Array]
Mask = Tree | Callable[[Tree], Tree] | None


class PerturbationState(NamedTuple):
    """State of a perturbation.

    Attributes:
      count: int32 scalar, the steps done; schedules read it.
    """

    count: chex.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def perturbation(rule: Rule, *, mask: Mask = None) -> optax.GradientTransformation:
    """Makes an Optax transformation of a rule (ascent_grad, params, count) -> eps.

    The rule sees leaves in at least float32 and, with a mask, only the leaves whose mask
    is True: the others do not move and do not count in any norm.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> sign_ascent = perturbation(
      ...     lambda grad, params, count: jax.tree.map(lambda g: 0.1 * jnp.sign(g), grad)
      ... )
      >>> params = {"kernel": jnp.array([1.0, 2.0])}
      >>> grad = {"kernel": jnp.array([-3.0, 4.0])}
      >>> eps, _ = sign_ascent.update(grad, sign_ascent.init(params), params)
      >>> print(eps["kernel"])
      [-0.1  0.1]

    Args:
      rule: (ascent_grad, params, count) -> eps, three trees of one structure and the
        int32 step count.
      mask: a tree of bools (or a prefix of one), or a function from the parameters to
        such a tree; None perturbs all.

    Returns:
      The transformation; its state counts the steps.

    Raises:
      ValueError: at `update`, the parameters are missing.
      TypeError: at `update`, a mask leaf is not a bool.
    """

    def init(params: Tree) -> PerturbationState:
        del params
        return PerturbationState(count=jnp.zeros([], jnp.int32))

    def update(
        updates: Tree,
        state: PerturbationState,
        params: Tree | None = None,
    ) -> tuple[Tree, PerturbationState]:
        if params is None:
            raise ValueError("A perturbation needs params: update(grad, state, params).")
        moves = _as_bools(mask, params)
        as_given = from_real if is_complex(params) else lambda tree: tree
        grad, params = trees.at_least_float32(to_real((updates, params)))
        eps = rule(_select(moves, grad), _select(moves, params), state.count)
        count = jnp.asarray(optax.safe_increment(state.count))
        return as_given(_fill_with_zeros(eps, grad)), PerturbationState(count)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _as_bools(mask: Mask, params: Tree) -> Tree:
    """Returns the mask as a tree of bools, a prefix of the parameters' tree."""
    bools = mask(params) if callable(mask) else mask
    for flag in jax.tree.leaves(bools):
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"mask must hold bools; got {flag!r} ({type(flag).__name__}).")
    return True if mask is None else bools


def _select(moves: Tree, tree: Tree) -> Tree:
    """Returns `tree` with Optax's mark, which has no leaves, where the mask is False."""
    return jax.tree.map(
        lambda flag, part: (
            part if flag else jax.tree.map(lambda _: optax.MaskedNode(), part)
        ),
        moves,
        tree,
    )


def _fill_with_zeros(eps: Tree, like: Tree) -> Tree:
    return jax.tree.map(
        lambda leaf, g: (
            jnp.zeros_like(g) if is_masked(leaf) else jnp.asarray(leaf, g.dtype)
        ),
        eps,
        like,
        is_leaf=is_masked,
    )


def ascend(
    rho: Hyperparameter = 0.05, *, mask: Mask = None
) -> optax.GradientTransformation:
    """SAM's perturbation, eps = rho * grad / norm(grad).

    The norm is over all (unmasked) leaves together, so that norm(eps) = rho. A zero
    gradient gives eps = 0, and so does one whose norm float32 cannot square: below 1e-19 or
    above 1.8e19.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([3.0, 4.0])
      >>> tx = ascend(rho=0.5)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [0.3 0.4]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Foret et al., Sharpness-Aware Minimization, ICLR 2021, Eq. 2 with p = 2. Released
      codes add 1e-12 to the norm; here only a zero is special, so that tiny gradients
      still move by rho.
    """
    check_hyperparameter("rho", rho)

    def rule(grad: Tree, params: Tree, count: chex.Array) -> Tree:
        del params
        return trees.with_norm(grad, at_count(rho, count))

    return perturbation(rule, mask=mask)


def each_element(leaf: chex.Array) -> chex.Array:
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


def each_layer(leaf: chex.Array) -> chex.Array:
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
    check_hyperparameter("rho", rho)

    def rule(grad: Tree, params: Tree, count: chex.Array) -> Tree:
        sizes = jax.tree.map(size, params)
        scaled_grad = jax.tree.map(jnp.multiply, sizes, grad)
        direction = trees.with_norm(scaled_grad, at_count(rho, count))
        return jax.tree.map(jnp.multiply, sizes, direction)

    return perturbation(rule, mask=mask)


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
    check_hyperparameter("rho", rho)

    def rule(grad: Tree, params: Tree, count: chex.Array) -> Tree:
        directions = jax.tree.map(lambda g, w: size(w) * jnp.sign(g), grad, params)
        return trees.scale(at_count(rho, count), directions)

    return perturbation(rule, mask=mask)


def ascend_unnormalized(
    rho: Hyperparameter = 0.05, *, mask: Mask = None
) -> optax.GradientTransformation:
    """Unnormalized SAM's perturbation, eps = rho * grad.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([3.0, 4.0])
      >>> tx = ascend_unnormalized(rho=0.5)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [1.5 2. ]

    Args:
      rho: >= 0, in units of a learning rate; a float, array or schedule.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho is negative or not finite.

    References:
      Andriushchenko and Flammarion, Towards Understanding Sharpness-Aware Minimization,
      ICML 2022, Eq. 4.
    """
    check_hyperparameter("rho", rho)
    return perturbation(
        lambda grad, params, count: trees.scale(at_count(rho, count), grad),
        mask=mask,
    )


def ascend_and_match(
    rho: Hyperparameter = 0.05, alpha: Hyperparameter = 1e-3, *, mask: Mask = None
) -> optax.GradientTransformation:
    """SAGM's perturbation, eps = (rho / norm(grad) - alpha) * grad.

    SAM's ascent less a descent step of length alpha, which makes the gradients at both
    points agree. alpha = 0 gives `ascend`; a zero gradient gives eps = 0.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = params = jnp.array([3.0, 4.0])
      >>> tx = ascend_and_match(rho=0.5, alpha=0.05)
      >>> print(tx.update(grad, tx.init(params), params)[0])
      [0.15 0.2 ]

    Args:
      rho: >= 0, the radius; a float, array or schedule.
      alpha: >= 0, the step back, in units of a learning rate.
      mask: which parameters move; see `perturbation`.

    Returns:
      The transformation.

    Raises:
      ValueError: rho or alpha is negative or not finite.

    References:
      Wang et al., Sharpness-Aware Gradient Matching for Domain Generalization, CVPR 2023;
      the form of the authors' code.
    """
    check_hyperparameter("rho", rho)
    check_hyperparameter("alpha", alpha)

    def rule(grad: Tree, params: Tree, count: chex.Array) -> Tree:
        del params
        radius_scale = trees.safe_divide(at_count(rho, count), trees.norm(grad))
        return trees.scale(radius_scale - at_count(alpha, count), grad)

    return perturbation(rule, mask=mask)


def normalization_layers(params: Tree) -> Tree:
    """A mask that is True for the parameters of normalization layers, by their names.

    Example:
      >>> normalization_layers({"BatchNorm_0": {"scale": 1.0}, "Dense_0": {"bias": 0.0}})
      {'BatchNorm_0': {'scale': True}, 'Dense_0': {'bias': False}}

    Args:
      params: a tree with names, as Flax makes.

    Returns:
      A tree of bools: whether "norm" or "bn" is in a leaf's path, in any case of letters.

    Raises:
      ValueError: no parameter has such a name.

    References:
      Mueller et al., Normalization Layers Are All That Sharpness-Aware Minimization Needs,
      NeurIPS 2023; the rule of the authors' code.
    """

    def is_normalization(path: Any, leaf: Any) -> bool:
        del leaf
        name = jax.tree_util.keystr(path).lower()
        return "norm" in name or "bn" in name

    mask = jax.tree_util.tree_map_with_path(is_normalization, params)
    if not any(jax.tree.leaves(mask)):
        raise ValueError(
            "no parameter's name holds 'norm' or 'bn'; give the mask of the normalization "
            "layers yourself."
        )
    return mask
