"""What training images cost before a model sees them, on the host and on the device.

The images are JPEG files of 256 to 300 pixels, cut from scikit-learn's two photographs.
The cases take turns, round after round, as in `step_cost`; a record holds the medians.
"""

import io
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from PIL import Image, ImageEnhance
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images

from experiments.data.augment import augment
from experiments.data.prepare import prepare
from experiments.data.streams import balanced, iterate
from experiments.data.transforms import decode, random_resized_crop, resize
from experiments.files import write_json, write_whole
from experiments.training.numerics import environment

SIZE = 224  # pixels along a side of what the model is given
DOMAINS = ("a", "b", "c")
BATCH_SIZE = 32  # of each domain, as DomainBed
DOMAIN_SIZE = 2048  # grain's shuffle takes 20 us an example then, but 1 ms among 32
THREADS = (0, 1, 2, 4)
JITTER, GRAYSCALE = 0.3, 0.1
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

# Not measured here: what one H200 may train of ResNet-50 at 224 pixels in bfloat16, with
# one gradient a step. A method of two gradients a step, as SAM, takes half as many.
ASSUMED_RATE = 3000.0


def run(quick: bool, rate: float = ASSUMED_RATE) -> dict[str, Any]:
    """Measures every case.

    Args:
      quick: fewer images and one round, within a minute on 2 cores.
      rate: images a second that the device is assumed to take.

    Returns:
      `records`, a list with `case`, `images_per_second` of wall time and
      `images_per_core_second` of processor time, summed over the threads; `feeding`, the
      cores that keep up with `rate`, computed from the latter; and `environment`.
    """
    images = photographs(64 if quick else 512)
    batches, rounds = (2, 1) if quick else (8, 5)
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            **host_cases(images),
            **stream_cases(images, Path(folder), batches),
            **device_cases(images[: 32 if quick else 128]),
        }
        records = measure(cases, rounds)
    return {
        "records": records,
        "feeding": feeding(records, rate),
        "environment": environment(),
    }


def photographs(count: int) -> list[bytes]:
    """JPEG files, quality 90, cut at random from two photographs of 427x640 pixels."""
    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    files = []
    for i in range(count):
        height, width = rng.integers(256, 301, 2)
        photo = photos[i % len(photos)]
        top = rng.integers(0, photo.shape[0] - height + 1)
        left = rng.integers(0, photo.shape[1] - width + 1)
        out = io.BytesIO()
        cut = photo[top : top + height, left : left + width]
        Image.fromarray(cut).save(out, format="JPEG", quality=90)
        files.append(out.getvalue())
    return files


def measure(cases: dict[str, Callable[[], int]], rounds: int) -> list[dict[str, Any]]:
    """One record per case; a case does its work and returns its number of images."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, work in cases.items():
            wall, cpu = time.perf_counter(), time.process_time()
            count = work()
            seconds[name].append(
                (
                    count / (time.perf_counter() - wall),
                    count / (time.process_time() - cpu),
                )
            )
    return [
        {
            "case": name,
            "images_per_second": statistics.median(wall for wall, _ in found),
            "images_per_core_second": statistics.median(cpu for _, cpu in found),
        }
        for name, found in seconds.items()
    ]


def host_cases(images: Sequence[bytes]) -> dict[str, Callable[[], int]]:
    """What one thread does to each image."""

    def each(transform: Callable[[bytes], Any]) -> Callable[[], int]:
        return lambda: len([transform(image) for image in images])

    rng = np.random.default_rng(0)
    return {
        "decode": each(decode),
        "decode, resize": each(lambda image: resize(decode(image), SIZE)),
        "decode, crop": each(lambda image: random_resized_crop(decode(image), rng, SIZE)),
        "decode, crop, augment on the host": each(lambda image: all_on_host(image, rng)),
    }


def all_on_host(image: bytes, rng: np.random.Generator) -> np.ndarray:
    """The papers' whole pipeline by PIL, float32 [SIZE, SIZE, 3]."""
    picture = Image.fromarray(random_resized_crop(decode(image), rng, SIZE))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    adjustments = (
        lambda x: ImageEnhance.Brightness(x).enhance(1 + rng.uniform(-JITTER, JITTER)),
        lambda x: ImageEnhance.Contrast(x).enhance(1 + rng.uniform(-JITTER, JITTER)),
        lambda x: ImageEnhance.Color(x).enhance(1 + rng.uniform(-JITTER, JITTER)),
        lambda x: turn_hue(x, rng.uniform(-JITTER, JITTER)),
    )
    for place in rng.permutation(4):
        picture = adjustments[place](picture)
    if rng.random() < GRAYSCALE:
        picture = picture.convert("L").convert("RGB")
    pixels = np.asarray(picture, np.float32) / 255
    return (pixels - MEAN) / STD


def turn_hue(picture: Image.Image, turn: float) -> Image.Image:
    """The hue turned by a share of the circle, in steps of 1/256."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(round(turn * 256) % 256)  # wraps around
    hue = Image.fromarray(turned)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def stream_cases(
    images: Sequence[bytes], folder: Path, batches: int
) -> dict[str, Callable[[], int]]:
    """Whole batches, from files in memory and from records on the disk."""
    parts = [images[d :: len(DOMAINS)] for d in range(len(DOMAINS))]
    memory = [[{"image": image, "label": 0} for image in part] for part in parts]
    for domain, part in zip(DOMAINS, parts, strict=True):
        for i, image in enumerate(part):
            write_whole(folder / "images" / domain / "photo" / f"{i:04}.jpg", image)
    prepared = prepare("folder", folder / "images", folder / "prepared")
    disk = [prepared.records(domain) for domain in DOMAINS]
    return {
        **{f"stream, {n} threads": _reading(memory, batches, n) for n in THREADS},
        "stream from array_record, 2 threads": _reading(disk, batches, 2),
    }


def _reading(sources: Sequence[Any], batches: int, threads: int) -> Callable[[], int]:
    stream = balanced(
        sources,
        batch_size=BATCH_SIZE,
        image_size=SIZE,
        seed=0,
        indices=[np.arange(DOMAIN_SIZE) % len(source) for source in sources],
    )
    # Of finite length: what is read ahead and never used would be timed too.
    finite = stream.slice(slice(batches))
    return lambda: sum(len(batch.labels) for batch in iterate(finite, threads=threads))


def device_cases(images: Sequence[bytes]) -> dict[str, Callable[[], int]]:
    """What is left for the device, on one batch."""
    batch = np.stack([resize(decode(image), SIZE) for image in images])
    jitted = jax.jit(augment)
    key = jax.random.key(0)
    jitted(key, batch).block_until_ready()

    def work() -> int:
        jitted(key, batch).block_until_ready()
        return len(batch)

    return {f"augment {len(batch)} images on the device": work}


def feeding(records: Sequence[dict[str, Any]], rate: float) -> dict[str, Any]:
    """The cores that the host needs for a device which takes `rate` images a second."""
    per_core = {r["case"]: r["images_per_core_second"] for r in records}
    with_device = per_core["stream from array_record, 2 threads"]
    on_host = per_core["decode, crop, augment on the host"]
    return {
        "assumed_images_per_second": rate,
        "assumption": "not measured: ResNet-50 at 224 pixels on one H200, bfloat16, one "
        "gradient a step; half of it with two gradients a step",
        "cores": math.ceil(rate / with_device),
        "cores_two_gradients": math.ceil(rate / 2 / with_device),
        "cores_all_on_host": math.ceil(rate / on_host),
    }


def lines(result: dict[str, Any]) -> Iterator[Table | str]:
    """What the command shows of a result of `run`."""
    table = Table("case", "images/s", "images per core-second")
    for r in result["records"]:
        table.add_row(
            r["case"],
            f"{r['images_per_second']:.0f}",
            f"{r['images_per_core_second']:.0f}",
        )
    yield table
    need = result["feeding"]
    yield (
        f"To feed {need['assumed_images_per_second']:.0f} images/s (assumed): "
        f"{need['cores']} cores like these; {need['cores_two_gradients']} for half of it, "
        f"two gradients a step; {need['cores_all_on_host']} with all of it on the host."
    )


def input_pipeline(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    quick: Annotated[bool, typer.Option(help="Within a minute on 2 cores.")] = False,
    rate: Annotated[
        float, typer.Option(help="Images/s that the device is assumed to take.")
    ] = ASSUMED_RATE,
) -> None:
    """Images a second of decoding, cropping, reading ahead and augmenting."""
    result = run(quick, rate)
    write_json(out, result)
    for line in lines(result):
        Console().print(line)
