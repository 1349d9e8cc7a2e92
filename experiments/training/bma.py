"""CLIPOOD's Beta moving average of the weights over all steps (Shu et al., ICML 2023).

With live BatchNorm, which CLIP has not, the running statistics are averaged like them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def beta_shares(steps: int, beta: float) -> np.ndarray:
    """What each model takes of the average, as it comes: float64 [steps + 1].

    Model i of 0..steps, the first being the one that training began with, has the weight
    a_i = (x (1 - x)) ** (beta - 1) at x = (i + 1/2) / (steps + 1), the density of
    Beta(beta, beta) up to a factor; its share is a_i / (a_0 + ... + a_i). Below 1, beta
    gives both ends more than the middle.

    >>> beta_shares(4, 0.5).round(4).tolist()
    [1.0, 0.3956, 0.2661, 0.225, 0.2558]

    Args:
      steps: of the training.
      beta: > 0; CLIPOOD's is 0.5, and 0.1 on OfficeHome with open classes.
    """
    x = (np.arange(steps + 1) + 0.5) / (steps + 1)
    log_a = (beta - 1) * np.log(x * (1 - x))  # a itself may be 0 to the last digit
    return np.exp(log_a - np.logaddexp.accumulate(log_a))


def take_in(average: Any, params: Any, step: jax.Array, steps: int, beta: float) -> Any:
    """The average of the models before, and of the one after `step` steps.

    (1 - share) average + share params, leaf by leaf; params is any tree of arrays.
    """
    share = jnp.asarray(beta_shares(steps, beta))[step]
    return optax.incremental_update(params, average, share)
