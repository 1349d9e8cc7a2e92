"""Keywords: a slip in one of ours must not pass for another transformation's."""

import difflib
from collections.abc import Iterable

# What is meant by these is plain, though their letters are not near enough.
SHORT = {
    "loss": "loss_fn",
    "loss_function": "loss_fn",
    "weights": "domain_weights",
    "axis": "axis_name",
}


def check_keywords(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuses a keyword that is nearly a known one; others pass.

    A chain hands its extra arguments to all that stand in it, so that what is not known
    here may be known to another.

    Raises:
      TypeError: `given` holds a near miss; the message names the right one.
    """
    known = list(known)
    for name in given:
        close = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.85)
        meant = SHORT.get(name) or (close[0] if close else None)
        if meant in known:
            raise TypeError(
                f"update() got an unexpected keyword argument {name!r}; did you mean "
                f"{meant!r}?"
            )
