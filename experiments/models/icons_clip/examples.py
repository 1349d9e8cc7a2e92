"""The pairs as training takes them: pictures, tokens of their names, how often each."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.models.clip import Tokenizer
from experiments.models.icons_clip import TEMPLATE

MOST = 4  # times as often as a name of one set alone
_SIDES = ("left", "right", "clockwise")


class Examples(NamedTuple):
    """All pairs; arrays, so that a compiled step takes them as an argument.

    Attributes:
      images: uint8 [N, 64, 64, 3].
      colored: bool [N].
      names: int32 [N], indices into `tokens`.
      mirrored: bool [N], whether a mirrored picture still has its name.
      until: float32 [N], sums of the shares in which pairs are drawn.
      tokens: int32 [2, K, T], of each name alone and within a sentence.
    """

    images: jax.Array | np.ndarray
    colored: jax.Array | np.ndarray
    names: jax.Array | np.ndarray
    mirrored: jax.Array | np.ndarray
    until: jax.Array | np.ndarray
    tokens: jax.Array | np.ndarray


def read_examples(folder: Path, tokenizer: Tokenizer) -> Examples:
    """The pairs of all archives that `experiments.data.icon_pairs.pairs` wrote.

    A name that several sets use is drawn more often: what it means does not hang on one
    artist.

    Args:
      folder: of the archives.
      tokenizer: of the model.

    Raises:
      ValueError: there is no archive.
    """
    archives = [np.load(path) for path in sorted(folder.glob("*.npz"))]
    if not archives:
        raise ValueError(
            f"{folder} holds no pairs; write them: python -m "
            f"experiments.data.icon_pairs.pairs --out {folder}."
        )
    of_set = [archive["names"] for archive in archives]
    known, names = np.unique(np.concatenate(of_set), return_inverse=True)
    sets = sum(np.isin(known, here).astype(int) for here in of_set)
    share = np.minimum(sets, MOST)[names].astype(np.float64)
    mirrored = np.array([not any(side in name for side in _SIDES) for name in known])
    colored = [np.full(len(a["names"]), bool(a["colored"])) for a in archives]
    return Examples(
        images=np.concatenate([archive["images"] for archive in archives]),
        colored=np.concatenate(colored),
        names=names.astype(np.int32),
        mirrored=mirrored[names],
        until=np.cumsum(share / share.sum()).astype(np.float32),
        tokens=_tokens(known.tolist(), tokenizer),
    )


def _tokens(names: list[str], tokenizer: Tokenizer) -> np.ndarray:
    """Cut behind the longest text."""
    alone, within = tokenizer(names), tokenizer([TEMPLATE.format(n) for n in names])
    tokens = np.stack([alone, within])
    return tokens[:, :, : int(tokens.argmax(-1).max()) + 1]
