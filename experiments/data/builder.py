"""TFDS builders over folders of images: one a benchmark, a config a domain.

Written in array_record, they need no TensorFlow, neither to write nor to read. A config per
domain, as TFDS's own DomainNet has it, lets every domain be prepared by itself, whole or
not at all.
"""

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from experiments.data.benchmarks import BENCHMARKS
from experiments.data.folders import class_of, list_domain
from experiments.data.pixels import to_rgb

SPLIT = "images"  # "all" is a name that TFDS keeps for itself
RELEASE = "1.0.0"
AS_IT_IS = {("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L")}


@dataclasses.dataclass(eq=False)
class DomainConfig(tfds.core.BuilderConfig):
    """A domain.

    Attributes:
      classes: names of the classes; a label is an index into them.
    """

    classes: tuple[str, ...] = ()


class DomainFolders(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """MANUAL_DIR/CLASS/image of one domain, in ImageFolder's order.

    Record i is the i-th image of that order, since DomainBed's split counts by it.

    Args:
      files: the images, as paths below MANUAL_DIR; None takes all there are.
      file_format: in which the records are written.
      on_image: called with the number of images given to TFDS so far.
      more: of TFDS's builders.
    """

    VERSION = tfds.core.Version(RELEASE)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir is the domain's folder, with CLASS/image."

    def __init__(
        self,
        *,
        files: Sequence[str] | None = None,
        # TFDS's default, tfrecord, needs TensorFlow and is not read at random.
        file_format: str = "array_record",
        on_image: Callable[[int], None] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(file_format=file_format, **more)
        self._files = files
        self._on_image = on_image

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        assert isinstance(config, DomainConfig)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{config.name}: images in folders by class.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=list(config.classes)),
                    "filename": tfds.features.Text(),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {SPLIT: self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        files = list_domain(folder) if self._files is None else self._files
        for key, file in enumerate(files):
            yield (
                key,
                {
                    "image": rgb_bytes(folder / file),
                    "label": class_of(file),
                    "filename": file,
                },
            )
            if self._on_image is not None:
                self._on_image(key + 1)

    # TFDS prints a line before and one after, about downloads that there are none of.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


class Folder(DomainFolders):
    """Any folder of images; its configs are made as they are needed."""


def _of_benchmark(name: str) -> type[DomainFolders]:
    """The builder of a benchmark, known to TFDS by the benchmark's name."""
    benchmark = BENCHMARKS[name]
    configs = [
        DomainConfig(name=domain, version=RELEASE, classes=benchmark.classes)
        for domain in benchmark.domains
    ]
    body = {
        "__doc__": f"{name} ({benchmark.reference}), a config for each domain.",
        "__module__": __name__,
        "name": name,
        "BUILDER_CONFIGS": configs,
    }
    return type(name, (DomainFolders,), body)


BUILDERS = {"folder": Folder, **{name: _of_benchmark(name) for name in BENCHMARKS}}


def rgb_bytes(path: Path) -> bytes:
    """The file as it is where it is an RGB or gray JPEG or PNG, else as an RGB PNG.

    TFDS's decoder without TensorFlow neither converts CMYK nor drops alpha, and shows the
    indices of a palette; transparent pixels become white.

    Raises:
      ValueError: it cannot be read as an image; the message names the file.
    """
    raw = path.read_bytes()
    try:
        with Image.open(io.BytesIO(raw)) as image:
            if (image.format, image.mode) in AS_IT_IS and "transparency" not in image.info:
                return raw
            whole = to_rgb(image)
    except Exception as error:  # decoders raise anything on bytes that are not theirs
        raise ValueError(f"{path} cannot be decoded: {error}") from error
    out = io.BytesIO()
    whole.save(out, format="PNG")
    return out.getvalue()
