"""Cityscapes: `cityscapes:ROOT@SPLIT` reads `leftImg8bit/SPLIT` and `gtFine/SPLIT`, the 19 classes that are evaluated.

`@SPLIT+groups` reads Cityscapes' 8 groups instead. Default split: train. Labels come from `*_labelIds.png`, else from
`*_instanceIds.png`, else from `*_labelTrainIds.png`; objects from `*_instanceIds.png` (1000 x label + number).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasetdm.errors import DataError
from datasetdm.readers.maps import Palette, read_map
from datasetdm.readers.places import folder_of, images_in, inside, with_option
from datasetdm.readers.regions import Region, instances, value_runs
from datasetdm.readers.source import FilesSource, Item
from datasetdm.records import IGNORE, Annotations, Instances, Labels, SemanticMap

LAYOUT = """\
ROOT/
  leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png     images
  gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png      class per pixel (or labelTrainIds)
  gtFine/SPLIT/CITY/NAME_gtFine_instanceIds.png   1000 x class + number of the object; optional
"""

CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Label id -> class, in the order of the train ids."""

GROUPS = {
    "flat": (7, 8, 9, 10), "construction": (11, 12, 13, 14, 15, 16), "object": (17, 18, 19, 20), "nature": (21, 22),
    "sky": (23,), "human": (24, 25), "vehicle": (26, 27, 28, 29, 30, 31, 32, 33), "void": (4, 5, 6),
}  # fmt: skip
"""Group -> label ids. Ids 0 to 3 (unlabelled, own vehicle, borders) are in no group."""

THINGS = {"person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "human", "vehicle"}
KINDS = ("labelIds", "instanceIds", "labelTrainIds")


class CityscapesSource(FilesSource):
    """See the module."""

    def __init__(self, path: str, images: Path | None = None):
        root, option = with_option(path)
        split, _, groups = option.partition("+")
        if groups not in ("", "groups"):
            raise DataError(f"there is no option {groups!r}", where=path, expected="SPLIT or SPLIT+groups")
        members = GROUPS if groups else {name: (i,) for i, name in CLASSES.items()}
        self.labels = Labels(tuple(members), stuff=tuple(n for n in members if n not in THINGS))
        self._label_of = {i: n for n, ids in enumerate(members.values()) for i in ids}
        self._ids = Palette(dict.fromkeys((*range(34), 255), IGNORE) | self._label_of)
        self._train_ids = Palette({255: IGNORE} | {n: self._label_of[i] for n, i in enumerate(CLASSES)})
        images = inside(images or folder_of(root, "leftImg8bit"), split or "train", root)
        labels = inside(folder_of(root, "gtFine", "gtCoarse"), split or "train", root)
        self.items = [_item(p, images, labels) for p in images_in(images) if p.stem.endswith("_leftImg8bit")]
        if not self.items:
            raise DataError("there are no images", where=images, expected="CITY/NAME_leftImg8bit.png")

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """The semantic map, and the objects where there are instance ids."""
        numbers = None
        if path := item.maps.get("instanceIds"):
            numbers = read_map(path, path, size).astype(np.int32)
        if path := item.maps.get("labelIds"):
            ids = self._ids.ids(path, path, size)
        elif numbers is not None:
            ids = self._ids.decode(np.where(numbers < 1000, numbers, numbers // 1000), item.maps["instanceIds"])
        else:
            ids = self._train_ids.ids(item.maps["labelTrainIds"], item.maps["labelTrainIds"], size)
        return Annotations(SemanticMap(ids), None if numbers is None else self._objects(numbers, size))

    def _objects(self, numbers: np.ndarray, size: tuple[int, int]) -> Instances:
        """Numbers below 1000 are regions whose objects are not separated."""
        found = ((runs, self._label_of.get(n // 1000)) for n, runs in value_runs(numbers).items() if n >= 1000)
        return instances([Region(runs, label) for runs, label in found if label is not None], size)


def _item(image: Path, images: Path, labels: Path) -> Item:
    """With the label files that are there; without any, with one that the check will find missing."""
    name = image.relative_to(images).as_posix().removesuffix(f"_leftImg8bit{image.suffix}")
    named = ((k, labels / f"{name}_{quality}_{k}.png") for k in KINDS for quality in ("gtFine", "gtCoarse"))
    own = {k: p for k, p in named if p.is_file()}
    return Item(name, image, own or {"labelIds": labels / f"{name}_gtFine_labelIds.png"})
