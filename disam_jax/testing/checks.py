"""What any method must hold."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from disam_jax.evaluation import pop_evaluation
from disam_jax.testing.problem import RATE, Method, Problem, compiled_step, run, step_of
from disam_jax.trees import Tree


def check(
    tx: Method,
    *,
    gradients: float | None = None,
    steps: int = 10,
    micro_batches: bool = False,
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
      micro_batches: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: a check fails.
    """
    check_zero_gradient(tx, micro_batches=micro_batches)
    check_absent_domain(tx, micro_batches=micro_batches)
    check_state(tx, micro_batches=micro_batches)
    check_composition(tx, micro_batches=micro_batches)
    check_dtypes(tx, micro_batches=micro_batches)
    check_determinism(tx, micro_batches=micro_batches)
    if gradients is not None:
        check_cost(tx, gradients, steps=steps, micro_batches=micro_batches)


def check_zero_gradient(tx: Method, *, micro_batches: bool = False) -> None:
    """Where the gradient is zero, so is the update: no NaN from a normalized zero.

    Args:
      tx: a method.
      micro_batches: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: an update is not zero.
    """
    problem = Problem.random(micro_batches=micro_batches)
    flat = dataclasses.replace(problem, hessians=jnp.zeros_like(problem.hessians))
    _assert_close("where all gradients are zero", run(tx, flat), flat.start(), 0)


def check_absent_domain(tx: Method, *, micro_batches: bool = False) -> None:
    """A domain of weight 0 takes part in nothing.

    Args:
      tx: a method.
      micro_batches: whether it wants the domains as micro-batches; its order of visits is
        then another one with another number of domains, so that one step is compared.

    Raises:
      AssertionError: the steps differ from those without the domain.
    """
    problem = Problem.random(num_domains=3, micro_batches=micro_batches)
    weightless = dataclasses.replace(problem, weights=problem.weights.at[2].set(0.0))
    absent = dataclasses.replace(weightless, centers=problem.centers.at[2].set(1e3))
    # Its loss is the largest, one like the others, or 0, the smallest.
    like_others = dataclasses.replace(weightless, centers=problem.centers.at[2].set(-5.0))
    zero = dataclasses.replace(weightless, hessians=problem.hessians.at[2].set(0.0))
    expected = run(tx, absent)
    for other in (like_others, zero):
        _assert_close("with a domain of weight 0", run(tx, other), expected)
    if not micro_batches:
        without = dataclasses.replace(
            problem,
            hessians=problem.hessians[:2],
            centers=problem.centers[:2],
            weights=problem.weights[:2],
        )
        _assert_close("with a domain of weight 0", expected, run(tx, without))


def check_state(tx: Method, *, micro_batches: bool = False) -> None:
    """The state has one tree, with one shape and dtype per leaf, before and after a step.

    And the evaluation of `record=True` can be taken out of it.

    Args:
      tx: a method.
      micro_batches: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: a step changes the state's tree.
    """
    problem = Problem.random(micro_batches=micro_batches)
    for dtype in ("float32", "bfloat16"):
        params = problem.start(dtype)
        before = tx.init(params)
        after = jax.eval_shape(step_of(tx), problem, params, before)[1]
        kept = jax.eval_shape(step_of(tx, record=True), problem, params, before)[1]
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


def check_composition(tx: Method, *, micro_batches: bool = False) -> None:
    """The same steps compiled and not, in a scan, under vmap, and before other parts.

    Args:
      tx: a method.
      micro_batches: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: some way of running it gives other parameters.
    """
    problem = Problem.random(micro_batches=micro_batches)
    expected = run(tx, problem)
    once = run(tx, problem, 1), run(tx, problem, 1, jit=False)
    _assert_close("without jit", once[1], once[0])
    step, state = step_of(tx), tx.init(problem.start())

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


def check_dtypes(tx: Method, *, micro_batches: bool = False) -> None:
    """Parameters in half precision give updates in it, near those in float32.

    Args:
      tx: a method.
      micro_batches: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: an update has another dtype, or is far away.
    """
    problem = Problem.random(micro_batches=micro_batches)
    for dtype, tolerance in (("float16", 0.005), ("bfloat16", 0.03)):
        half = problem.start(dtype)
        rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
        moved, expected = (
            compiled_step(tx)(problem, params, tx.init(params))[0]
            for params in (half, rounded)
        )
        _assert_close(f"with {dtype} parameters", moved, expected, tolerance)


def check_determinism(tx: Method, *, micro_batches: bool = False) -> None:
    """Two runs are equal to the bit, also when one is saved and goes on from the copy.

    Args:
      tx: a method.
      micro_batches: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: they are not.
    """
    problem = Problem.random(micro_batches=micro_batches)
    step = functools.partial(compiled_step(tx), problem)
    carry = problem.start(), tx.init(problem.start())
    for _ in range(2):
        carry = step(*carry)
    leaves, tree = jax.tree.flatten(carry)
    copied = jax.tree.unflatten(tree, [jnp.asarray(np.array(leaf)) for leaf in leaves])
    for _ in range(2):
        carry, copied = step(*carry), step(*copied)
    _assert_close("after it was saved and restored", copied[0], carry[0], 0)


def count_evaluations(tx: Method, steps: int = 10, *, micro_batches: bool = False) -> float:
    """Evaluations of the loss that really run, per step on average.

    One is a forward pass, usually with its way back. With `micro_batches`, one is a whole
    batch: evaluations of single domains are divided by their number.

    Example:
      >>> import disam_jax as dj
      >>> from disam_jax import testing
      >>> testing.count_evaluations(dj.interval_sam(period=5))
      1.2

    Args:
      tx: a method.
      steps: over how many; a multiple of its period.
      micro_batches: whether it wants the domains as micro-batches.

    Returns:
      The average.
    """
    problem, calls = Problem.random(micro_batches=micro_batches), []

    def seen() -> None:
        jax.debug.callback(lambda: calls.append(1))

    step = functools.partial(jax.jit(step_of(tx, seen)), problem)
    carry = problem.start(), tx.init(problem.start())
    for _ in range(steps):
        carry = step(*carry)
    jax.block_until_ready(carry)
    jax.effects_barrier()
    of_batch = len(problem.weights) if micro_batches else 1
    return len(calls) / steps / of_batch


def check_cost(
    tx: Method, gradients: float, *, steps: int = 10, micro_batches: bool = False
) -> None:
    """A step costs so many evaluations of the loss: what is skipped is not computed.

    Args:
      tx: a method.
      gradients: evaluations per step, on average.
      steps: over how many; a multiple of its period.
      micro_batches: whether it wants the domains as micro-batches.

    Raises:
      AssertionError: it costs another number.
    """
    found = count_evaluations(tx, steps, micro_batches=micro_batches)
    assert abs(found - gradients) < 1e-6, (
        f"a step should take {gradients} evaluations of the loss; it takes {found}"
    )


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
