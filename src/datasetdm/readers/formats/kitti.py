"""KITTI depth: 16-bit PNGs in 1/256 metre, 0 where no laser point fell.

`kitti:FOLDER` reads `image/` with `groundtruth_depth/` (the official validation crops) or `image/` (`images/`) with `depth/`.
`kitti:ANNOTATED --images RAW` reads the annotated drives (`DRIVE/proj_depth/groundtruth/image_02/N.png`) with the raw
images (`DATE/DRIVE/image_02/data/N.png`).
"""

from __future__ import annotations

from pathlib import Path

from datasetdm.errors import DataError
from datasetdm.readers.maps import read_depth
from datasetdm.readers.places import pairs
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
            r"(.*/|)image/(.+)_image_(\d+)_image_(\d\d)\.png",
            r"\1groundtruth_depth/\2_groundtruth_depth_\3_image_\4.png",
        ),
        (r"(.*/|)(?:image|images)/(.+)\.(?:jpg|png)", r"\1depth/\2.png"),
    )
}


class KittiSource(FilesSource):
    """See the module. Its only label is `image`, which no sample carries."""

    labels = Labels(("image",))

    def __init__(self, path: str, images: Path | None = None):
        root = Path(path)
        self.items = _drives(root, images) if images else pairs(root, RULES, "image/ with groundtruth_depth/ or depth/")

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """Depth."""
        return Annotations(depth=read_depth(item.maps["depth"], item.maps["depth"], size, STEP))


def _drives(root: Path, raw: Path) -> list[Item]:
    items = []
    for depth in sorted(root.rglob("proj_depth/groundtruth/image_0[23]/*.png")):
        drive, camera = depth.parents[3].name, depth.parent.name
        image = raw / drive[:10] / drive / camera / "data" / depth.name
        items.append(Item(f"{drive}/{camera}/{depth.stem}", image, {"depth": depth}))
    if not items:
        expected = "DRIVE/proj_depth/groundtruth/image_02/N.png"
        raise DataError("there are no annotated drives", where=root, expected=expected)
    return items
