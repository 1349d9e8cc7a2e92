import zipfile
from pathlib import Path

import numpy as np
import pytest

from experiments.models import torch_files
from experiments.models.weight_files import read_weights

CLIP = Path(__file__).parents[2] / "data" / "clip"


def test_an_archive_of_torchscript_is_its_tensors_by_dotted_names():
    traced, scripted, saved = (
        read_weights(CLIP / name) for name in ("traced.pt", "scripted.pt", "open_clip.pth")
    )
    sizes = {k: int(traced.pop(k)) for k in ("context_length", "vocab_size")}
    assert sizes == {"context_length": 12, "vocab_size": 520}
    assert traced.pop("input_resolution").dtype == np.int64
    scripted.pop("attn_mask")  # a buffer that a state dict leaves out
    assert traced.keys() == scripted.keys() == saved.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(scripted[name], array, strict=True)
        np.testing.assert_array_equal(traced[name], array)  # some are not halves there
    assert traced["visual.conv1.weight"].dtype == np.float16
    assert traced["ln_final.weight"].dtype == np.float32


# Pickles by hand: an honest pickler would not write them.


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def string(text):
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def mapping(items):
    return b"}(" + b"".join(string(k) + v for k, v in items.items()) + b"u"


def module(state, of="__torch__.a"):
    """An object of TorchScript's whose state is the pickle `state`."""
    return name(of, "Model") + b")\x81" + state + b"b"


STORAGE = b"(" + string("storage") + name("torch", "FloatStorage") + string("0")
STORAGE += string("cpu") + b"K\x02tQ"
NO_HOOKS = name("collections", "OrderedDict") + b")R"
TENSOR = name("torch._utils", "_rebuild_tensor_v2") + b"(" + STORAGE
TENSOR += b"K\x00K\x02\x85K\x01\x85\x89" + NO_HOOKS + b"tR"


def read(tmp_path, code):
    file = tmp_path / "made.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("made/data.pkl", b"\x80\x02" + code + b".")
        archive.writestr("made/data/0", np.array([1, 2], np.float32).tobytes())
    return read_weights(file)


def test_modules_in_modules_are_walked(tmp_path):
    inner = module(mapping({"w": TENSOR, "training": b"\x89"}), "__torch__.b")
    found = read(tmp_path, module(mapping({"layer": inner, "0": inner, "w": TENSOR})))
    assert set(found) == {"w", "layer.w", "0.w"}
    np.testing.assert_array_equal(found["0.w"], np.array([1, 2], np.float32), strict=True)


@pytest.mark.parametrize(
    ("of", "attribute"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("copyreg", "_reconstructor"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("torch.jit._pickle", "restore_type_tag"),
        ("__torch", "Model"),
        ("os.__torch__", "system"),
        ("__torch__x", "Model"),
    ],
)
def test_any_other_name_beside_torchscript_s_is_refused(tmp_path, of, attribute):
    call = name(of, attribute) + string("true") + b"\x85R"
    for code in (module(mapping({"w": TENSOR, "x": call})), call, module(call)):
        with pytest.raises(ValueError, match=rf"asks for {of}\.{attribute}, which"):
            read(tmp_path, code)


MODEL = name("__torch__.a", "Model")


@pytest.mark.parametrize(
    "code",
    [
        MODEL + string("x") + b"\x85R",  # its class called
        MODEL + string("x") + b"\x85\x81",
        MODEL + mapping({"w": TENSOR}) + b"b",  # its class given a state
        MODEL + b"N" + mapping({"__setstate__": MODEL}) + b"\x86b",
        module(b"N" + mapping({"__setstate__": MODEL}) + b"\x86"),  # a state of slots
        module(mapping({"w": TENSOR}) + b"\x85"),
        module(b"}K\x01K\x02s"),  # attributes without names
        module(TENSOR),
        module(b"}") + string("w") + TENSOR + b"s",  # an object filled as a mapping
        module(b"}") + TENSOR + b"a",  # or as a list
    ],
)
def test_no_trick_on_the_objects_of_an_archive_gets_through(tmp_path, code):
    before = dict(vars(torch_files._Module))
    with pytest.raises(ValueError, match=r"made\.pt"):
        read(tmp_path, code)
    assert dict(vars(torch_files._Module)) == before


def test_a_planted_method_is_an_attribute_like_any_other(tmp_path):
    planted = mapping({"__setstate__": name("collections", "OrderedDict"), "w": TENSOR})
    found = read(tmp_path, module(planted) + mapping({"v": TENSOR}) + b"b")
    assert set(found) == {"v"}  # the second state was set, not given to what was planted


def test_what_holds_itself_is_refused(tmp_path):
    itself = MODEL + b")\x81q\x00" + mapping({"w": TENSOR, "again": b"h\x00"}) + b"b"
    with pytest.raises(ValueError, match="hold each other without end"):
        read(tmp_path, itself)
    with pytest.raises(ValueError, match=r"made\.pt"):
        read(tmp_path, b"}q\x00" + string("state_dict") + b"h\x00s")


def test_a_few_bytes_do_not_make_names_without_number(tmp_path):
    code = module(mapping({"w": TENSOR}))
    for _ in range(40):  # 2^40 names
        code = MODEL + b")\x81" + b"}(" + string("a") + code + b"q\x01"
        code += string("b") + b"h\x01ub"
    with pytest.raises(ValueError, match="hold each other without end"):
        read(tmp_path, code)


def test_a_mapping_by_numbers_holds_no_tensors_by_name(tmp_path):
    with pytest.raises(ValueError, match="holds no tensors by name"):
        read(tmp_path, b"}K\x01" + TENSOR + b"s")


def test_lists_that_torchscript_marks_are_read_past(tmp_path):
    marked = name("torch.jit._pickle", "build_intlist") + b"]K\x01a\x85R"
    found = read(tmp_path, module(mapping({"padding": marked, "w": TENSOR})))
    assert set(found) == {"w"}
