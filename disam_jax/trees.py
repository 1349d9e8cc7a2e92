"""Trees of real arrays: arithmetic in at least float32, safe at zero, and users' as such.

In bfloat16 a norm keeps two digits, and in float16 it overflows at 65504: the length
of a perturbation must not depend on that. Every product and norm of the package is a sum
of elementwise products, which stays where the arrays are: of sharded arrays nothing but
the scalar is exchanged. The rest of the tree arithmetic is `optax.tree`'s.

A complex leaf is taken for its two real coordinates, a Python float for an array, and None
for no parameter at all. What has no gradient is refused by its name.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

# A tree of arrays. Optax spells it as a union that does not admit the trees of Flax NNX.
Tree: TypeAlias = Any


def at_least_float32(tree: Tree) -> Tree:
    """Returns `tree` with half-precision leaves as float32, others as they are."""
    with jax.numpy_dtype_promotion("standard"):  # though the user may have set "strict"
        dtypes = jax.tree.map(jnp.result_type, tree)
        wide = jax.tree.map(functools.partial(jnp.promote_types, jnp.float32), dtypes)
    return jax.tree.map(jnp.asarray, tree, wide)


def dot(a: Tree, b: Tree) -> jax.Array:
    """Returns sum(a * b) over all leaves, a scalar in at least float32.

    Of complex leaves real and imaginary parts are multiplied each with its own.
    """
    total = jnp.zeros([], jnp.float32)
    a, b = at_least_float32((a, b))
    with jax.numpy_dtype_promotion("standard"):  # float64 beside the first float32
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            # For real numbers, both of the functions beside the product do nothing.
            total += jnp.sum(jnp.real(jnp.conj(x) * y))
    return total


def norm(tree: Tree) -> jax.Array:
    """Returns the l2 norm over all leaves; its derivative at zero is zero, not NaN.

    In float32 a norm below about 1e-19 is 0 and one above 1.8e19 infinite, as its square.
    Whether something is zero is asked of its norm, never of the sum below the root: XLA
    repeats what is cheap, here the sum over all leaves, in each kernel that reads it, and
    only from the root on computes it once.
    """
    return sqrt(dot(tree, tree))


# The square root of x >= 0; its derivative at zero is zero, not infinite.
sqrt: jax.custom_jvp[jax.Array] = jax.custom_jvp(jnp.sqrt)


@sqrt.defjvp
def _sqrt_jvp(primals: Any, tangents: Any) -> Any:
    root = sqrt(*primals)
    return root, safe_divide(0.5, root) * tangents[0]


def safe_divide(numerator: float | jax.Array, denominator: jax.Array) -> jax.Array:
    """Returns numerator / denominator, and 0 where the denominator is 0."""
    with jax.numpy_dtype_promotion("standard"):  # a schedule's float32 beside float64
        return numerator / jnp.where(denominator == 0, jnp.inf, denominator)


def unknown(like: jax.Array) -> jax.Array:
    """Returns NaN in place of what was not seen: `jax_debug_nans` is not to stop at it."""
    with jax.debug_nans(False):
        return jnp.nan * like


def scale(scalar: Any, tree: Tree) -> Tree:
    """Returns scalar * tree, in the dtype of each leaf."""
    return jax.tree.map(lambda x: jnp.asarray(scalar, jnp.finfo(x.dtype).dtype) * x, tree)


def weighted_sum(weights: jax.Array, stacked: Tree) -> Tree:
    """Returns sum_k weights[k] * tree_k, in the dtype of each leaf [K, ...]."""
    return jax.tree.map(lambda x: jnp.tensordot(weights.astype(x.dtype), x, 1), stacked)


def with_norm(tree: Tree, length: Any) -> Tree:
    """Returns `tree` scaled to that l2 norm over all leaves; zeros stay zeros."""
    return optax.tree.scale(safe_divide(length, norm(tree)), tree)


def orthogonal(tree: Tree, to: Tree) -> Tree:
    """Returns the part of `tree` orthogonal to `to`, all leaves together; all, to zeros."""
    along = safe_divide(dot(tree, to), norm(to) ** 2)
    return jax.tree.map(lambda a, b: a - jnp.asarray(along, b.dtype) * b, tree, to)


def drawn_like(draw: Callable[..., jax.Array], key: jax.Array, tree: Tree) -> Tree:
    """Returns random leaves draw(key, shape, dtype), that lie where `tree`'s leaves lie."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        # What is added is 0, and brings its sharding along.
        draw(key, leaf.shape, leaf.dtype) + jnp.zeros_like(leaf)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def everywhere(given: Any) -> jax.Array:
    """The array whole on every device: of an explicitly sharded one no order is known."""
    array = jnp.asarray(given)
    mesh = jax.typeof(array).sharding.mesh  # its own, entered by `set_mesh` or not
    if not mesh.explicit_axes:
        return array
    return jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec()))


def zeros_like(tree: Tree) -> Tree:
    """Returns zeros that vary over the same device axes as `tree`: a scan's first carry."""

    def zeros(leaf: jax.Array) -> jax.Array:
        return vary(jnp.zeros_like(leaf), tuple(_varies_over(leaf)))

    return jax.tree.map(zeros, tree)


def vary(tree: Tree, axis_name: str | tuple[str, ...]) -> Tree:
    """Returns `tree` as arrays that may differ from device to device along the axes.

    Only `shard_map` tells the two apart; elsewhere `tree` comes back as it is.
    """
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    manual = jax.sharding.get_abstract_mesh().manual_axes

    def cast(leaf: jax.Array) -> jax.Array:
        new = tuple(n for n in names if n in manual and n not in _varies_over(leaf))
        if not new:
            return leaf
        if hasattr(jax.lax, "pcast"):  # since jax 0.9
            return jax.lax.pcast(leaf, new, to="varying")
        return jax.lax.pvary(leaf, new)  # pyright: ignore[reportAttributeAccessIssue]

    return jax.tree.map(cast, tree)


def _varies_over(leaf: jax.Array) -> frozenset[str]:
    return getattr(jax.typeof(leaf), "vma", frozenset())


class Coordinates(NamedTuple):
    """The two real coordinates of a complex leaf.

    Attributes:
      real: the real part.
      imaginary: the imaginary part.
    """

    real: jax.Array
    imaginary: jax.Array


def to_real(tree: Tree) -> Tree:
    """Returns `tree` with arrays for leaves and `Coordinates` for complex ones."""
    if not is_complex(tree):
        return jax.tree.map(jnp.asarray, tree)

    def coordinates(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return Coordinates(leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else leaf

    return jax.tree.map(coordinates, tree)


def is_complex(tree: Tree) -> bool:
    """Whether a leaf is complex."""
    return any(map(jnp.iscomplexobj, jax.tree.leaves(tree)))


def from_real(tree: Tree) -> Tree:
    """The reverse of `to_real`."""
    return jax.tree.map(
        lambda node: jax.lax.complex(*node) if isinstance(node, Coordinates) else node,
        tree,
        is_leaf=lambda node: isinstance(node, Coordinates),
    )


def check_params(params: Tree) -> None:
    """Refuses parameters that cannot be perturbed.

    Raises:
      TypeError: a leaf is no floating-point or complex array or number.
      ValueError: an Optax mask stands around the method.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_masked)
    for path, leaf in leaves:
        if is_masked(leaf):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} is an optax.MaskedNode: optax.masked, "
                "optax.partition or optax.multi_transform around the method hides it, and "
                "the loss needs all parameters. To train a part of a model, give the "
                "method the tree of that part alone and close the loss over the rest: "
                "tx.init(trained), loss_fn=lambda trained: loss(trained, frozen). To "
                "perturb a part, the method's own argument mask=. To step a part, put the "
                "mask after the method: optax.chain(method, optax.masked(optimizer, mask))."
            )
        known = isinstance(leaf, float | complex)  # Python's have no dtype
        dtype = jnp.result_type(leaf) if known else getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            kind = f"of dtype {dtype}" if dtype else f"{leaf!r} ({type(leaf).__name__})"
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} is {kind}: only floating-point and "
                "complex numbers can be perturbed. Take it out of params and give it to "
                "the loss function beside them; with Equinox, "
                "eqx.partition(model, eqx.is_inexact_array)."
            )


def is_masked(node: Any) -> bool:
    """Whether a node is Optax's mark of what a mask hides."""
    return isinstance(node, optax.MaskedNode)
