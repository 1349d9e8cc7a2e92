"""The data sets of the experiments: every one real, small and free of downloads."""

from collections.abc import Callable
from typing import Any

from experiments.data.digits import colored_digits, rotated_digits
from experiments.data.domain_data import DomainData
from experiments.data.emoji_styles import emoji_styles
from experiments.data.holdout import split_groups

DATASETS: dict[str, Callable[..., DomainData]] = {
    "emoji_styles": emoji_styles,
    "rotated_digits": rotated_digits,
    "colored_digits": colored_digits,
}

__all__ = ["DATASETS", "DomainData", "load", "split_groups"]


def load(name: str, *, image_size: int | None = None, **options: Any) -> DomainData:
    """The data set of this name.

    Args:
      name: a key of `DATASETS`.
      image_size: side of the images in pixels; None takes the data set's own default.
      **options: of the data set, e.g. `angles` of `rotated_digits`.

    Raises:
      ValueError: if there is no such data set, or it does not come in that size.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set '{name}'; there are: {', '.join(DATASETS)}")
    if image_size is not None:
        options["image_size"] = image_size
    return DATASETS[name](**options)
