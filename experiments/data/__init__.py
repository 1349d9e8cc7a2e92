"""The data sets of the experiments: every one real, small and free of downloads."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from experiments.data.digits import colored_digits, rotated_digits
from experiments.data.domain_data import DomainData
from experiments.data.emoji_styles import emoji_concepts, emoji_styles
from experiments.data.holdout import split_groups
from experiments.fields import check_known

__all__ = ["DATASETS", "STUDIED", "DataSet", "DomainData", "load", "split_groups"]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set held in memory, and what its images ask for; all that is said of it.

    Attributes:
      make: its options, `image_size` among them -> the data.
      largest_size: of its images, in pixels along a side.
      gradients: of a batch that every run of a study may take: so few that all studies take
        hours on two cores; ERM gains from more.
      preset: fields of the training that are not those of `config.protocols.IN_MEMORY`.
    """

    make: Callable[..., DomainData]
    largest_size: int
    gradients: int
    preset: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_DIGITS = {"steps": 200, "image_size": 16, "shift": 1}
DATASETS = {
    "emoji_styles": DataSet(emoji_styles, largest_size=64, gradients=800),
    "emoji_concepts": DataSet(emoji_concepts, 64, gradients=100, preset={"image_size": 64}),
    "rotated_digits": DataSet(rotated_digits, 16, gradients=600, preset=_DIGITS),
    "colored_digits": DataSet(colored_digits, 16, gradients=400, preset=_DIGITS),
}
STUDIED = ("emoji_styles", "rotated_digits", "colored_digits")  # by all but a few studies


def load(name: str, *, image_size: int | None = None, **options: Any) -> DomainData:
    """The data set of this name.

    Args:
      name: a key of `DATASETS`.
      image_size: side of the images in pixels; None takes the data set's own default.
      **options: of the data set, e.g. `angles` of `rotated_digits`.

    Raises:
      ValueError: if there is no such data set, or it does not come in that size.
    """
    check_known("data set", name, tuple(DATASETS))
    if image_size is not None:
        options["image_size"] = image_size
    return DATASETS[name].make(**options)
