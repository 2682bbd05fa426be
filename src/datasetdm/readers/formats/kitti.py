"""KITTI depth: 16-bit PNGs in 1/256 metre, 0 where no laser point fell.

`kitti:FOLDER` reads `image/` with `groundtruth_depth/` (the official validation crops) or `image/` (`images/`) with `depth/`.
`kitti:ANNOTATED --images RAW` reads the annotated drives (`DRIVE/proj_depth/groundtruth/image_02/N.png`) with the raw
images (`DATE/DRIVE/image_02/data/N.png`).
"""

from __future__ import annotations

import re
from pathlib import Path

from datasetdm.errors import DataError
from datasetdm.readers.depths import read_depth
from datasetdm.readers.places import IMAGE, files_in, pairs
from datasetdm.readers.source import FilesSource, Item
from datasetdm.records import Annotations, Labels

LAYOUT = """\
FOLDER/                          or FOLDER with image/ and groundtruth_depth/ (the official validation crops)
  image/NAME.png
  depth/NAME.png                 16 bits, 1/256 m, 0 unknown

ANNOTATED/DRIVE/proj_depth/groundtruth/image_02/N.png   with --images RAW:
RAW/DATE/DRIVE/image_02/data/N.png
"""

STEP = 1 / 256
"""Metres that a value is worth."""

RULES = {
    "depth": (
        (
            rf"(.*/|)image/(.+)_image_(\d+)_image_(\d\d){IMAGE}",
            r"\1groundtruth_depth/\2_groundtruth_depth_\3_image_\4.png",
        ),
        (rf"(.*/|)(?:image|images)/(.+){IMAGE}", r"\1depth/\2.png"),
    )
}


class KittiSource(FilesSource):
    """See the module. Its only label is `image`, which no sample carries."""

    labels = Labels(("image",))

    def __init__(self, path: str, images: Path | None = None):
        root = Path(path)
        if images:
            self.items = _drives(root, images)
            return
        found = pairs(root, RULES, "image/ with groundtruth_depth/ or depth/")
        self.items, self.orphan_errors, self.notes = found.items, found.orphan_errors, found.notes

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """Depth."""
        return Annotations(depth=read_depth(item.maps["depth"], item.maps["depth"], size, STEP))


def _drives(root: Path, raw: Path) -> list[Item]:
    items = []
    for depth in files_in(root, ".png"):
        place = re.search(r"([^/]+)/proj_depth/groundtruth/(image_0[23])/[^/]+$", depth.absolute().as_posix())
        if place is None:
            continue
        drive, camera = place.groups()
        image = raw / drive[:10] / drive / camera / "data" / depth.name
        items.append(Item(f"{drive}/{camera}/{depth.stem}", image, {"depth": depth}))
    if not items:
        expected = "DRIVE/proj_depth/groundtruth/image_02/N.png"
        raise DataError("there are no annotated drives", where=root, expected=expected)
    return items
