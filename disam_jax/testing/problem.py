"""A small problem with domains, and steps of any method on it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from disam_jax import trees
from disam_jax.trees import Tree

Method = optax.GradientTransformationExtraArgs
RATE = 0.1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Quadratic domain losses, 1/2 (w - center)^T hessian (w - center), on a small tree.

    Attributes:
      hessians: [M, n, n].
      centers: [M, n].
      weights: [M], >= 0.
      micro_batches: whether the update is given the domains so, as `dgsam` wants.
    """

    hessians: jax.Array
    centers: jax.Array
    weights: jax.Array
    micro_batches: bool = dataclasses.field(default=False, metadata={"static": True})

    @classmethod
    def random(
        cls, seed: int = 0, *, num_domains: int = 3, micro_batches: bool = False
    ) -> "Problem":
        """A problem that is not symmetric in its domains.

        Args:
          seed: of the problem.
          num_domains: M.
          micro_batches: as in the class.

        Returns:
          The problem, in five dimensions.
        """
        rng = np.random.default_rng(seed)
        roots = rng.normal(size=(num_domains, 5, 5))
        return cls(
            jnp.asarray(np.einsum("mij,mkj->mik", roots, roots) / 5),
            jnp.asarray(rng.normal(size=(num_domains, 5))),
            jnp.asarray(rng.uniform(0.5, 1.5, size=num_domains)),
            micro_batches,
        )

    def start(self, dtype: Any = None) -> Tree:
        """The first parameters."""
        w = np.random.default_rng(100).normal(size=5)
        return {
            "kernel": jnp.asarray(w[:4].reshape(2, 2), dtype),
            "norm": {"scale": jnp.asarray(w[4:], dtype)},
        }

    def loss(self, params: Tree, domain: tuple[jax.Array, jax.Array]) -> jax.Array:
        """The loss of one domain, (hessian, center), a scalar in at least float32."""
        leaves = jax.tree.leaves(trees.at_least_float32(params))
        hessian, center = domain
        away = jnp.concatenate([leaf.reshape(-1) for leaf in leaves]) - center
        return away @ hessian @ away / 2

    def arguments(self, seen: Any = lambda: None) -> dict[str, Any]:
        """What the update takes. `seen` is called at each evaluation of a loss."""
        domains = (self.hessians, self.centers)
        if self.micro_batches:

            def of_domain(params: Tree, domain: Any) -> jax.Array:
                seen()
                return self.loss(params, domain)

            weights = self.weights[:, None]
            return {
                "loss_fn": of_domain, "micro_batches": domains, "domain_weights": weights
            }  # fmt: skip

        def of_all(params: Tree) -> jax.Array:
            seen()
            return jax.vmap(self.loss, in_axes=(None, 0))(params, domains)

        return {"loss_fn": of_all, "domain_weights": self.weights}


def run(tx: Method, problem: Problem, steps: int = 4, *, jit: bool = True) -> Tree:
    """The parameters after some steps of `tx` and plain descent.

    Args:
      tx: a method.
      problem: what is descended.
      steps: how many.
      jit: whether a step is compiled.

    Returns:
      The parameters.
    """
    step = compiled_step(tx) if jit else step_of(tx)
    carry = problem.start(), tx.init(problem.start())
    for _ in range(steps):
        carry = step(problem, *carry)
    return carry[0]


def step_of(tx: Method, seen: Any = lambda: None, **kwargs: Any) -> Any:
    """A step of `tx` and of plain descent: (problem, params, state) -> (params, state)."""

    def step(problem: Problem, params: Tree, state: Any) -> tuple[Tree, Any]:
        arguments = problem.arguments(seen)
        updates, state = tx.update(None, state, params, **arguments, **kwargs)  # pyright: ignore[reportArgumentType]
        found = {leaf.dtype for leaf in jax.tree.leaves(updates)}
        meant = {leaf.dtype for leaf in jax.tree.leaves(params)}
        assert found == meant, f"parameters of {meant} give updates of {found}"
        return optax.tree.add_scale(params, -RATE, updates), state

    return step


@functools.cache
def compiled_step(tx: Method) -> Any:
    """The same, compiled once."""
    return jax.jit(step_of(tx))
