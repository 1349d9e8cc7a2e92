"""Open classes: which are trained on, the base classes, and which are new at the test."""

import math
from collections.abc import Sequence
from fractions import Fraction

from experiments.data.benchmarks import BENCHMARKS
from experiments.data.splits import PUBLISHED
from experiments.fields import check_known

ORDERS = ("sorted", "official")


def base_classes(
    classes: Sequence[str], share: float, order: str = "sorted", data: str = ""
) -> tuple[int, ...]:
    """Labels of the classes that are trained on.

    Args:
      classes: names, in the order of the labels.
      share: of the classes, rounded up, that are new; 0 is none.
      order: of the names, whose first are the base classes: `sorted`, as CLIPOOD's code
        has them, or `official`, the benchmark's own list, as the DISAM release. They
        differ for DomainNet alone, in 3 of 172 names.
      data: name of the data set, for its official list.

    Returns:
      The labels, ascending.

    Raises:
      ValueError: no class would be trained on, or the order is unknown, or `data` has none
        or has not all of these classes.
    """
    check_known("class_order", order, ORDERS)
    names = sorted(classes)
    if order == "official":
        listed = PUBLISHED.get(data) or BENCHMARKS.get(data)  # of OfficeHome it is sorted
        official = listed.classes if listed else ()
        others = [name for name in names if name not in official]
        if others:
            raise ValueError(
                f"class_order is official, and {data or 'this data set'} has no list "
                f"with {others[0]!r} in it: take --class-order sorted."
            )
        names = [name for name in official if name in names]
    new = Fraction(share).limit_denominator(10**6)  # 0.9 of 10 are 9
    # Rounded up: with any share one is new.
    count = min(math.floor(len(classes) * (1 - new)), len(classes) - (share > 0))
    if not count:
        raise ValueError(
            f"open_classes is {share:g}, which leaves none of {len(classes)} classes to "
            "train on; take a smaller share."
        )
    base = set(names[:count])
    return tuple(label for label, name in enumerate(classes) if name in base)
