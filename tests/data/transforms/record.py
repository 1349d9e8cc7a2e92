"""Records what torchvision's transforms give, for test_transforms and test_augment.

pip install torch==2.13.0 torchvision==0.28.0
python tests/data/transforms/record.py
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop, functional

HERE = Path(__file__).parent
BOXES = [(0, 0, 40, 30), (3, 5, 17, 22), (10, 1, 25, 9)]  # left, top, width, height
FACTORS = [0.7, 1.0, 1.23]
TURNS = [-0.3, 0.0, 0.11, 0.5]
SIZES = {"wide": (300, 200), "square": (256, 256), "strip": (400, 60)}  # width, height
DRAWS = 3000


def main():
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize((40, 30), Image.Resampling.BICUBIC))
    pil = Image.fromarray(image)
    out = {"image": image}
    for i, (left, top, width, height) in enumerate(BOXES):
        cut = functional.resized_crop(
            pil, top, left, height, width, [16, 16], antialias=True
        )
        out[f"crop{i}"] = np.asarray(cut)
    out["resize"] = np.asarray(functional.resize(pil, [24, 24], antialias=True))
    x = torch.tensor(image).permute(2, 0, 1).double() / 255
    for name, values in (
        ("brightness", FACTORS),
        ("contrast", FACTORS),
        ("saturation", FACTORS),
        ("hue", TURNS),
    ):
        adjust = getattr(functional, f"adjust_{name}")
        for i, value in enumerate(values):
            out[f"{name}{i}"] = adjust(x, value).permute(1, 2, 0).numpy().astype(np.float32)
    out["gray"] = (
        functional.rgb_to_grayscale(x, 3).permute(1, 2, 0).numpy().astype(np.float32)
    )
    torch.manual_seed(0)
    for name, (width, height) in SIZES.items():
        blank = Image.new("L", (width, height))
        boxes = [
            RandomResizedCrop.get_params(blank, [0.7, 1.0], [3 / 4, 4 / 3])
            for _ in range(DRAWS)
        ]
        order = [1, 0, 3, 2]  # (top, left, height, width) to (left, top, width, height)
        out[f"boxes_{name}"] = np.array(boxes, np.uint16)[:, order]
    np.savez_compressed(HERE / "recorded.npz", **out)


if __name__ == "__main__":
    main()
