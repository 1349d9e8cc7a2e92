"""CLIP: features of images and of texts in one space, from weights of a file.

from experiments.models.clip import load_clip

clip = load_clip("ViT-B-16.pt", activation="quick_gelu")
images = clip.image_features(pixels)  # [N, 224, 224, 3], normalised by MEAN and STD
names = clip.text_features(["a photo of a dog.", "a photo of a cat."])
"""

from experiments.models.clip.model import (
    KNOWN_FILES,
    MEAN,
    STD,
    Clip,
    load_clip,
    random_clip,
)
from experiments.models.clip.tokens import Tokenizer
from experiments.models.clip.towers import ImageTower, Sizes, TextTower
from experiments.models.clip.weights import to_openai_names

__all__ = [
    "KNOWN_FILES",
    "MEAN",
    "STD",
    "Clip",
    "ImageTower",
    "Sizes",
    "TextTower",
    "Tokenizer",
    "load_clip",
    "random_clip",
    "to_openai_names",
]
