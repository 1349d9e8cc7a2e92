"""Domains made from the 1797 real 8x8 scans of digits that scikit-learn ships.

Each scan goes to one domain only, so no domain can be learned from another's images.
The scans are dealt to the domains class by class, so every domain has the same share of
each digit. All seeds are fixed: the data sets are the same in every process.
"""

import numpy as np

from experiments.data.domain_data import DomainData
from experiments.data.image_size import box_average, check_image_size

_SIZES = (16, 8)
_SEED = 0

_ANGLES = (0, 15, 30, 45, 60, 75)  # degrees, as in RotatedMNIST

_COLOR_FLIPS = {"+90%": 0.1, "+80%": 0.2, "-90%": 0.9}  # DomainBed's names
_LABEL_NOISE = 0.25


def rotated_digits(image_size: int = 16, angles: tuple[float, ...] = _ANGLES) -> DomainData:
    """Digits turned counterclockwise by 0 to 75 degrees, one angle per domain.

    1797 scans: 300, 300, 300, 299, 299 and 299 in the six domains, 29 to 31 of each
    digit in each.

    Args:
      image_size: 16, or 8 (the 16-pixel images averaged over 2x2 blocks).
      angles: in degrees, of as many domains; the scans are dealt to them.

    References:
      Ghifary et al., Domain Generalization for Object Recognition with Multi-task
      Autoencoders, ICCV 2015 (rotated MNIST).
    """
    check_image_size("rotated_digits", image_size, _SIZES)
    from scipy import ndimage  # imported late: emoji_styles loads without it

    scans, digits = _scans()
    rng = np.random.default_rng(_SEED)
    members = _deal(digits, len(angles), rng)
    images = []
    for angle, scan_ids in zip(angles, members, strict=True):
        turned = ndimage.rotate(scans[scan_ids], angle, axes=(1, 2), reshape=False, order=1)
        gray = np.rint(turned).astype(np.uint8)
        images.append(np.repeat(gray[..., None], 3, axis=3))
    return DomainData(
        name="rotated_digits",
        domains=tuple(f"{angle:g}" for angle in angles),
        classes=tuple("0123456789"),
        images=tuple(box_average(x, image_size) for x in images),
        labels=tuple(digits[scan_ids] for scan_ids in members),
        groups=members,
        flip=False,
        description="scanned digits, each domain turned by its own angle",
    )


def colored_digits(image_size: int = 16) -> DomainData:
    """Red and green digits whose color foretells the label, and in one domain misleads.

    As DomainBed's ColoredMNIST: label 1 for the digits 0 to 4 and label 0 for 5 to 9; a
    quarter of the labels is flipped at random; the color is the (noisy) label, flipped
    with probability 0.1, 0.2 and 0.9 in the three domains; color 0 is red, color 1 green.
    The shape foretells the label in 75 % of the images, the color in 90, 80 and 10 %.

    1797 scans, 599 per domain.

    Args:
      image_size: 16, or 8 (the 16-pixel images averaged over 2x2 blocks).

    References:
      Arjovsky et al., Invariant Risk Minimization, 2019, section 5.1. Gulrajani and
      Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021 (DomainBed, class
      ColoredMNIST); there the scans are dealt without regard to the digit.
    """
    check_image_size("colored_digits", image_size, _SIZES)
    scans, digits = _scans()
    rng = np.random.default_rng(_SEED)
    members = _deal(digits, len(_COLOR_FLIPS), rng)
    images, labels = [], []
    for flip_probability, scan_ids in zip(_COLOR_FLIPS.values(), members, strict=True):
        label = (digits[scan_ids] < 5) ^ (rng.random(len(scan_ids)) < _LABEL_NOISE)
        color = label ^ (rng.random(len(scan_ids)) < flip_probability)
        images.append(_paint(scans[scan_ids], color))
        labels.append(label.astype(np.int32))
    return DomainData(
        name="colored_digits",
        domains=tuple(_COLOR_FLIPS),
        classes=("5-9", "0-4"),
        images=tuple(box_average(x, image_size) for x in images),
        labels=tuple(labels),
        groups=members,
        flip=False,
        description="scanned digits in red and green; the color agrees with the label "
        "in 90, 80 and 10 % of the images",
    )


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """The scans as float32 [1797, 16, 16] in 0..255, and the digits, int32 [1797]."""
    from scipy import ndimage  # both imported late: they take a second, and
    from sklearn.datasets import load_digits  # emoji_styles needs neither

    features, digits = map(np.asarray, load_digits(return_X_y=True))
    scans = features.reshape(-1, 8, 8).astype(np.float32) * (255 / 16)
    # A digit fills its scan from top to bottom; a margin keeps it whole when turned.
    padded = np.pad(scans, ((0, 0), (1, 1), (1, 1)))
    # grid_mode takes pixels for areas, so the digit is not shifted by half a pixel.
    zoom = (1, 1.6, 1.6)  # 10 to 16 pixels
    larger = ndimage.zoom(padded, zoom, order=1, mode="nearest", grid_mode=True)
    return np.asarray(larger), digits.astype(np.int32)


def _deal(
    digits: np.ndarray, num_domains: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Scan ids per domain: shuffled, sorted by digit, then dealt in turn like cards."""
    shuffled = rng.permutation(len(digits))
    by_digit = shuffled[np.argsort(digits[shuffled], kind="stable")]
    return tuple(
        np.sort(by_digit[start::num_domains]).astype(np.int32)
        for start in range(num_domains)
    )


def _paint(scans: np.ndarray, color: np.ndarray) -> np.ndarray:
    """The scans in channel 0 (red) or 1 (green), uint8 [N, 16, 16, 3]."""
    images = np.zeros((*scans.shape, 3), np.uint8)
    images[np.arange(len(scans)), :, :, color.astype(int)] = np.rint(scans)
    return images
