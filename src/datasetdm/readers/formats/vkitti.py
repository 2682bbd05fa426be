"""Virtual KITTI 2: `vkitti:ROOT` reads every `Scene*/VARIATION/frames/rgb/Camera_*/rgb_N.jpg` below it.

Depth is a 16-bit PNG in centimetres, of which 65535 is the sky or further away: unknown. Classes are the colours of the
variation's `colors.txt`, or the data set's own. Objects are vehicles, a palette index each (0: none). A kind that was not
downloaded is left out, but either every image has it or none.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from datasetdm.errors import DataError
from datasetdm.readers.depths import read_depth
from datasetdm.readers.maps import Colour, Palette, read_map
from datasetdm.readers.places import IMAGE, pairs, text_of
from datasetdm.readers.regions import value_runs
from datasetdm.readers.source import FilesSource, Item
from datasetdm.records import IGNORE, Annotations, Instances, Labels, MaskStack, SemanticMap

LAYOUT = """\
ROOT/SceneNN/VARIATION/
  colors.txt                                             colours of the classes; optional
  frames/rgb/Camera_0/rgb_00001.jpg
  frames/depth/Camera_0/depth_00001.png                  16 bits, centimetres, 65535 unknown
  frames/classSegmentation/Camera_0/classgt_00001.png    colour per class
  frames/instanceSegmentation/Camera_0/instancegt_00001.png   palette index per vehicle
"""

CENTIMETRE = 1 / 100
COLOURS: dict[str, Colour] = {
    "Terrain": (210, 0, 200), "Sky": (90, 200, 255), "Tree": (0, 199, 0), "Vegetation": (90, 240, 0),
    "Building": (140, 140, 140), "Road": (100, 60, 100), "GuardRail": (250, 100, 255), "TrafficSign": (255, 255, 0),
    "TrafficLight": (200, 200, 0), "Pole": (255, 130, 0), "Misc": (80, 80, 80), "Truck": (160, 60, 60),
    "Car": (255, 127, 80), "Van": (0, 139, 139),
}  # fmt: skip
THINGS = ("Truck", "Car", "Van")
SYNONYMS = {"GuardRail": ("guard rail",), "TrafficSign": ("traffic sign",), "TrafficLight": ("traffic light",)}

FOLDERS = {
    "depth": ("depth", "depth"),
    "class": ("classSegmentation", "classgt"),
    "object": ("instanceSegmentation", "instancegt"),
}
RULES = {
    kind: (
        (
            rf"(.*/|)vkitti_([\d.]+)_rgb/(.*/|)frames/rgb/(Camera_\d)/rgb_(\d+){IMAGE}",
            rf"\1vkitti_\2_{folder}/\3frames/{folder}/\4/{name}_\5.png",
        ),
        (rf"(.*/|)frames/rgb/(Camera_\d)/rgb_(\d+){IMAGE}", rf"\1frames/{folder}/\2/{name}_\3.png"),
    )
    for kind, (folder, name) in FOLDERS.items()
}
"""Archives unpacked each into its own folder, or all into one."""


class VkittiSource(FilesSource):
    """See the module."""

    labels = Labels(
        tuple(COLOURS), tuple(SYNONYMS.get(n, ()) for n in COLOURS), tuple(n for n in COLOURS if n not in THINGS)
    )

    def __init__(self, path: str, images: Path | None = None):
        found = pairs(Path(path), RULES, "Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg")
        there = [k for k in RULES if any(item.maps[k].is_file() for item in found.items)]
        if not there:
            raise DataError("no image has labels", where=path, expected="frames/depth, classSegmentation or both")
        self.items = [Item(i.key, i.image, {k: i.maps[k] for k in there}) for i in found.items]
        self.orphan_errors, self.notes = found.orphan_errors, found.notes
        self._palettes: dict[Path, Palette] = {}

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """Depth, the semantic map and the vehicles, as far as they are there."""
        semantic = objects = depth = None
        if path := item.maps.get("depth"):
            depth = read_depth(path, path, size, CENTIMETRE, invalid=(0, 65535))
        if path := item.maps.get("class"):
            semantic = SemanticMap(self._palette(item.image).ids(path, path, size))
            if path := item.maps.get("object"):
                objects = self._objects(path, semantic.ids, size)
        return Annotations(semantic, objects, depth)

    def _palette(self, image: Path) -> Palette:
        """Of the variation: its folder is the one that holds `frames`."""
        folder = image.parents[3]
        if folder not in self._palettes:
            file = folder / "colors.txt"
            colours = _colours(file) if file.is_file() else COLOURS
            known = {c: self.labels.index[n] for n, c in colours.items()}
            self._palettes[folder] = Palette({}, {(0, 0, 0): IGNORE} | known)
        return self._palettes[folder]

    def _objects(self, path: Path, classes: np.ndarray, size: tuple[int, int]) -> Instances:
        """An object's label is the vehicle that most of its pixels are; edges may be blurred by a pixel."""
        numbers = read_map(path, path, size)
        if numbers.ndim != 2:
            raise DataError("the objects are colours", where=path, expected="a palette image, its index the object")
        masks = MaskStack([runs for n, runs in value_runs(numbers).items() if n], size)
        label_ids = [int(np.bincount(classes[m]).argmax()) for m in masks]
        strange = [i for i in label_ids if i == IGNORE or self.labels.names[i] not in THINGS]
        if strange:
            name = "unknown" if strange[0] == IGNORE else self.labels.names[strange[0]]
            raise DataError(f"an object is mostly {name}", where=path, expected=" or ".join(THINGS))
        return Instances(masks, np.array(label_ids, np.int64))


def _colours(path: Path) -> dict[str, Colour]:
    """Lines `Category r g b` under a heading; of the undefined class nothing is known."""
    colours = {}
    for line in text_of(path).splitlines()[1:]:
        words = line.split()
        if not words or words[0] == "Undefined":
            continue
        if words[0] not in COLOURS or len(words) != 4 or not all(re.fullmatch(r"\d{1,3}", w) for w in words[1:]):
            raise DataError(
                f"{line[:60]!r} is no class and colour", where=path, expected="for instance Road 100 60 100"
            )
        colours[words[0]] = (int(words[1]), int(words[2]), int(words[3]))
    return colours
