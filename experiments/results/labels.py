"""What a method is called, and its colour, in every table and figure (Okabe and Ito's)."""

from experiments.methods.registry import METHODS

PALETTE = (
    "#7f7f7f", "#0072B2", "#56B4E9", "#CC79A7", "#009E73", "#D55E00", "#E69F00", "#000000",
)  # fmt: skip
COLORS = dict(zip(METHODS, PALETTE, strict=False))  # of the first ones


def label(method: str) -> str:
    """The method's name as the papers write it."""
    return method.upper().replace("_", " ")
