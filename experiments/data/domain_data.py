"""Images of several domains over one set of classes, held in memory as uint8 arrays."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.fields import check_known


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value for ==
class DomainData:
    """A data set for domain generalization: one entry per domain in every tuple.

    Attributes:
      name: name of the data set.
      domains: names of the domains.
      classes: names of the classes; a label is an index into them.
      images: per domain, uint8 [N_d, H, W, 3]; H and W are the same in every domain.
      labels: per domain, int32 [N_d].
      groups: per domain, int32 [N_d]. Images of one group show the same thing (one
        concept, one scan) and are held out together in every domain.
      flip: whether a mirrored image is still of its class.
      description: one line on what the data set is.
    """

    name: str
    domains: tuple[str, ...]
    classes: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    groups: tuple[np.ndarray, ...]
    flip: bool
    description: str

    def __post_init__(self):
        self._check_names()
        for field in ("images", "labels", "groups"):
            found = len(getattr(self, field))
            if found != len(self.domains):
                raise ValueError(
                    f"{self.name} has {len(self.domains)} domains but {found} arrays "
                    f"of {field}"
                )
        for domain in range(len(self.domains)):
            self._check_images(domain)
            self._check_integers(domain, "labels")
            self._check_integers(domain, "groups")
            self._check_label_range(domain)

    def domain_index(self, name: str) -> int:
        """The position of the domain of this name.

        Raises:
          ValueError: if there is no such domain; the message lists those there are.
        """
        check_known(f"domain of {self.name}", name, self.domains)
        return self.domains.index(name)

    @property
    def fingerprint(self) -> str:
        """Empty: the data set's name says which images it holds."""
        return ""

    def counts(self) -> np.ndarray:
        """The number of images, int [domains, classes]."""
        num_classes = len(self.classes)
        return np.stack([np.bincount(y, minlength=num_classes) for y in self.labels])

    def subset(self, masks: Sequence[np.ndarray]) -> "DomainData":
        """The images that the masks keep, in their order.

        Args:
          masks: per domain, bool [N_d]; True keeps the image.

        Raises:
          ValueError: if a mask is not boolean or not as long as its domain.
        """
        if len(masks) != len(self.domains):
            raise ValueError(
                f"{self.name} has {len(self.domains)} domains but {len(masks)} masks "
                f"were given"
            )
        for domain, mask, labels in zip(self.domains, masks, self.labels, strict=True):
            if mask.dtype != np.bool_ or mask.shape != labels.shape:
                raise ValueError(
                    f"the mask of domain '{domain}' must be bool {labels.shape}, "
                    f"not {mask.dtype} {mask.shape}"
                )

        def keep(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
            return tuple(a[mask] for a, mask in zip(arrays, masks, strict=True))

        return dataclasses.replace(
            self,
            images=keep(self.images),
            labels=keep(self.labels),
            groups=keep(self.groups),
        )

    def _check_names(self):
        for field in ("domains", "classes"):
            names = getattr(self, field)
            if not names or len(set(names)) != len(names):
                raise ValueError(
                    f"the {field} of {self.name} must be at least one name, each once, "
                    f"not {names}"
                )

    def _check_images(self, domain: int):
        images = self.images[domain]
        expected = (*self.images[0].shape[1:3], 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(
                f"the images of domain '{self.domains[domain]}' of {self.name} must be "
                f"uint8 [N, H, W, 3], of one size in every domain, "
                f"not {images.dtype} {images.shape}"
            )

    def _check_integers(self, domain: int, field: str):
        values, num_images = getattr(self, field)[domain], len(self.images[domain])
        if values.dtype != np.int32 or values.shape != (num_images,):
            raise ValueError(
                f"the {field} of domain '{self.domains[domain]}' of {self.name} must be "
                f"int32 ({num_images},), one per image, not {values.dtype} {values.shape}"
            )

    def _check_label_range(self, domain: int):
        labels = self.labels[domain]
        wrong = labels[(labels < 0) | (labels >= len(self.classes))]
        if wrong.size:
            raise ValueError(
                f"label {wrong[0]} in domain '{self.domains[domain]}' of {self.name} is "
                f"outside 0..{len(self.classes) - 1}, the indices of its classes"
            )
