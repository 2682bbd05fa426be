"""COCO's annotation files, parsed and checked. What is wrong is kept by image, so that one can be skipped.

Polygons are checked all at once in NumPy; only those that fail are looked at one by one, to say what is wrong with them.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.errors import DataError
from datasetdm.io.codecs import MAX_PIXELS
from datasetdm.readers.coco_shapes import (
    MARGIN,
    Size,
    check_box,
    check_outline,
    check_points,
    check_polygons,
    check_rle,
    outlines_good,
    united_rle,
)
from datasetdm.readers.places import SUFFIXES, inside, json_of
from datasetdm.records import Skeleton

CHUNK = 1_000_000
"""Numbers of polygons that are checked at once."""


FIRST = 1000
"""Annotations that are searched for keypoints without names; such points of later ones are an error."""


class CocoFile:
    """An annotation file.

    images: as they stand, with `file_name`. annotations: by the image's place in `images`. faults: by the same, what is
    wrong first. stems_differ: the file names do without their suffixes. orphan_errors: faults that belong to no image.
    skeletons: by category id. notes: what was read leniently.

    Args:
        rewrite: what an `images` entry is taken for. segments: annotations are panoptic, for their reader to check.
        boxes: an annotation may have a box and no segmentation.
        size_of: the (height, width) of an image by its name, for entries that do not say it.

    Raises:
        DataError: no JSON, no images, or categories that cannot be read: what no image can be read without.
    """

    def __init__(
        self,
        path: Path,
        rewrite: Callable[[Any], Any] | None = None,
        segments: bool = False,
        boxes: bool = True,
        size_of: Callable[[str], Size] | None = None,
    ):
        self.path, self._boxes, self._size_of = path, boxes, size_of
        with _no_collection():
            content = json_of(path, "a COCO annotation file", ("images", "annotations", "categories"))
            self.images: list[dict[str, Any]] = (
                [rewrite(i) for i in content["images"]] if rewrite else content["images"]
            )
            self.categories = [self._category(c, n) for n, c in enumerate(content["categories"])]
            self.faults: dict[int, DataError] = {}
            self.orphan_errors: list[DataError] = []
            self.notes: list[str] = []
            self._flat_parts = self._leaving = self._lost_points = 0
            if not self.categories:
                raise DataError("the label set is empty", where=f"{path}, categories", expected="at least one category")
            if not self.images:
                raise DataError("there are no images", where=f"{path}, images", expected="at least one image")
            if not content["annotations"]:
                raise DataError(
                    f"none of the {len(self.images)} images has an annotation",
                    where=f"{path}, annotations",
                    expected="at least one",
                    remedy="name another file; images without labels are read as images:DIR",
                )
            self._unique([c["id"] for c in self.categories], "category id")
            self._drop_headings(content["annotations"])
            self._name_points(content["annotations"])
            self.skeletons = {c["id"]: self._skeleton(c) for c in self.categories if c.get("keypoints")}
            self._points = {c["id"]: len(c.get("keypoints") or ()) for c in self.categories}
            self._check_images()
            names = self.names
            self.stems_differ = len({n.rpartition(".")[0] for n in names}) == len(names)
            self.annotations: list[list[dict[str, Any]]] = [[] for _ in self.images]
            self._check_annotations(content["annotations"], segments)

    def _unique(self, values: Sequence[Any], kind: str) -> None:
        for value, count in Counter(values).items():
            if count > 1:
                raise DataError(f"{kind} {value!r} occurs twice", where=self.path, expected=f"every {kind} once")

    def _fault(self, place: int, error: DataError, what: str) -> None:
        error.where = error.where or f"{self.path}, {what}"
        self.faults.setdefault(place, error)

    # ------------------------------------------------------------------ images and categories
    def _check_images(self) -> None:
        for n, image in enumerate(self.images):
            try:
                _check_image(image, self._size_of)
            except DataError as e:
                self._fault(n, e, f"images[{n}]")
        good = [n for n in range(len(self.images)) if n not in self.faults]
        for key, kind in (("id", "image id"), ("file_name", "file name")):
            counted = Counter([self.images[n][key] for n in good])
            for n in good if len(counted) < len(good) else ():
                if counted[value := self.images[n][key]] > 1:
                    error = DataError(f"{kind} {value!r} occurs twice", expected=f"every {kind} once")
                    self._fault(n, error, f"images[{n}]")
        self._place: dict[Any, int] = {}
        for n, image in enumerate(self.images):
            if isinstance(image, dict) and is_id(image.get("id")):
                self._place.setdefault(image["id"], n)

    def _category(self, category: Any, n: int) -> dict[str, Any]:
        ok = isinstance(category, dict) and is_id(category.get("id"))
        if ok:
            category["id"] = id_of(category["id"])
        if ok and type(category.get("name")) is int:
            category["name"] = str(category["name"])
        if not ok or not isinstance(category.get("name"), str) or not category["name"].strip():
            raise DataError("a category has no id or name", where=f"{self.path}, categories[{n}]", expected="id, name")
        return category

    def _skeleton(self, category: dict[str, Any]) -> Skeleton:
        """COCO counts points from 1; a skeleton with a 0 counts from 0. Edges that join no two points are left out."""
        where = f"{self.path}, category {category['name']!r}"
        points, joined = category["keypoints"], category.get("skeleton") or []
        if not isinstance(points, list) or not all(isinstance(p, str) for p in points):
            raise DataError("the keypoints have no names", where=where, expected="a list of names")
        pairs = joined if isinstance(joined, list) else [joined]
        whole = [e for e in pairs if isinstance(e, list) and len(e) == 2 and all(type(i) is int for i in e)]
        first = 0 if any(0 in e for e in whole) else 1
        good = [(a - first, b - first) for a, b in whole if {a - first, b - first} <= {*range(len(points))} and a != b]
        if len(good) < len(pairs):
            self.notes.append(
                f"{len(pairs) - len(good)} of {len(pairs)} edges of a skeleton join no two points ({where})"
            )
        return Skeleton(tuple(points), tuple(good))

    def _name_points(self, annotations: Sequence[Any]) -> None:
        """Categories whose objects, among the first, have keypoints that the file does not name: they get numbers."""
        nameless = {c["id"]: c for c in self.categories if not c.get("keypoints")}
        for a in annotations[:FIRST] if nameless else ():
            if not isinstance(a, dict) or not isinstance(points := a.get("keypoints"), list) or not points:
                continue
            category = nameless.pop(id_of(a["category_id"]), None) if is_id(a.get("category_id")) else None
            if category is not None:
                category["keypoints"] = [f"point{i}" for i in range(len(points) // 3)]
                self.notes.append(
                    f"category {category['name']!r} names no keypoints: they are called point0, point1, ..."
                )

    def _drop_headings(self, annotations: list[Any]) -> None:
        """Roboflow lists the project as a category: its name is the others' supercategory, and no object is of it."""
        above = {c.get("supercategory") for c in self.categories if isinstance(c.get("supercategory"), str)}
        headings = [c for c in self.categories if c.get("supercategory") == "none" and c["name"] in above]
        if not headings or len(headings) == len(self.categories):
            return
        used = {id_of(a.get("category_id")) for a in annotations if isinstance(a, dict) and is_id(a.get("category_id"))}
        for category in (c for c in headings if c["id"] not in used):
            self.categories.remove(category)
            self.notes.append(f"category {category['name']!r} is the name of the others' group, and no label")

    # ------------------------------------------------------------------ annotations
    @property
    def names(self) -> list[str]:
        """File names of the images that are not faulty."""
        return [i["file_name"] for n, i in enumerate(self.images) if n not in self.faults]

    def _check_annotations(self, annotations: list[Any], segments: bool) -> None:
        polygons: list[list[Any]] = []
        owners: list[tuple[int, dict[str, Any]]] = []
        numbers = 0
        sizes = [(0, 0) if n in self.faults else (i["height"], i["width"]) for n, i in enumerate(self.images)]
        for n, a in enumerate(annotations):
            try:
                place = self._place_of(a)
            except DataError as e:
                e.where = f"{self.path}, annotation {a.get('id', f'[{n}]') if isinstance(a, dict) else f'[{n}]'}"
                self.orphan_errors.append(e)
                continue
            self.annotations[place].append(a)
            if segments or place in self.faults:
                continue
            try:
                self._check_annotation(a, sizes[place])
                shape = a.get("segmentation")
                if isinstance(shape, list) and len(shape) >= 6 and not isinstance(shape[0], (list, dict)):
                    shape = a["segmentation"] = [shape]  # one polygon without the list around it
                if not shape and self._boxes and "bbox" in a:
                    self._leaving += check_box(a["bbox"], sizes[place])
                elif isinstance(shape, dict):
                    check_rle(shape, sizes[place])
                elif isinstance(shape, list) and shape and isinstance(shape[0], dict):
                    a["segmentation"] = united_rle(shape, sizes[place])
                else:
                    check_polygons(shape)
                    if any(len(p) < 6 for p in shape):
                        self._flat_parts += len(shape)
                        shape = a["segmentation"] = [p for p in shape if len(p) >= 6]
                        self._flat_parts -= len(shape)
                    polygons += shape
                    owners += [(place, a)] * len(shape)
                    numbers += sum(map(len, shape))
            except DataError as e:
                self._fault(place, e, _name(a))
            if numbers > CHUNK:
                self._check_outlines(polygons, owners, sizes)
                polygons, owners, numbers = [], [], 0
        self._check_outlines(polygons, owners, sizes)
        self._check_ids()
        for count, what in (
            (self._flat_parts, "parts of outlines with fewer than three points, left out"),
            (self._leaving, f"outlines and boxes that leave their image by up to {MARGIN:.0%}, clipped"),
            (self._lost_points, "visible keypoints outside their image, taken for absent or moved to its edge"),
        ):
            if count:
                self.notes.append(f"{what}: {count}")

    def _place_of(self, a: Any) -> int:
        """Of the image that the annotation names."""
        if not isinstance(a, dict) or "image_id" not in a:
            raise DataError("an annotation has no image_id", expected="image_id, category_id, segmentation")
        if type(a["image_id"]) is not int:
            if not is_id(a["image_id"]):
                raise DataError("image_id is of the wrong kind", expected="a number or a text")
            a["image_id"] = id_of(a["image_id"])
        place = self._place.get(a["image_id"])
        if place is None:
            raise DataError(f"it names image {a['image_id']}, which is not in the file", expected="an image's id")
        return place

    def _check_annotation(self, a: dict[str, Any], size: Size) -> None:
        if "category_id" not in a or not ("segmentation" in a or (self._boxes and "bbox" in a)):
            missing = ", ".join(k for k in ("category_id", "segmentation") if k not in a)
            raise DataError(f"an annotation has no {missing}", expected="image_id, category_id, segmentation or bbox")
        if type(a["category_id"]) is not int:
            if not is_id(a["category_id"]):
                raise DataError("category_id is of the wrong kind", expected="a number or a text")
            a["category_id"] = id_of(a["category_id"])
        points = self._points.get(a["category_id"])
        if points is None:
            known = ", ".join(sorted(map(str, self._points))[:12])
            raise DataError(
                f"it names category {a['category_id']}, which is not in the file", expected=f"one of: {known}"
            )
        if (a.get("iscrowd") or 0) not in (0, 1):
            raise DataError(f"iscrowd is {a['iscrowd']!r}", expected="0 or 1")
        if (found := a.get("keypoints")) is None:
            a.pop("keypoints", None)
        else:
            self._lost_points += check_points(found, 3 * points, size)

    def _check_outlines(
        self, polygons: Sequence[list[Any]], owners: Sequence[tuple[int, dict[str, Any]]], sizes: Sequence[Size]
    ) -> None:
        """Every polygon is of finite numbers, inside its image, and has an area."""
        if not polygons:
            return
        limits = np.array([sizes[place] for place, _ in owners])
        for n in np.flatnonzero(~outlines_good(polygons, limits)).tolist():
            place, a = owners[n]
            try:
                self._leaving += check_outline(polygons[n], a["segmentation"], sizes[place])
            except DataError as e:
                self._fault(place, e, _name(a))

    def _check_ids(self) -> None:
        """No two annotations have one id; where two have, neither image is trusted."""
        own = [[a["id"] for a in group if isinstance(a.get("id"), (int, str))] for group in self.annotations]
        counted = Counter(chain.from_iterable(own))
        if len(counted) == sum(map(len, own)):
            return
        for place, ids in enumerate(own):
            for twice in [i for i in ids if counted[i] > 1][:1]:
                error = DataError(f"annotation id {twice!r} occurs twice", expected="every annotation id once")
                self._fault(place, error, f"image {self.images[place]['id']}")


@contextmanager
def _no_collection() -> Generator[None]:
    """Millions of small containers that all stay: looking for garbage among them takes as long as parsing them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _name(a: dict[str, Any]) -> str:
    return f"annotation {a.get('id')} of image {a['image_id']}"


def is_id(value: Any) -> bool:
    """Whether a value can be an id: a whole number (also as a float) or a text."""
    return type(value) in (int, str) or (type(value) is float and value.is_integer())


def id_of(value: Any) -> int | str:
    """An id in one form: 5, 5.0 and "5" are the same."""
    if isinstance(value, str):
        return (
            int(value)
            if value.isascii() and value.isdecimal() and len(value) < 19 and str(int(value)) == value
            else value
        )
    return int(value)


def _check_image(image: Any, size_of: Callable[[str], Size] | None) -> None:
    keys = ("id", "file_name", "width", "height")
    if isinstance(image, dict) and isinstance(name := image.get("file_name"), str):
        image["file_name"] = name = _inside(name)
        if size_of and not (image.get("width") and image.get("height")):
            inside(Path(), name, None)
            image["height"], image["width"] = size_of(name)
        for side in ("width", "height"):
            if type(value := image.get(side)) is float and value.is_integer():
                image[side] = int(value)
    missing = [k for k in keys if not isinstance(image, dict) or k not in image]
    if missing:
        raise DataError(f"an image has no {', '.join(missing)}", expected=", ".join(keys))
    texts = isinstance(image["file_name"], str) and isinstance(image.get("caption", ""), str)
    if not texts or not is_id(image["id"]):
        raise DataError("id, file_name or caption is of the wrong kind", expected="number or text, text, text")
    image["id"] = id_of(image["id"])
    inside(Path(), image["file_name"], None)
    sides = (image["width"], image["height"])
    if not all(type(n) is int and 0 < n <= MAX_PIXELS for n in sides) or sides[0] * sides[1] > MAX_PIXELS:
        shown = "x".join(str(n)[:12] for n in sides)
        raise DataError(f"size {shown}", expected=f"positive whole numbers, at most {MAX_PIXELS // 10**6} MP")


def _inside(name: str) -> str:
    """A file's name with slashes. Of a place on somebody else's disk, or above the folder, the last part."""
    name = name.replace("\\", "/").removeprefix("./")
    elsewhere = name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:/", name)
    last = name.rpartition("/")[2]
    return last if elsewhere and Path(last).suffix.lower() in SUFFIXES else name
