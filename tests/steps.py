"""How tests take the steps of a method: the one place that knows how it is called."""

import optax

import disam_jax as dj
from tests.family import RATE
from tests.problems import WEIGHTS, loss_fn, stream

STEPS = 5


def whole_batch(problem):
    """What `update` is given of a problem: the losses of all domains at once."""
    return {"loss_fn": loss_fn(problem), "domain_weights": WEIGHTS}


def by_domain(weights):
    """The same with each domain as a micro-batch, params one vector."""

    def batch(problem):
        return {
            "loss_fn": lambda w, domain: (w - domain[1]) @ domain[0] @ (w - domain[1]) / 2,
            "micro_batches": (problem.hessians, problem.centers),
            "domain_weights": None if weights is None else weights[:, None],
        }

    return batch


def gradient(tx, params, **options):
    """Of the first step."""
    return tx.update(None, tx.init(params), params, **options)[0]


def run(tx, params, batch, record=False):
    """The params after every step of gradient descent, and what each step records.

    Args:
      tx: the method.
      params: the first.
      batch: problem -> keywords of `update`.
      record: whether to record; else the second list is empty.
    """
    tx = optax.chain(tx, optax.sgd(RATE))
    state = tx.init(params)
    path, evaluations = [], []
    for problem in stream(STEPS):
        options = batch(problem) | ({"record": True} if record else {})
        updates, state = tx.update(None, state, params, **options)
        if record:
            evaluation, state = dj.pop_evaluation(state)
            evaluations.append(evaluation)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, evaluations
