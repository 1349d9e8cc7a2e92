import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from experiments.models.backbones import BACKBONES
from experiments.models.weight_files import read_weights

RECORDED = Path(__file__).parents[2] / "data" / "backbones"


# As `record.py` has them; beside them, an optimizer's state and an epoch.
WEIGHTS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # a view, its own strides
    "a.bias": np.array([1, 2], np.float32),  # a parameter on the same storage
    "b": np.array([1, 2]),
    "c": np.array([1.5, -2.0], ml_dtypes.bfloat16),
    "d": np.array([0.25, -8.0], np.float16),
    "e": np.array(7.0),
    "f": np.array([True, False]),
    "g": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("name", ["tiny_zip.pth", "tiny_legacy.pth"])
def test_both_formats_of_pytorch_are_read(name):
    found = read_weights(RECORDED / name)
    assert list(found) == list(WEIGHTS)
    for key, expected in WEIGHTS.items():
        assert found[key].dtype == expected.dtype
        np.testing.assert_array_equal(found[key], expected, strict=True)


def test_the_shipped_file_holds_what_is_known_of_it():
    found = read_weights(BACKBONES["efficientnet_lite0"].package())
    assert len(found) == 296
    counted = [x for x in found.values() if x.dtype == np.float32]
    tracked = sum(x.size for x in found.values() if x.dtype == np.int64)
    assert sum(x.size for x in counted) + tracked == 4_694_073


def test_safetensors_and_a_prefix_of_data_parallel(tmp_path):
    file = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"module.w": np.ones((2, 3), np.float32)}, file)
    found = read_weights(file)
    np.testing.assert_array_equal(found["w"], np.ones((2, 3)))


class Malicious:
    def __reduce__(self):
        return (eval, ("print('ran')",))


def zipped(tmp_path, data, name="data.pkl"):
    file = tmp_path / "x.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"x/{name}", data)
    return file


def test_a_pickle_that_would_run_something_is_refused(tmp_path, capsys):
    file = zipped(tmp_path, pickle.dumps({"w": Malicious()}))
    with pytest.raises(ValueError, match=r"asks for builtins\.eval, which is not a tensor"):
        read_weights(file)
    assert "ran" not in capsys.readouterr().out


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    with zipfile.ZipFile(RECORDED / "tiny_zip.pth") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    file = tmp_path / "x.pth"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content[:4] if "/data/" in name else content)
    with pytest.raises(ValueError, match="reaches beyond its storage"):
        read_weights(file)


@pytest.mark.parametrize("name", ["tiny_zip.pth", "tiny_legacy.pth"])
def test_a_file_cut_short_anywhere_is_named(tmp_path, name):
    whole, file = (RECORDED / name).read_bytes(), tmp_path / "cut.pth"
    for length in range(0, len(whole), 9):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pth"):
            read_weights(file)


def test_a_damaged_file_gives_an_error_that_names_it_or_tensors(tmp_path):
    whole, file = (RECORDED / "tiny_legacy.pth").read_bytes(), tmp_path / "bad.pth"
    rng = np.random.default_rng(0)
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            found = read_weights(file)
        except ValueError as error:
            assert "bad.pth" in str(error)
        else:
            assert all(isinstance(x, np.ndarray) for x in found.values())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_foreign_file_is_named(tmp_path, suffix):
    file = tmp_path / f"foreign{suffix}"
    file.write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="foreign"):
        read_weights(file)


def test_an_archive_of_something_else_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no data\.pkl"):
        read_weights(zipped(tmp_path, b"", name="other"))
    with pytest.raises(ValueError, match="does not exist"):
        read_weights(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="holds no tensors by name"):
        read_weights(zipped(tmp_path, pickle.dumps({"epoch": 3})))
