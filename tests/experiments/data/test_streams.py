import io

import numpy as np
import pytest
from PIL import Image

from experiments.data.prepare import prepare
from experiments.data.streams import balanced, evaluation_chunks, iterate, merged
from experiments.data.transforms import random_resized_crop, resize

COUNTS = (7, 5, 11)


def picture_of(domain, i):
    """Red tells the domain and green the position, in blue is noise that tells a crop."""
    pixels = np.empty((10, 12, 3), np.uint8)
    pixels[..., :2] = domain, i
    pixels[..., 2] = np.random.default_rng((domain, i)).integers(0, 256, (10, 12))
    return Image.fromarray(pixels)


class Source:
    """Images that can be traced."""

    def __init__(self, domain, count):
        self.domain, self.count = domain, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        out = io.BytesIO()
        picture_of(self.domain, i).save(out, format="PNG")
        return {
            "image": out.getvalue(),
            "label": 100 * self.domain + i,
            "filename": f"{i}.png",
        }


SOURCES = [Source(d, n) for d, n in enumerate(COUNTS)]
EVERYTHING = [np.arange(n) for n in COUNTS]


def make(kind=balanced, batch_size=4, seed=0, indices=EVERYTHING, **more):
    return kind(
        SOURCES, batch_size=batch_size, image_size=8, seed=seed, indices=indices, **more
    )


def test_a_balanced_batch_holds_every_domain_in_turn():
    batch = make()[0]
    assert batch.images.shape == (12, 8, 8, 3) and batch.images.dtype == np.uint8
    np.testing.assert_array_equal(batch.domains, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.domains)
    np.testing.assert_array_equal(
        100 * batch.domains + batch.images[:, 0, 0, 1], batch.labels
    )


def test_every_pass_takes_each_example_once_in_a_new_order():
    stream = make(batch_size=1)
    seen = [
        [int(stream[step].labels[d]) for step in range(3 * n)] for d, n in enumerate(COUNTS)
    ]
    for d, n in enumerate(COUNTS):
        passes = [seen[d][i * n : (i + 1) * n] for i in range(3)]
        for one in passes:
            assert sorted(one) == [100 * d + i for i in range(n)]
        assert len({tuple(one) for one in passes}) == 3


def test_domains_of_one_size_are_not_shuffled_alike():
    sources = [Source(0, 50), Source(1, 50)]
    stream = balanced(
        sources, batch_size=50, image_size=8, seed=0, indices=[np.arange(50)] * 2
    )
    a, b = np.split(stream[0].labels % 100, 2)
    assert (a == b).mean() < 0.2


def test_only_the_given_positions_are_read():
    indices = [np.array([6, 2]), np.array([0]), np.array([10])]
    labels = {int(x) for step in range(5) for x in make(indices=indices)[step].labels}
    assert labels == {6, 2, 100, 210}


def test_a_batch_is_a_function_of_seed_and_step():
    for kind in (balanced, merged):
        a, b = make(kind)[5], make(kind)[5]
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
        assert (make(kind, seed=1)[5].labels != a.labels).any()


@pytest.mark.parametrize("kind", [balanced, merged])
def test_reading_ahead_from_any_step_gives_the_same_batches(kind):
    stream = make(kind)
    ahead = iterate(stream, start=3)
    for step in range(3, 9):
        for x, y in zip(next(ahead), stream[step], strict=True):
            np.testing.assert_array_equal(x, y)


def test_merged_batches_are_one_shuffled_pass_and_drop_its_rest():
    stream = make(merged, batch_size=4)  # 23 examples: 5 batches a pass
    first = np.concatenate([stream[step].labels for step in range(5)])
    assert len(set(first.tolist())) == 20
    second = np.concatenate([stream[step].labels for step in range(5, 10)])
    assert len(set(second.tolist())) == 20
    assert (first != second).any()
    counts = [np.bincount(stream[step].domains, minlength=3) for step in range(20)]
    assert all(c.sum() == 4 for c in counts)
    assert len({tuple(c) for c in counts}) > 3
    for step in range(5):
        np.testing.assert_array_equal(stream[step].labels // 100, stream[step].domains)


@pytest.mark.parametrize("kind", [balanced, merged])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_processes_shares_are_the_batch_of_one(kind, processes):
    whole = make(kind)[3]
    shares = [
        make(kind, process_index=p, process_count=processes)[3] for p in range(processes)
    ]
    for field in range(3):
        joined = np.concatenate([share[field] for share in shares])
        np.testing.assert_array_equal(joined, whole[field])
    assert {len(share.labels) for share in shares} == {len(whole.labels) // processes}


def test_the_crop_is_the_transform_s():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    out = io.BytesIO()
    picture.save(out, format="PNG")
    source = [{"image": out.getvalue(), "label": 0}] * 3
    stream = balanced(
        [source], batch_size=2, image_size=8, seed=9, indices=[np.arange(3)], min_crop=0.3
    )
    for slot, image in enumerate(stream[4].images):
        own = np.random.default_rng((9, 4, slot))
        np.testing.assert_array_equal(image, random_resized_crop(picture, own, 8, 0.3))


def test_evaluation_reads_in_order_whole():
    chunks = list(evaluation_chunks(SOURCES[2], np.array([5, 0, 9, 1, 2]), 8, chunk=2))
    assert [len(labels) for _, labels in chunks] == [2, 2, 1]
    assert np.concatenate([labels for _, labels in chunks]).tolist() == [
        205,
        200,
        209,
        201,
        202,
    ]
    np.testing.assert_array_equal(chunks[0][0][0], resize(picture_of(2, 5), 8))


def test_impossible_streams_say_why():
    for kind in (balanced, merged):
        with pytest.raises(ValueError, match=r"process_count must divide a batch .* got 5"):
            make(kind, process_count=5)
        with pytest.raises(ValueError, match=r"process_index must be in 0\.\.1; got 2"):
            make(kind, process_index=2, process_count=2)
        with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
            make(kind, batch_size=0)
        with pytest.raises(ValueError, match=r"min_crop must be in \(0, 1\]; got 1.5"):
            make(kind, min_crop=1.5)
    with pytest.raises(ValueError, match=r"batch_size must be at most 23.*got 24"):
        make(merged, batch_size=24)
    with pytest.raises(ValueError, match="source 1 has no examples"):
        make(indices=[np.arange(7), np.array([], int), np.arange(11)])


def test_a_record_that_cannot_be_decoded_is_named():
    broken = [{"image": b"not an image", "label": 0, "filename": b"dog/7.jpg"}]
    stream = balanced([broken], batch_size=1, image_size=8, seed=0, indices=[np.arange(1)])
    for read in (
        lambda: stream[0],
        lambda: next(iterate(stream)),
        lambda: list(evaluation_chunks(broken, np.arange(1), 8, chunk=2)),
    ):
        with pytest.raises(ValueError, match=r"dog/7\.jpg cannot be decoded"):
            read()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_nothing(threads):
    stream = make().slice(slice(5))
    found = list(iterate(stream, 1, threads=threads))
    assert len(found) == 4
    for step, batch in enumerate(found, start=1):
        for x, y in zip(batch, stream[step], strict=True):
            np.testing.assert_array_equal(x, y)
    chunks = evaluation_chunks(SOURCES[2], np.arange(11), 8, chunk=3, threads=threads)
    assert np.concatenate([y for _, y in chunks]).tolist() == list(range(200, 211))


def test_a_part_without_examples_has_no_chunks():
    assert list(evaluation_chunks(SOURCES[0], np.arange(0), 8, chunk=3)) == []


def test_one_image_is_cropped_anew_in_every_pass():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, format="PNG")
    source = [{"image": out.getvalue(), "label": 0}]
    stream = balanced([source], batch_size=8, image_size=8, seed=0, indices=[np.arange(1)])
    images = np.concatenate([stream[step].images for step in range(4)])
    assert len(np.unique(images.reshape(32, -1), axis=0)) > 28


def test_records_on_the_disk_are_read(tmp_path):
    rng = np.random.default_rng(0)
    pictures = {}
    for domain in ("ink", "photo"):
        for i in range(3):
            file = tmp_path / "images" / domain / ("cat", "dog")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
            pictures[domain, f"{file.parent.name}/{i}.png"] = Image.fromarray(pixels)
    data = prepare("folder", tmp_path / "images", tmp_path / "prepared")
    sources = [data.records(domain) for domain in data.domains]
    stream = balanced(
        sources, batch_size=3, image_size=8, seed=0, indices=[np.arange(3)] * 2
    )
    batch = next(iterate(stream, 2))
    np.testing.assert_array_equal(batch.domains, [0, 0, 0, 1, 1, 1])
    assert sorted(batch.labels[:3]) == sorted(batch.labels[3:]) == [0, 0, 1]
    for domain, source in zip(data.domains, sources, strict=True):
        ((images, labels),) = evaluation_chunks(source, np.arange(3), 8, chunk=4)
        np.testing.assert_array_equal(labels, data.labels(domain))
        for image, name in zip(images, data.filenames(domain), strict=True):
            np.testing.assert_array_equal(image, resize(pictures[domain, name], 8))
