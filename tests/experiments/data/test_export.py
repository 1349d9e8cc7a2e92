import dataclasses

import numpy as np
import pytest
from PIL import Image

from experiments.data import DATASETS, load
from experiments.data.export import export
from experiments.data.folders import list_folder


def small(name="emoji_styles", per_domain=30):
    """The first images of every domain."""
    size = 16
    data = load(name, image_size=size)
    masks = [np.arange(len(labels)) < per_domain for labels in data.labels]
    return data.subset(masks)


def read(root):
    """DOMAIN/CLASS/NAME -> image."""
    listing = list_folder(root)
    return {
        f"{domain}/{file}": np.asarray(Image.open(folder / file))
        for domain, folder in listing.folders.items()
        for file in listing.files[domain]
    }


@pytest.mark.parametrize("name", DATASETS)
def test_a_tree_read_back_is_the_data_set(tmp_path, name):
    data = small(name)
    assert export(data, tmp_path / "tree") == sum(map(len, data.images))
    found = read(tmp_path / "tree")
    assert len(found) == sum(map(len, data.images))
    for d, domain in enumerate(data.domains):
        for image, label, group in zip(
            data.images[d], data.labels[d], data.groups[d], strict=True
        ):
            file = f"{domain}/{data.classes[label]}/{group:05d}.png"
            np.testing.assert_array_equal(found[file], image)


def test_images_of_one_group_and_class_get_names_of_their_own(tmp_path):
    data = small(per_domain=5)
    same = (np.zeros(5, np.int32),) * len(data.domains)
    data = dataclasses.replace(data, groups=same, labels=same)
    assert export(data, tmp_path) == 5 * len(data.domains)
    names = list_folder(tmp_path).files["noto"]
    cls = data.classes[0]
    assert set(names) == {f"{cls}/00000{n}.png" for n in ("", "-1", "-2", "-3", "-4")}
    found = read(tmp_path)
    np.testing.assert_array_equal(found[f"noto/{cls}/00000-3.png"], data.images[0][3])


def test_run_again_it_writes_only_what_is_missing(tmp_path):
    data = small(per_domain=5)
    seen = []
    export(data, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 20) for n in range(1, 21)]
    files = sorted(tmp_path.rglob("*.png"))
    times = {file: file.stat().st_mtime_ns for file in files}
    files[3].unlink()
    # What a kill leaves of a file that was being written.
    files[3].with_name(files[3].name + ".5e1f.tmp").write_bytes(b"half")
    assert export(data, tmp_path) == 1
    assert sorted(tmp_path.rglob("*.png")) == files
    changed = [file for file in files if file.stat().st_mtime_ns != times[file]]
    assert changed == [files[3]]
    assert export(data, tmp_path) == 0


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"out must be empty .* but .*thesis\.txt"):
        export(small(per_domain=2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_export_of_another_size_is_not_mixed_in(tmp_path):
    export(small(per_domain=2), tmp_path)
    data = load("emoji_styles", image_size=8)
    with pytest.raises(
        ValueError, match=r"earlier export of emoji_styles, but .*png is not"
    ):
        export(data, tmp_path)
    assert len(list(tmp_path.rglob("*.png"))) == 8
