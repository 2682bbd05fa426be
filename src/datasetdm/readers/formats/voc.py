"""Pascal VOC 2012: `voc:ROOT@SPLIT`, the images that `ImageSets/Segmentation/SPLIT.txt` (else `Main`) lists; default train.

Masks (`SegmentationClass`, `SegmentationObject`) are PNGs of indices or of VOC's colours; 255 is void and ignored. An image
without an object mask has the boxes of `Annotations/NAME.xml` instead, filled (`Instances.boxed`). The classes are VOC's 20,
or those of `ROOT/labelmap.txt` (lines `name:r,g,b`), or, where boxes name others, the names in the XML files.

Any list in `ImageSets/Segmentation` is a split, so a long-tailed one is a list of one's own. `SPLIT+seen` and `SPLIT+unseen`
are the zero-shot halves (15 and 5 classes): the other half's pixels are ignored and its objects left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from datasetdm.errors import DataError
from datasetdm.io.codecs import image_size
from datasetdm.readers.coco_shapes import leaves
from datasetdm.readers.legend import voc_colours, voc_labelmap
from datasetdm.readers.maps import Colour, Palette
from datasetdm.readers.places import (
    SUFFIXES,
    bytes_of,
    distinct,
    file_named,
    folder_of,
    image_named,
    images_in,
    inside,
    text_of,
    with_option,
)
from datasetdm.readers.regions import Region, box_runs, covers, instances, value_runs, with_background
from datasetdm.readers.source import FilesSource, Item
from datasetdm.records import BACKGROUND, IGNORE, Annotations, Instances, Labels, SemanticMap
from datasetdm.records.objects import decode_runs

LAYOUT = """\
ROOT/
  JPEGImages/NAME.jpg
  ImageSets/Segmentation/SPLIT.txt   one NAME per line (or ImageSets/Main)
  SegmentationClass/NAME.png         class per pixel, 255 void; or boxes only:
  SegmentationObject/NAME.png        object per pixel; optional
  Annotations/NAME.xml               boxes
  labelmap.txt                       name:r,g,b per line, for other classes than VOC's; optional
"""

CLASSES = {
    "aeroplane": ("airplane",), "bicycle": (), "bird": (), "boat": (), "bottle": (), "bus": (), "car": (), "cat": (),
    "chair": (), "cow": (), "diningtable": ("dining table", "table"), "dog": (), "horse": (),
    "motorbike": ("motorcycle",), "person": ("people",), "pottedplant": ("potted plant",), "sheep": (), "sofa": ("couch",),
    "train": (), "tvmonitor": ("television", "tv", "monitor"),
}  # fmt: skip
"""VOC's classes and other words for them; index 0 is `background`."""

HELD_OUT_LABELS = {"pottedplant", "sheep", "sofa", "train", "tvmonitor"}
"""The last five in alphabetical order (the zero-shot split of Xian et al., SPNet, CVPR 2019)."""

VOID = (224, 224, 192)
"""The colour of value 255."""

Box = tuple[str, float, float, float, float]
"""A class and the edges left, top, right, bottom in pixels."""


class VocSource(FilesSource):
    """See the module."""

    def __init__(self, path: str, images: Path | None = None):
        self.root, option = with_option(path)
        self._split, _, half = option.partition("+")
        if half not in ("", "seen", "unseen"):
            raise DataError(f"there is no half {half!r}", where=path, expected="SPLIT, SPLIT+seen or SPLIT+unseen")
        images = images or folder_of(self.root, "JPEGImages", "images")
        self.items = [self._item(name, images) for name in self._names(images)]
        names, values, colours = self._legend()
        synonyms = tuple(CLASSES.get(n, ()) for n in names)
        kept = [n for n in names if not half or n == BACKGROUND or (n in HELD_OUT_LABELS) == (half == "unseen")]
        self.labels = Labels(tuple(kept), tuple(s for n, s in zip(names, synonyms, strict=True) if n in kept))
        self._label_of = {n: kept.index(n) if n in kept else IGNORE for n in names}
        self._palette = Palette(
            {v: self._label_of.get(n, IGNORE) for v, n in values.items()},
            {VOID: IGNORE} | {c: self._label_of.get(n, IGNORE) for c, n in colours.items()},
        )

    # ------------------------------------------------------------------ files
    def _names(self, images: Path) -> list[str]:
        lists = self.root / "ImageSets"
        split = self._split or "train"
        for kind in ("Segmentation", "Main"):
            path = inside(lists / kind, f"{split}.txt", self.root)
            if path.is_file():
                lines = [line.strip() for line in text_of(path).split("\n") if line.strip() and line.strip()[0] != "#"]
                names = [name for line in lines if (name := _listed(line))]
                if not names:
                    raise DataError("the split lists no images", where=path, expected="a name a line")
                distinct(names, path)
                return names
        if lists.is_dir() or self._split:
            known = sorted({p.stem for k in ("Segmentation", "Main") for p in (lists / k).glob("*.txt")})
            raise DataError(f"there is no split {split!r}", where=lists, expected=", ".join(known[:20]) or "SPLIT.txt")
        names = [p.relative_to(images).with_suffix("").as_posix() for p in images_in(images)]
        distinct(names, images)
        return names

    def _item(self, name: str, images: Path) -> Item:
        base = inside(images, name, self.root)
        image = image_named(base.parent, base.name)
        folders = {k: self.root / f"Segmentation{k.title()}" for k in ("class", "object")}
        maps = {k: file_named(folder, name, (".png", *SUFFIXES)) for k, folder in folders.items()}
        return Item(name, image, {k: p for k, p in maps.items() if p.is_file()})

    def _legend(self) -> tuple[list[str], dict[int, str], dict[Colour, str]]:
        """The classes, and which of them values and colours mean; of a labelmap only colours are known."""
        if (path := self.root / "labelmap.txt").is_file():
            colours = voc_labelmap(path)
            names = [n for n in dict.fromkeys(colours.values()) if n != "ignored"]
            return list(with_background(names)), {}, colours
        names = [BACKGROUND, *CLASSES]
        if not any(item.maps for item in self.items):
            found = sorted({box[0] for item in self.items for box in self._try_boxes(item)})
            names = names if set(found) <= {*names} else list(with_background(found))
        return names, dict(enumerate(names)) | {255: ""}, dict(zip(voc_colours(), names, strict=False))

    # ------------------------------------------------------------------ labels
    def check(self, index: int) -> None:
        """Files are there, masks are as large as their image, and boxes can be read."""
        super().check(index)
        item = self.items[index]
        if "class" not in item.maps and not self._xml(item).is_file():
            raise DataError(
                "the image has neither a mask nor boxes",
                where=item.image,
                expected=f"{self.root / 'SegmentationClass' / item.key}.png or {self._xml(item)}",
            )
        if "object" not in item.maps and self._xml(item).is_file():
            self._boxes(item)

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """The semantic map and the objects of masks; else filled boxes."""
        semantic = None
        if "class" in item.maps:
            semantic = SemanticMap(self._palette.ids(item.maps["class"], item.maps["class"], size))
            if "object" in item.maps:
                return Annotations(semantic, self._objects(item, semantic.ids, size))
        if not self._xml(item).is_file():
            return Annotations(semantic)
        kept = [(i, edges) for n, *edges in self._boxes(item) if (i := self._label_of[n]) != IGNORE]
        boxes = [(a, b, c, d) for _, (a, b, c, d) in kept]
        objects = [Region(box_runs(*b, size), i) for b, (i, _) in zip(boxes, kept, strict=True)]
        if not all(covers(r.runs) for r in objects):
            raise DataError("a box covers no pixel", where=self._xml(item), expected="a box inside the image")
        return Annotations(semantic, instances(objects, size, boxed=True, boxes=boxes))

    def _objects(self, item: Item, classes: np.ndarray, size: tuple[int, int]) -> Instances:
        where = item.maps["object"]
        numbers = _OBJECTS.ids(where, where, size)
        objects = []
        for number, runs in value_runs(numbers).items():
            if number in (0, IGNORE):
                continue
            found = [i for i in np.unique(classes[decode_runs(runs, size)]).tolist() if i != IGNORE]
            if not found:
                continue  # void, or a class that was left out
            if len(found) > 1 or self.labels.names[found[0]] == BACKGROUND:
                names = ", ".join(self.labels.names[i] for i in found)
                raise DataError(f"object {number} has pixels of: {names}", where=where, expected="one class an object")
            objects.append(Region(runs, found[0]))
        return instances(objects, size)

    def _xml(self, item: Item) -> Path:
        return file_named(self.root / "Annotations", item.key, (".xml",))

    def _boxes(self, item: Item) -> list[Box]:
        path = self._xml(item)
        boxes = read_boxes(path, image_size(item.image, item.image))
        for name, *_ in boxes:
            if name not in self._label_of:
                known = ", ".join(self._label_of)
                raise DataError(
                    f"unknown class {name!r}",
                    where=path,
                    expected=f"one of: {known}",
                    remedy=f"list all classes in {self.root / 'labelmap.txt'}",
                )
        return boxes

    def _try_boxes(self, item: Item) -> Sequence[Box]:
        """What can be read; what cannot is said when the samples are checked."""
        try:
            return read_boxes(self._xml(item), None)
        except DataError:
            return ()


_OBJECTS = Palette(
    {i: i for i in range(255)} | {255: IGNORE}, {c: i for i, c in enumerate(voc_colours())} | {VOID: IGNORE}
)


def read_boxes(path: Path, size: tuple[int, int] | None) -> list[Box]:
    """The boxes of an XML file. VOC counts pixels from 1 and both edges belong to the box.

    Raises:
        DataError: no XML, entities in it, no numbers, or another image size than `size` (height, width).
    """
    try:
        root = ElementTree.fromstring(bytes_of(path, "VOC's XML"), forbid_dtd=True)  # which knows declared encodings
    except (ElementTree.ParseError, DefusedXmlException, ValueError, LookupError) as e:
        raise DataError(f"the file cannot be read: {e}", where=path, expected="VOC's XML, without entities") from e
    stated = tuple((root.findtext(f"size/{k}") or "").strip() for k in ("height", "width"))
    numbers = tuple(_number(text, path) for text in stated if text)
    if size and len(numbers) == 2 and any(numbers) and numbers != size:
        what = f"the image is said to have {stated[1]}x{stated[0]} pixels"
        raise DataError(what, where=path, expected=f"{size[1]}x{size[0]}, as it has")
    boxes = []
    for n, element in enumerate(root.iter("object"), 1):
        edges = [element.findtext(f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")]
        name = (element.findtext("name") or "").strip()
        if not name or None in edges:
            raise DataError(f"object {n} has no name or bndbox", where=path, expected="name; xmin, ymin, xmax, ymax")
        left, top, right, bottom = (_number(str(e), path) for e in edges)
        if not (left <= right and top <= bottom):
            raise DataError(f"the box of object {n} has no area", where=path, expected="xmin <= xmax and ymin <= ymax")
        if size:
            try:
                leaves((left, top, right, bottom), size)
            except DataError as e:
                e.where = f"{path}, object {n}"
                raise
        boxes.append((name, left - 1, top - 1, right, bottom))
    return boxes


def _listed(line: str) -> str | None:
    """The image's name of a line of a split; None for an image without the class of the list (NAME -1)."""
    name, _, flag = line.rpartition(" ")
    return (None if flag == "-1" else name.strip()) if name and flag in ("-1", "0", "1") else line


def _number(text: str, path: Path) -> float:
    try:
        value = float(text)
    except ValueError as e:
        raise DataError(f"{text[:40]!r} is no number", where=path, expected="pixels") from e
    if not abs(value) < 1e9:
        raise DataError(f"{text[:40]!r} is not finite", where=path, expected="pixels")
    return value
