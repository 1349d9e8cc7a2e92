"""Checks that a method can be run through, from any test suite.

Each raises an AssertionError that says what does not hold; `check` runs them all. A method
is what `sharpness_aware`, `gradient_source` or anything with the same update makes. What
no check can know is whether the formula is the right one: test that against an independent
reference, over a few steps in float64.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from disam_jax import trees
from disam_jax.sources import pop_evaluation
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
      pieces: whether the update is given the domains as micro-batches, as `walk` wants.
    """

    hessians: jax.Array
    centers: jax.Array
    weights: jax.Array
    pieces: bool = dataclasses.field(default=False, metadata={"static": True})

    @classmethod
    def random(
        cls, seed: int = 0, *, num_domains: int = 3, pieces: bool = False
    ) -> "Problem":
        """A problem that is not symmetric in its domains.

        Args:
          seed: of the problem.
          num_domains: M.
          pieces: as in the class.

        Returns:
          The problem, in five dimensions.
        """
        rng = np.random.default_rng(seed)
        roots = rng.normal(size=(num_domains, 5, 5))
        return cls(
            jnp.asarray(np.einsum("mij,mkj->mik", roots, roots) / 5),
            jnp.asarray(rng.normal(size=(num_domains, 5))),
            jnp.asarray(rng.uniform(0.5, 1.5, size=num_domains)),
            pieces,
        )

    def start(self, dtype: Any = None) -> Tree:
        """The first parameters."""
        w = np.random.default_rng(100).normal(size=5)
        return {
            "kernel": jnp.asarray(w[:4].reshape(2, 2), dtype),
            "norm": {"scale": jnp.asarray(w[4:], dtype)},
        }

    def loss(self, params: Tree, domain: tuple[chex.Array, chex.Array]) -> chex.Array:
        """The loss of one domain, (hessian, center), a scalar in at least float32."""
        leaves = jax.tree.leaves(trees.at_least_float32(params))
        hessian, center = domain
        away = jnp.concatenate([leaf.reshape(-1) for leaf in leaves]) - center
        return away @ hessian @ away / 2

    def arguments(self, seen: Any = lambda: None) -> dict[str, Any]:
        """What the update takes. `seen` is called at each evaluation of a loss."""
        domains = (self.hessians, self.centers)
        if self.pieces:

            def of_piece(params: Tree, piece: Any) -> chex.Array:
                seen()
                return self.loss(params, piece)

            weights = self.weights[:, None]
            return {
                "loss_fn": of_piece, "micro_batches": domains, "domain_weights": weights
            }  # fmt: skip

        def of_all(params: Tree) -> chex.Array:
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
    step = _compiled_step(tx) if jit else _step(tx)
    carry = problem.start(), tx.init(problem.start())
    for _ in range(steps):
        carry = step(problem, *carry)
    return carry[0]


def check(
    tx: Method,
    *,
    gradients: float | None = None,
    steps: int = 10,
    pieces: bool = False,
) -> None:
    """Runs all checks.

    Example:
      >>> import disam_jax as dj
      >>> from disam_jax import testing
      >>> testing.check(dj.disam(rho=0.05, lam=0.1), gradients=2)

    Args:
      tx: a method.
      gradients: evaluations of the loss per step on average, if that is known.
      steps: over how many they are counted; a multiple of the method's period.
      pieces: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: a check fails.
    """
    check_zero_gradient(tx, pieces=pieces)
    check_absent_domain(tx, pieces=pieces)
    check_state(tx, pieces=pieces)
    check_composition(tx, pieces=pieces)
    check_dtypes(tx, pieces=pieces)
    check_determinism(tx, pieces=pieces)
    if gradients is not None:
        check_cost(tx, gradients, steps=steps, pieces=pieces)


def check_zero_gradient(tx: Method, *, pieces: bool = False) -> None:
    """Where the gradient is zero, so is the update: no NaN from a normalized zero.

    Args:
      tx: a method.
      pieces: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: an update is not zero.
    """
    problem = Problem.random(pieces=pieces)
    flat = dataclasses.replace(problem, hessians=jnp.zeros_like(problem.hessians))
    _assert_close("where all gradients are zero", run(tx, flat), flat.start(), 0)


def check_absent_domain(tx: Method, *, pieces: bool = False) -> None:
    """A domain of weight 0 takes part in nothing.

    Args:
      tx: a method.
      pieces: whether it wants the domains as micro-batches; its order of visits is then
        another one with another number of domains, so that only one step is compared.

    Raises:
      AssertionError: the steps differ from those without the domain.
    """
    problem = Problem.random(num_domains=3, pieces=pieces)
    weightless = dataclasses.replace(problem, weights=problem.weights.at[2].set(0.0))
    absent = dataclasses.replace(weightless, centers=problem.centers.at[2].set(1e3))
    # Its loss is the largest, one like the others, or 0, the smallest.
    like_others = dataclasses.replace(weightless, centers=problem.centers.at[2].set(-5.0))
    zero = dataclasses.replace(weightless, hessians=problem.hessians.at[2].set(0.0))
    expected = run(tx, absent)
    for other in (like_others, zero):
        _assert_close("with a domain of weight 0", run(tx, other), expected)
    if not pieces:
        without = dataclasses.replace(
            problem,
            hessians=problem.hessians[:2],
            centers=problem.centers[:2],
            weights=problem.weights[:2],
        )
        _assert_close("with a domain of weight 0", expected, run(tx, without))


def check_state(tx: Method, *, pieces: bool = False) -> None:
    """The state has one tree, with one shape and dtype per leaf, before and after a step.

    And the evaluation of `record=True` can be taken out of it.

    Args:
      tx: a method.
      pieces: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: a step changes the state's tree.
    """
    problem = Problem.random(pieces=pieces)
    for dtype in ("float32", "bfloat16"):
        params = problem.start(dtype)
        before = tx.init(params)
        after = jax.eval_shape(_step(tx), problem, params, before)[1]
        kept = jax.eval_shape(_step(tx, record=True), problem, params, before)[1]
        evaluation, popped = pop_evaluation(kept)
        for name, state in {"step": after, "recorded step": popped}.items():
            try:
                chex.assert_trees_all_equal_structs(before, state)
                chex.assert_trees_all_equal_shapes_and_dtypes(before, state)
            except AssertionError as error:
                what = f"a {name} changes the state of {dtype} parameters"
                raise AssertionError(f"{what}: {error}") from None
    assert evaluation.losses.shape == (3,), (
        f"the evaluation's losses must be [3]; got {evaluation.losses.shape}"
    )


def check_composition(tx: Method, *, pieces: bool = False) -> None:
    """The same steps compiled and not, in a scan, under vmap, and before other parts.

    Args:
      tx: a method.
      pieces: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: some way of running it gives other parameters.
    """
    problem = Problem.random(pieces=pieces)
    expected = run(tx, problem)
    once = run(tx, problem, 1), run(tx, problem, 1, jit=False)
    _assert_close("without jit", once[1], once[0])
    step, state = _step(tx), tx.init(problem.start())

    def scanned(start: Tree) -> Tree:
        carry, _ = jax.lax.scan(
            lambda carry, _: (step(problem, *carry), None), (start, state), length=4
        )
        return carry[0]

    _assert_close("in a scan", jax.jit(scanned)(problem.start()), expected)
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), problem.start())
    mapped = jax.tree.map(lambda leaf: leaf[0], jax.jit(jax.vmap(scanned))(starts))
    _assert_close("under vmap", mapped, expected)

    clip = optax.clip_by_global_norm(0.1)
    moved = optax.tree.sub(run(optax.chain(tx, clip), problem, 1), problem.start())
    plain = optax.tree.sub(run(tx, problem, 1), problem.start())
    clipped, _ = clip.update(optax.tree.scale(1 / RATE, plain), optax.EmptyState())
    _assert_close("before a clip", moved, optax.tree.scale(RATE, clipped))


def check_dtypes(tx: Method, *, pieces: bool = False) -> None:
    """Parameters in half precision give updates in it, near those in float32.

    Args:
      tx: a method.
      pieces: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: an update has another dtype, or is far away.
    """
    problem = Problem.random(pieces=pieces)
    for dtype, tolerance in (("float16", 0.005), ("bfloat16", 0.03)):
        half = problem.start(dtype)
        rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
        moved, expected = (
            _compiled_step(tx)(problem, params, tx.init(params))[0]
            for params in (half, rounded)
        )
        _assert_close(f"with {dtype} parameters", moved, expected, tolerance)


def check_determinism(tx: Method, *, pieces: bool = False) -> None:
    """Two runs are equal to the bit, also when one is saved and goes on from the copy.

    Args:
      tx: a method.
      pieces: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: they are not.
    """
    problem = Problem.random(pieces=pieces)
    step = functools.partial(_compiled_step(tx), problem)
    carry = problem.start(), tx.init(problem.start())
    for _ in range(2):
        carry = step(*carry)
    leaves, tree = jax.tree.flatten(carry)
    copied = jax.tree.unflatten(tree, [jnp.asarray(np.array(leaf)) for leaf in leaves])
    for _ in range(2):
        carry, copied = step(*carry), step(*copied)
    _assert_close("after it was saved and restored", copied[0], carry[0], 0)


def count_evaluations(tx: Method, steps: int = 10, *, pieces: bool = False) -> float:
    """Evaluations of the loss that really run, per step on average.

    One is a forward pass, usually with its way back. With `pieces`, one is a whole batch:
    evaluations of single domains are divided by their number.

    Example:
      >>> import disam_jax as dj
      >>> from disam_jax import testing
      >>> testing.count_evaluations(dj.interval_sam(period=5))
      1.2

    Args:
      tx: a method.
      steps: over how many; a multiple of its period.
      pieces: whether it wants the domains as micro-batches.

    Returns:
      The average.
    """
    problem, calls = Problem.random(pieces=pieces), []

    def seen() -> None:
        jax.debug.callback(lambda: calls.append(1))

    step = functools.partial(jax.jit(_step(tx, seen)), problem)
    carry = problem.start(), tx.init(problem.start())
    for _ in range(steps):
        carry = step(*carry)
    jax.block_until_ready(carry)
    jax.effects_barrier()
    of_batch = len(problem.weights) if pieces else 1
    return len(calls) / steps / of_batch


def check_cost(
    tx: Method, gradients: float, *, steps: int = 10, pieces: bool = False
) -> None:
    """A step costs so many evaluations of the loss: what is skipped is not computed.

    Args:
      tx: a method.
      gradients: evaluations per step, on average.
      steps: over how many; a multiple of its period.
      pieces: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: it costs another number.
    """
    found = count_evaluations(tx, steps, pieces=pieces)
    assert abs(found - gradients) < 1e-6, (
        f"a step should take {gradients} evaluations of the loss; it takes {found}"
    )


def _step(tx: Method, seen: Any = lambda: None, **kwargs: Any) -> Any:
    def step(problem: Problem, params: Tree, state: Any) -> tuple[Tree, Any]:
        arguments = problem.arguments(seen)
        updates, state = tx.update(None, state, params, **arguments, **kwargs)  # pyright: ignore[reportArgumentType]
        found = {leaf.dtype for leaf in jax.tree.leaves(updates)}
        meant = {leaf.dtype for leaf in jax.tree.leaves(params)}
        assert found == meant, f"parameters of {meant} give updates of {found}"
        return optax.tree.add_scale(params, -RATE, updates), state

    return step


@functools.cache
def _compiled_step(tx: Method) -> Any:
    return jax.jit(_step(tx))


def _assert_close(when: str, actual: Tree, expected: Tree, tolerance: float = 1e-5) -> None:
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        found, meant = np.asarray(leaf, np.float64), np.asarray(other, np.float64)
        size = max(1.0, float(np.max(np.abs(meant))))
        if not np.all(np.abs(found - meant) <= tolerance * size):
            name = jax.tree_util.keystr(path)
            raise AssertionError(
                f"{when}, {name} is {found.tolist()} and should be {meant.tolist()}"
            )
