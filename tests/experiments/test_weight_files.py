import io
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from experiments.backbones import BACKBONES
from experiments.backbones.weight_files import read_weights

RECORDED = Path(__file__).parents[1] / "data" / "backbones"


@pytest.mark.parametrize("name", ["tiny_zip.pth", "tiny_legacy.pth"])
def test_both_formats_of_pytorch_are_read(name):
    found = read_weights(RECORDED / name)
    assert list(found) == ["a.weight", "b", "c"]
    # A transposed view: the strides of the file are followed.
    np.testing.assert_array_equal(found["a.weight"], np.arange(6.0).reshape(2, 3).T)
    np.testing.assert_array_equal(found["b"], [1, 2])
    assert (found["b"].dtype, found["c"].dtype) == (np.int64, ml_dtypes.bfloat16)
    np.testing.assert_array_equal(found["c"].astype(np.float32), [1.5, -2.0])


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
    data = bytearray((RECORDED / "tiny_zip.pth").read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    file = tmp_path / "x.pth"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content[:4] if name.endswith("data/0") else content)
    with pytest.raises(ValueError, match="reaches beyond its storage"):
        read_weights(file)


@pytest.mark.parametrize("cut", [10, 300, 600])
def test_a_file_cut_short_is_named(tmp_path, cut):
    file = tmp_path / "cut.pth"
    file.write_bytes((RECORDED / "tiny_legacy.pth").read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"cut\.pth"):
        read_weights(file)


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
