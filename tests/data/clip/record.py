"""Records what CLIP's own classes give, for `tests/experiments/models/clip`.

    pip install disam_jax[experiments] torch==2.14.1 transformers==5.24.0
    pip install --no-deps open_clip_torch==3.3.0 clip-anytorch==2.6.0
    pip install timm torchvision regex
    python -m tests.data.clip.record

clip-anytorch carries OpenAI's `model.py`. Two kinds of models: of `WIDE`, two heads and two
blocks to a tower, only names, shapes and features are kept, for the weights are made from
their names (`made.py`); of `TINY` the files are kept, in every format, in half precision as
OpenAI's are. Features are computed in float32.
"""

import importlib.util
from pathlib import Path

import numpy as np
import open_clip
import torch
import transformers
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from experiments.data.benchmarks import BENCHMARKS
from experiments.models.clip.tokens import Tokenizer
from tests.data.clip import made

HERE = Path(__file__).parent


def openai_model():
    """OpenAI's `model.py` alone; the package around it asks for an old setuptools."""
    folder = importlib.util.find_spec("clip").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("model", Path(folder) / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPENAI = openai_model()


def openai(width, depth, patch, size, vocabulary, length, embed):
    heads = width // 64
    return OPENAI.CLIP(
        embed, size, depth, width, patch, length, vocabulary, width, heads, depth
    )


def from_open_clip(quick, width, depth, patch, size, vocabulary, length, embed):
    vision = CLIPVisionCfg(depth, width, patch_size=patch, image_size=size)
    text = CLIPTextCfg(length, vocabulary, width=width, heads=width // 64, layers=depth)
    return CLIP(embed, vision, text, quick_gelu=quick)


def hugging_face(activation, width, depth, patch, size, vocabulary, length, embed):
    common = dict(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        hidden_act=activation,
        projection_dim=embed,
    )
    text = dict(
        vocab_size=vocabulary,
        max_position_embeddings=length,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=0,
    )
    config = transformers.CLIPConfig(
        text_config=common | text,
        vision_config=common | dict(patch_size=patch, image_size=size),
        projection_dim=embed,
    )
    return transformers.CLIPModel(config)


def fill(model):
    """Weights by their names."""
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    state = {k: torch.tensor(v).float() for k, v in made.state(shapes).items()}
    model.load_state_dict(state)
    return model.float().eval(), shapes


def inputs(sizes):
    """Pictures and tokens, as PyTorch takes them."""
    tokens = Tokenizer(sizes["vocabulary"], sizes["length"])(made.TEXTS)
    pictures = made.images(sizes["size"]).transpose(0, 3, 1, 2)
    return torch.tensor(pictures), torch.tensor(tokens).long()


def features(model, pixels, ids):
    def plain(found):  # transformers gives what the pooler saw as well
        return getattr(found, "pooler_output", found).numpy()

    with torch.no_grad():
        if hasattr(model, "encode_image"):
            return plain(model.encode_image(pixels)), plain(model.encode_text(ids))
        return plain(model.get_image_features(pixels)), plain(model.get_text_features(ids))


def record(out, name, model, sizes):
    model, shapes = fill(model)
    image, text = features(model, *inputs(sizes))
    out[f"{name}/names"] = np.array(list(shapes))
    out[f"{name}/shapes"] = np.array([" ".join(map(str, s)) for s in shapes.values()])
    out[f"{name}/image"], out[f"{name}/text"] = image, text
    return model


def as_openai_ships(model):
    """Half precision but for norms and embeddings, and its sizes beside the weights."""
    OPENAI.convert_weights(model)
    sizes = {
        "input_resolution": model.visual.input_resolution,
        "context_length": model.context_length,
        "vocab_size": model.vocab_size,
    }
    for name, value in sizes.items():
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    return model


def save_files(openai_model, open_clip_model, hugging_face_model):
    torch.save(open_clip_model.half().state_dict(), HERE / "open_clip.pth")
    torch.jit.script(open_clip_model).save(HERE / "scripted.pt")
    as_shipped = as_openai_ships(openai_model)
    traced = torch.jit.trace(as_shipped, inputs(made.TINY), check_trace=False)
    traced.save(HERE / "traced.pt")
    hugging_face_model.half().save_pretrained(HERE / "hugging_face")


def record_tokens():
    """Tokens of the names of all benchmarks' classes, and of hard strings."""
    names = sorted({name for b in BENCHMARKS.values() for name in b.classes})
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in names]
    found = open_clip.tokenize(texts).numpy()
    longest = found.argmax(1).max() + 1
    hard = [*np.load(HERE / "tokens.npz")["texts"][:60], "<b> R&amp;amp;D", "it'\u017f"]
    np.savez_compressed(
        HERE / "tokens.npz",
        texts=np.array(hard),
        ids=open_clip.tokenize(hard).numpy().astype(np.uint16),
        names=np.array(names),
        names_ids=found[:, :longest].astype(np.uint16),
    )


def main():
    out = {}
    for size, sizes in (("wide", made.WIDE), ("tiny", made.TINY)):
        kept = record(out, f"{size}/openai/quick_gelu", openai(**sizes), sizes)
        for activation in ("quick_gelu", "gelu"):
            ours = from_open_clip(activation == "quick_gelu", **sizes)
            ours = record(out, f"{size}/open_clip/{activation}", ours, sizes)
            theirs = hugging_face(activation, **sizes)
            theirs = record(out, f"{size}/hugging_face/{activation}", theirs, sizes)
    save_files(kept, ours, theirs)
    record_tokens()
    np.savez_compressed(HERE / "recorded.npz", **out)


if __name__ == "__main__":
    main()
