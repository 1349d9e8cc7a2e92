"""How far DISAM turns SAM's perturbation, from the losses and gradients of the domains.

SAM climbs along the mean gradient g = mean_i g_i. DISAM climbs along

    sum_i beta_i g_i,  beta_i = (1/M) (1 - 2 lam (l_i - mean l)),

which is g - 2 lam c with c = mean_i (l_i - mean l) g_i, half the gradient of the variance
of the losses. With c split into a part along g and one across it, the angle between the two
perturbations, of whatever length, is

    tan(angle) = 2 lam across / (1 - 2 lam along),

both in units of the length of g, and 2 lam across radians where it is small.
"""

from typing import NamedTuple

import numpy as np


class Turn(NamedTuple):
    """What turns a perturbation, at some weights on some images; arrays of one shape.

    Attributes:
      spread: standard deviation of the domain losses, nats.
      along: the part of c along g, as a multiple of g.
      across: the length of the rest of c, as a multiple of the length of g.
    """

    spread: np.ndarray
    along: np.ndarray
    across: np.ndarray

    @property
    def per_nat(self) -> np.ndarray:
        """Radians by which lam = 1/2 turns at a spread of one nat, if it were little.

        1 where the gradients of the domains are as long and at right angles, and less the
        more they agree.
        """
        return self.across / self.spread


def turn_of(losses: np.ndarray, gram: np.ndarray) -> Turn:
    """What turns the perturbation.

    Args:
      losses: [..., M], of the domains.
      gram: [..., M, M], products of their gradients.

    Returns:
      Arrays [...].
    """
    losses, gram = np.asarray(losses, float), np.asarray(gram, float)
    centred = losses - losses.mean(-1, keepdims=True)
    count = losses.shape[-1]
    g_squared = gram.sum((-2, -1)) / count**2
    c_and_g = np.einsum("...i,...ij->...", centred, gram) / count**2
    c_squared = np.einsum("...i,...ij,...j->...", centred, gram, centred) / count**2
    along = c_and_g / g_squared
    rest = np.maximum(c_squared / g_squared - along**2, 0.0)  # rounding may take it below
    return Turn(losses.std(-1), along, np.sqrt(rest))


def angle(turn: Turn, lam: float | np.ndarray) -> np.ndarray:
    """Degrees between SAM's perturbation and DISAM's with this lam."""
    return np.degrees(np.arctan2(2 * lam * turn.across, 1 - 2 * lam * turn.along))


def spread_for(degrees: float, lam: float, per_nat: float) -> float:
    """The spread, in nats, at which lam turns so far, the part along g left out."""
    return float(np.tan(np.radians(degrees)) / (2 * lam * per_nat))
