"""The five benchmarks of DomainBed: their folders, domains, classes and counts."""

import dataclasses
from pathlib import Path

OFFICE_HOME = """
Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair
Clipboards Computer Couch Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet
Flipflops Flowers Folder Fork Glasses Hammer Helmet Kettle Keyboard Knives Lamp_Shade
Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen Pencil Postit_Notes
Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda
Speaker Spoon TV Table Telephone ToothBrush Toys Trash_Can Webcam
"""
# In the order that numbers the labels of DomainNet's own lists, which is no sorted one.
DOMAIN_NET = Path(__file__).with_name("domain_net_classes.txt").read_text()


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark in DomainBed's layout, DATA_DIR/FOLDER/DOMAIN/CLASS/image.

    Attributes:
      name: what `--data` calls it.
      folder: of the benchmark under DomainBed's data directory.
      domains: names of the domains, sorted; a blank in a folder's name is an underscore
        here, and either is found.
      classes: names of the classes, sorted; a label is an index into them.
      counts: images of each domain.
      reference: the paper.
      class_counts: images of each class of each domain; empty where they are not known.
      exact: whether another count is an error. If not, several annotation files are about
        and the counts found are only reported.
    """

    name: str
    folder: str
    domains: tuple[str, ...]
    classes: tuple[str, ...]
    counts: dict[str, int]
    reference: str
    class_counts: dict[str, tuple[int, ...]]
    exact: bool


def _benchmark(
    name: str,
    folder: str,
    classes: str,
    counts: dict[str, int],
    reference: str,
    class_counts: dict[str, tuple[int, ...]] | None = None,
    exact: bool = True,
) -> Benchmark:
    domains, names = tuple(counts), tuple(sorted(classes.split()))
    return Benchmark(
        name, folder, domains, names, counts, reference, class_counts or {}, exact
    )


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _benchmark(
            "pacs",
            "PACS",
            "dog elephant giraffe guitar horse house person",
            {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929},
            "Li et al., ICCV 2017",
            class_counts={
                "art_painting": (379, 255, 285, 184, 201, 295, 449),
                "cartoon": (389, 457, 346, 135, 324, 288, 405),
                "photo": (189, 202, 182, 186, 199, 280, 432),
                "sketch": (772, 740, 753, 608, 816, 80, 160),
            },
        ),
        _benchmark(
            "vlcs",
            "VLCS",
            "bird car chair dog person",
            {"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376},
            "Fang et al., ICCV 2013",
            class_counts={
                "Caltech101": (237, 123, 118, 67, 870),
                "LabelMe": (80, 1209, 88, 42, 1237),
                "SUN09": (20, 932, 1036, 30, 1264),
                "VOC2007": (330, 699, 428, 420, 1499),
            },
        ),
        _benchmark(
            "office_home",
            "office_home",
            OFFICE_HOME,
            {"Art": 2427, "Clipart": 4365, "Product": 4439, "Real_World": 4357},
            "Venkateswara et al., CVPR 2017",
        ),
        _benchmark(
            "terra_incognita",
            "terra_incognita",
            "bird bobcat cat coyote dog empty opossum rabbit raccoon squirrel",
            {
                "location_100": 4741,
                "location_38": 9736,
                "location_43": 3970,
                "location_46": 5883,
            },
            "Beery et al., ECCV 2018",
            exact=False,
        ),
        _benchmark(
            "domain_net",
            "domain_net",
            DOMAIN_NET,
            {
                "clipart": 48129,
                "infograph": 51605,
                "painting": 72266,
                "quickdraw": 172500,
                "real": 172947,
                "sketch": 69128,
            },
            "Peng et al., ICCV 2019, without the duplicates that DomainBed removes",
        ),
    )
}
