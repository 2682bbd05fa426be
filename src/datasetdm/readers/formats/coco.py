"""COCO annotations: instances, keypoints and semantic regions, as polygons or run lengths.

Crowd regions are ignored pixels of the semantic map and rows of `Instances.crowd`; objects too small to cover a pixel are
left out.
Captions come from the images' own entries, or from `captions*.json` beside `instances*.json`, `*keypoints*.json` or
`panoptic*.json`, the first of each image. Everything that can be wrong is checked when the file is opened.

Where an object of an image has a `bbox` and no segmentation, the image's objects are boxes, filled (`Instances.boxed`),
and nothing is known of its pixels; so it is in all images of a file without segmentations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datasetdm.errors import DataError
from datasetdm.io.codecs import image_size, polygon_runs, read_image, rle_counts
from datasetdm.readers.coco_file import CocoFile, id_of, is_id
from datasetdm.readers.places import json_of, the_file
from datasetdm.readers.regions import (
    Edges,
    Region,
    box_runs,
    clip_points,
    covers,
    from_regions,
    instances,
    label_name,
    with_background,
)
from datasetdm.readers.source import Source, caption_prompt, other_size
from datasetdm.records import IGNORE, Annotations, Keypoints, Labels, MaskStack, Provenance, Sample
from datasetdm.records.objects import Runs

LAYOUT = """\
ROOT/
  annotations/instances_SPLIT.json   images, annotations, categories
  annotations/captions_SPLIT.json    optional
  images/NAME.jpg                    or SPLIT/NAME.jpg, or beside the JSON file, or --images DIR
"""


class CocoSource(Source):
    """`coco:FILE.json`; images lie in `images`, beside the file, or where COCO's own folders have them."""

    FILES: ClassVar[tuple[str, ...]] = (
        "instances*.json", "annotations/instances*.json", "*.coco.json", "*/*.coco.json", "*.json", "annotations/*.json",
    )  # fmt: skip
    """Where a folder has its annotation file; the first pattern that fits decides."""

    def __init__(self, path: str, images: Path | None = None):
        self.path = the_file(Path(path), self.FILES, "instances_SPLIT.json or _annotations.coco.json")
        self._images = images
        self.file = self._open(self.path)
        self.orphan_errors, self.notes = self.file.orphan_errors, self.file.notes
        self.labels = self._labels()
        index = self.labels.index
        self._label_of = {c["id"]: index[w] for c in self.file.categories if (w := self._word(c)) in index}
        found = [bool(a.get("segmentation")) for own in self.file.annotations for a in own]
        self._boxes = bool(found) and not any(found)
        self._captions = captions_beside(self.path)
        self._folder = find_images(self.path, self.file.names, images)

    def __len__(self) -> int:
        return len(self.file.images)

    def check(self, index: int) -> None:
        """Its entries were good, and the image is there in the size that they say."""
        if fault := self.file.faults.get(index):
            raise fault
        check_image(self._folder, self.file.images[index], self.path)

    def __getitem__(self, index: int) -> Sample:
        self.check(index)
        image = self.file.images[index]
        where = f"{self.path}, image {image['id']} ({image['file_name']})"
        file = self._folder / image["file_name"]
        pixels = read_image(file, where)
        if pixels.shape[:2] != (size := (image["height"], image["width"])):
            raise other_size(where, size, pixels.shape[:2])
        annotations = self.file.annotations[index]
        named = {self._label_of.get(a["category_id"], IGNORE) for a in annotations if not a.get("iscrowd")}
        present = tuple(self.labels.names[i] for i in sorted(named - {IGNORE}))
        caption = image.get("caption") or self._captions.get(image["id"])
        key = key_of(image["file_name"], self.file)
        records = self._records(annotations, pixels.shape[:2])
        return Sample(
            key, pixels, self.labels, caption_prompt(caption, present),
            **records.fields(), provenance=Provenance(details=self._details(image)), encoded=file,
        )  # fmt: skip

    # ------------------------------------------------------------------ what LVIS has otherwise
    def _open(self, path: Path) -> CocoFile:
        return CocoFile(path, size_of=self._size_of)

    def _size_of(self, name: str) -> tuple[int, int]:
        return size_of(self.path, name, self._images)

    def _word(self, category: dict[str, Any]) -> str:
        """A category as a label."""
        return label_name(category["name"])

    def _labels(self) -> Labels:
        skeletons = {self._word(c): self.file.skeletons[c["id"]] for c in self.file.categories if c.get("keypoints")}
        return Labels(with_background([self._word(c) for c in self.file.categories]), skeletons=skeletons)

    def _records(self, annotations: Sequence[dict[str, Any]], size: tuple[int, int]) -> Annotations:
        if self._boxes or any(not a.get("segmentation") for a in annotations):
            return self._boxed(annotations, size)
        regions = [self._region(a, mask_of(a, size)) for a in annotations]
        records = from_regions(regions, self.labels, size)
        if not self.labels.skeletons:
            return records
        objects = [a for a, r in zip(annotations, regions, strict=True) if covers(r.runs)]
        return replace(records, keypoints=self._keypoints(objects, size))

    def _region(self, a: dict[str, Any], runs: Runs) -> Region:
        return Region(runs, self._label_of.get(a["category_id"], IGNORE), bool(a.get("iscrowd")))

    def _boxed(self, annotations: Sequence[dict[str, Any]], size: tuple[int, int]) -> Annotations:
        """Of an image with an object that has a box only: every object's box, filled, and no semantic map."""
        boxes = [_box_of(a, size) for a in annotations]
        regions = [self._region(a, box_runs(*b, size)) for a, b in zip(annotations, boxes, strict=True)]
        if flat := next((a for a, r in zip(annotations, regions, strict=True) if not covers(r.runs)), None):
            where = f"{self.path}, annotation {flat.get('id')}"
            raise DataError("a box covers no pixel", where=where, expected="an area, or no annotation")
        objects = instances(regions, size, boxed=True, boxes=boxes)
        points = self._keypoints(annotations, size) if self.labels.skeletons else None
        return Annotations(instances=objects, keypoints=points)

    def _details(self, image: dict[str, Any]) -> dict[str, Any]:
        return {"coco_image_id": image["id"]}

    def _keypoints(self, objects: Sequence[dict[str, Any]], size: tuple[int, int]) -> Keypoints:
        """One row an object; objects without points, or of categories that have none, have no names."""
        skeletons = [self.file.skeletons.get(a["category_id"]) if "keypoints" in a else None for a in objects]
        width = max((len(s.points) for s in skeletons if s), default=0)
        values = np.zeros((len(objects), width, 3), np.float32)
        for row, skeleton, a in zip(values, skeletons, objects, strict=True):
            if skeleton:
                row[: len(skeleton.points)] = np.array(a["keypoints"], np.float32).reshape(-1, 3)
        values = clip_points(values, size)
        names = tuple(s.points if s else () for s in skeletons)
        return Keypoints(values[..., :2], values[..., 2].astype(np.uint8), names)


def key_of(name: str, file: CocoFile) -> str:
    """An image's file name without its suffix, where that is enough to tell all apart."""
    return str(Path(name).with_suffix("")) if file.stems_differ else name


def mask_of(annotation: dict[str, Any], size: tuple[int, int]) -> Runs:
    """The pixels of an annotation's polygons or run lengths."""
    shape = annotation["segmentation"]
    return rle_counts(shape["counts"]) if isinstance(shape, dict) else polygon_runs(shape, size)


def _box_of(annotation: dict[str, Any], size: tuple[int, int]) -> Edges:
    """An annotation's box; that of its mask, where it has one."""
    if annotation.get("segmentation"):
        x, y, w, h = MaskStack([mask_of(annotation, size)], size).boxes[0].tolist()
    else:
        x, y, w, h = annotation["bbox"]
    return x, y, x + w, y + h


def find_images(file: Path, names: Sequence[str], images: Path | None) -> Path:
    """The folder that holds the first of the images that is anywhere; `images`, where given."""
    beside, above = file.parent, file.parent.parent
    split = file.stem.rpartition("_")[2]
    tried = (
        [images]
        if images
        else [beside, beside / "images", above / "images", above / split, above / "images" / split, above]
    )
    for folder in tried:
        if not names or any((folder / name).is_file() for name in names[:100]):
            return folder
    raise DataError(
        f"the image {names[0]} is missing",
        where=", ".join(map(str, tried)),
        expected="the images in one of these folders",
        remedy="name their folder with --images DIR",
    )


def size_of(path: Path, name: str, images: Path | None) -> tuple[int, int]:
    """(height, width) of an image that an annotation file names without its size."""
    file = find_images(path, [name], images) / name
    return image_size(file, file)


def check_image(folder: Path, image: dict[str, Any], file: Path) -> None:
    """The image of an `images` entry is there in the size that the entry says."""
    where = f"{file}, image {image['id']}"
    size = image_size(folder / image["file_name"], f"{folder / image['file_name']} ({where})")
    if size != (image["height"], image["width"]):
        raise DataError(
            f"{image['file_name']} has {size[1]}x{size[0]} pixels",
            where=where,
            expected=f"{image['width']}x{image['height']}, as the annotations say",
            remedy="use the images that were annotated; an EXIF rotation must be applied in both or neither",
        )


def captions_beside(path: Path) -> dict[Any, str]:
    """Image id -> its first caption, from the captions file that belongs to an instances or keypoints file."""
    name = re.sub(r"^(instances|person_keypoints|keypoints|panoptic)", "captions", path.name)
    if name == path.name or not (path.parent / name).is_file():
        return {}
    captions: dict[Any, str] = {}
    for row in json_of(path.parent / name, "a COCO captions file", ("annotations",))["annotations"]:
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str) or not is_id(row.get("image_id")):
            raise DataError("a caption has no image_id or text", where=path.parent / name, expected="image_id, caption")
        captions.setdefault(id_of(row["image_id"]), row["caption"].strip())
    return captions
