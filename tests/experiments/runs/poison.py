"""A method whose runs end their process, as where memory runs out."""

import os
import signal
from typing import Any

import optax


def poison(rho: float = 0.05) -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        raise NotImplementedError

    return optax.GradientTransformationExtraArgs(init, update)
