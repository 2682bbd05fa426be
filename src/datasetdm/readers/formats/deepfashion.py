"""DeepFashion-MultiModal: `deepfashion:ROOT`, the whole-body images with human parsing of 24 classes and 21 keypoints.

`images/NAME.jpg` has its parsing in `segm/NAME_segm.png` (an index a pixel), its points in `keypoints/keypoints_loc.txt`
(name, then x y of each; -1 -1 if absent) and `keypoints/keypoints_vis.txt` (0 seen, 1 hidden, 2 absent), and its caption in
`captions.json`. Images without parsing show parts of a body only and are left out. The points have numbers, no names.
Where there are keypoint files, the vocabulary ends with `person`: an image with points has one such object, all its parsed
pixels, to which they belong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasetdm.errors import DataError
from datasetdm.readers.maps import Palette
from datasetdm.readers.places import files_in, folder_of, images_in, json_of, text_of
from datasetdm.readers.regions import Region, instances
from datasetdm.readers.source import FilesSource, Item
from datasetdm.records import BACKGROUND, Annotations, Keypoints, Labels, SemanticMap, Skeleton
from datasetdm.records.objects import encode_runs

LAYOUT = """\
ROOT/
  images/NAME.jpg
  segm/NAME_segm.png             class per pixel
  keypoints/keypoints_loc.txt    NAME.jpg x y ... (21 points); optional
  keypoints/keypoints_vis.txt    NAME.jpg v ... (0 seen, 1 hidden, 2 absent); optional
  captions.json                  {"NAME.jpg": "caption"}; optional
"""

CLASSES = (
    BACKGROUND, "top", "outer", "skirt", "dress", "pants", "leggings", "headwear", "eyeglass", "neckwear", "belt",
    "footwear", "bag", "hair", "face", "skin", "ring", "wrist wearing", "socks", "gloves", "necklace", "rompers",
    "earrings", "tie",
)  # fmt: skip
PERSON = "person"
POINTS = tuple(f"point {i}" for i in range(1, 22))


class DeepFashionSource(FilesSource):
    """See the module."""

    _palette = Palette({i: i for i in range(len(CLASSES))})

    def __init__(self, path: str, images: Path | None = None):
        root = Path(path)
        images, parsing = images or folder_of(root, "images", "image"), folder_of(root, "segm", "parsing")
        captions = _captions(root / "captions.json")
        named = {p.stem: p for p in images_in(images)}
        maps = {p.stem.removesuffix("_segm"): p for p in files_in(parsing, ".png") if p.stem.endswith("_segm")}
        both = sorted(set(named) & set(maps))
        if not both:
            raise DataError("no image has a parsing", where=parsing, expected="NAME_segm.png for images/NAME.jpg")
        self.items = [Item(n, named[n], {"mask": maps[n]}, captions.get(named[n].name)) for n in both]
        self.orphan_errors = [
            DataError("the parsing has no image", where=maps[n], expected=f"an image in {images}")
            for n in sorted(set(maps) - set(named))
        ]
        self._places, self._seen = (_lines(root / "keypoints" / f"keypoints_{k}.txt") for k in ("loc", "vis"))
        pointed = bool(self._places or self._seen)
        self.labels = Labels((*CLASSES, PERSON), skeletons={PERSON: Skeleton(POINTS)}) if pointed else Labels(CLASSES)

    def check(self, index: int) -> None:
        """Files are there, and the points can be read."""
        super().check(index)
        self._points(self.items[index])

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """The semantic map, and the person with its points where they are known."""
        path = item.maps["mask"]
        semantic, points = SemanticMap(self._palette.ids(path, path, size)), self._points(item)
        body = semantic.ids != CLASSES.index(BACKGROUND)
        if points is None or not body.any():
            return Annotations(semantic)
        return Annotations(
            semantic, instances([Region(encode_runs(body), self.labels.index[PERSON])], size), keypoints=points
        )

    def _points(self, item: Item) -> Keypoints | None:
        name = item.image.name
        if name not in self._places and name not in self._seen:
            return None
        where = f"the keypoints of {name}"
        try:
            xy = np.array(self._places.get(name, ()), np.float64).reshape(len(POINTS), 2)
            states = np.array(self._seen.get(name, ()), np.float64).reshape(len(POINTS))
        except ValueError as e:
            raise DataError("the points are no numbers, or not 21", where=where, expected="42 and 21 numbers") from e
        if not np.isfinite(xy).all() or not np.isin(states, (0, 1, 2)).all():
            raise DataError("a point is not finite or its visibility unknown", where=where, expected="0, 1 or 2")
        visible = np.where((states == 2) | (xy < 0).any(-1), 0, 2 - states).astype(np.uint8)
        return Keypoints(np.where(visible[:, None] > 0, xy, 0)[None].astype(np.float32), visible[None], (POINTS,))


def _captions(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    content = json_of(path, "file names with captions")
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise DataError("the file holds no captions", where=path, expected='{"NAME.jpg": "caption"}')
    return content


def _lines(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    rows = [line.split() for line in text_of(path).splitlines() if line.strip()]
    found = {row[0]: row[1:] for row in rows}
    if len(found) < len(rows):
        raise DataError("an image occurs twice", where=path, expected="one line per image")
    return found
