"""The steps that are compared: `METHODS` maps a name to a function of a case.

It returns the step, (params, state, batch) -> (params, state), and the first state. All
end in the same SGD with momentum, but what brings its optimizer. A new entry is measured,
tabled and drawn like the rest.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

import disam_jax as dj
from benchmarks.cases import Batch, Case
from experiments.methods import METHODS as LIBRARY
from experiments.methods import Hyperparameters, Method
from experiments.results.labels import COLORS

Step = Callable[[Any, Any, Batch], tuple[Any, Any]]
Transformation = optax.GradientTransformationExtraArgs

OPTIMIZER = optax.sgd(1e-3, momentum=0.9)
RHO, LAM = Hyperparameters.rho, Hyperparameters.lam


def chained(method: Method, case: Case) -> tuple[Step, Any]:
    """The step of a method of the experiments, which stands before the optimizer."""
    return _chained(method, case, record=False)


def recorded(method: Method, case: Case) -> tuple[Step, Any]:
    """The same, which keeps what the step saw: losses, norms, the gradients' cosine."""
    return _chained(method, case, record=True)


def of_transformation(transformation: Transformation, case: Case) -> tuple[Step, Any]:
    """The step of a transformation that no method of the experiments is."""
    return chained(Method(lambda: transformation), case)


def _chained(method: Method, case: Case, record: bool) -> tuple[Step, Any]:
    last = OPTIMIZER
    if method.optimizer is not None:
        last = method.optimizer(learning_rate=1e-3, weight_decay=0.0)
    tx = optax.chain(method.make(method.defaults), last)

    def step(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        updates, state = tx.update(
            None,  # pyright: ignore[reportArgumentType]  the method ignores what comes in
            state[0] if record else state,
            params,
            record=record,
            **_arguments(method, case, params, batch),
        )
        if record:
            seen, state = dj.pop_evaluation(state)
            state = (state, seen)
        return optax.apply_updates(params, updates), state

    first = tx.init(case.params)
    if not record:
        return step, first
    seen = jax.eval_shape(step, case.params, (first, None), case.batch)[1][1]
    return step, (first, optax.tree.zeros_like(seen))


def _arguments(method: Method, case: Case, params: Any, batch: Batch) -> dict[str, Any]:
    """What the method's update is told of the batch."""
    if method.micro_batches:
        domains = by_domain(case, batch)
        return {"loss_fn": case.mean_loss, "micro_batches": domains, "unroll": True}

    def losses(batch: Batch | None) -> Callable[[Any], jax.Array] | None:
        return None if batch is None else lambda p: case.domain_losses(p, batch)

    descended, climbed = method.chooser(method.defaults)(
        batch,
        case.num_domains,
        lambda batch: case.example_losses(params, batch.inputs, batch.labels),
    )
    return {
        "loss_fn": losses(descended),
        "ascent_loss_fn": losses(climbed),
        "domain_weights": dj.domain_shares(descended.domains, case.num_domains),
    }


def by_domain(case: Case, batch: Batch) -> Batch:
    """The batch with arrays [M, B / M, ...]."""
    return jax.tree.map(lambda x: x.reshape(case.num_domains, -1, *x.shape[1:]), batch)


def cycle_of(name: str) -> int:
    """Steps after which a method has shown what it costs on average."""
    method = LIBRARY.get(name)
    if method is None:
        return 1
    if "period" in method.reads:
        return method.defaults.period
    return 20 if {"probability", "threshold"} & set(method.reads) else 1


def from_gradient(gradient: Callable[[Any, Batch], Any], case: Case) -> tuple[Step, Any]:
    """The step of a function (params, batch) -> gradient, written without this library."""

    def step(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        updates, state = OPTIMIZER.update(gradient(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    return step, OPTIMIZER.init(case.params)


def erm_by_hand(case: Case) -> tuple[Step, Any]:
    """One plain gradient."""
    return from_gradient(jax.grad(case.mean_loss), case)


def sam_by_hand(case: Case) -> tuple[Step, Any]:
    """SAM as one writes it without a library."""
    grad = jax.grad(case.mean_loss)

    def gradient(params: Any, batch: Batch) -> Any:
        return grad(_climb(params, grad(params, batch)), batch)

    return from_gradient(gradient, case)


def optax_sam(case: Case) -> tuple[Step, Any]:
    """`optax.contrib.sam` in opaque mode."""
    adversary = optax.chain(contrib.normalize(), optax.sgd(RHO))
    tx = contrib.sam(OPTIMIZER, adversary, sync_period=2, opaque_mode=True)
    grad = jax.grad(case.mean_loss)

    def step(params: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        updates, state = tx.update(
            grad(params, batch), state, params, grad_fn=lambda p, _: grad(p, batch)
        )
        return optax.apply_updates(params, updates), state

    return step, tx.init(case.params)


def naive_jacobian(case: Case) -> tuple[Step, Any]:
    """DISAM from the Jacobian of the domain losses: M backward passes, M gradients kept."""

    def losses_and_grads(params: Any, batch: Batch) -> tuple[jax.Array, Any]:
        return case.domain_losses(params, batch), jax.jacrev(case.domain_losses)(
            params, batch
        )

    return _from_domain_gradients(losses_and_grads, case)


def naive_vmap(case: Case) -> tuple[Step, Any]:
    """DISAM from each domain's gradient on its own examples: M gradients kept."""
    of_domain = jax.vmap(jax.value_and_grad(case.mean_loss), in_axes=(None, 0))

    def losses_and_grads(params: Any, batch: Batch) -> tuple[jax.Array, Any]:
        return of_domain(params, by_domain(case, batch))

    return _from_domain_gradients(losses_and_grads, case)


def _from_domain_gradients(
    losses_and_grads: Callable[[Any, Batch], tuple[jax.Array, Any]], case: Case
) -> tuple[Step, Any]:
    shares = jnp.full(case.num_domains, 1 / case.num_domains)
    objective = dj.variance_penalized(LAM)

    def gradient(params: Any, batch: Batch) -> Any:
        losses, grads = losses_and_grads(params, batch)
        beta = jax.grad(objective)(losses, shares)  # pyright: ignore[reportArgumentType]
        ascent = jax.tree.map(lambda g: jnp.tensordot(beta, g, axes=1), grads)
        _, grads = losses_and_grads(_climb(params, ascent), batch)
        return jax.tree.map(lambda g: g.mean(0), grads)

    return from_gradient(gradient, case)


def _climb(params: Any, gradient: Any) -> Any:
    scale = RHO / (optax.tree.norm(gradient) + 1e-12)
    return jax.tree.map(lambda w, g: w + scale * g, params, gradient)


def _pure(make: Callable[..., Transformation], *hyperparameters: float) -> Transformation:
    """DISAM with another method, the variance acting on eps alone."""
    ascent = dj.variance_penalized(LAM)
    return make(*hyperparameters, ascent=ascent, combine_with="descent")


METHODS: dict[str, Callable[[Case], tuple[Step, Any]]] = {
    # The library's, as the experiments make them; what is added there is measured here.
    **{name: functools.partial(chained, method) for name, method in LIBRARY.items()},
    "disam+sagm (descent)": functools.partial(of_transformation, _pure(dj.sagm)),
    "disam+gsam (descent)": functools.partial(
        of_transformation, _pure(dj.gsam, RHO, LIBRARY["gsam"].defaults.alpha)
    ),
    "disam (recorded)": functools.partial(recorded, LIBRARY["disam"]),
    "erm by hand": erm_by_hand,
    "sam by hand": sam_by_hand,
    "optax.contrib.sam": optax_sam,
    "disam by jacrev": naive_jacobian,
    "disam by vmap(grad)": naive_vmap,
}
NAIVE = ("disam by jacrev", "disam by vmap(grad)")
# One gradient until it starts and two after: no one ratio.
FAMILY = tuple(name for name in LIBRARY if name != "late_sam")
STANDARD = tuple(name for name in METHODS if name in COLORS or name not in LIBRARY)
