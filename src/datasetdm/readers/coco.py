"""COCO annotations: instances, keypoints and semantic regions, as polygons or run lengths.

Crowd regions are ignored pixels of the semantic map and no objects. Captions come from the pictures' own entries, or from
`captions*.json` beside `instances*.json` or `*keypoints*.json`, the first of each picture. Everything that can be wrong is
checked when the file is opened, before any work starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.codecs import decode_polygons, decode_rle, image_size, read_image
from datasetdm.errors import DataError
from datasetdm.prompts import describe
from datasetdm.readers.regions import from_regions, with_background
from datasetdm.types import IGNORE, Keypoints, Labels, Prompt, Sample, Skeleton


class CocoReader:
    """`coco:FILE.json`; pictures lie in `images`, beside the file, or where COCO's own folders have them."""

    def __init__(self, path: str, images: Path | None = None):
        self.path = Path(path)
        content = _load(self.path)
        self._images = [self._check_image(i, n) for n, i in enumerate(content["images"])]
        self._check_unique("image id", [i["id"] for i in self._images])
        self._check_unique("file name", [i["file_name"] for i in self._images])
        self._stems_differ = len({Path(i["file_name"]).with_suffix("") for i in self._images}) == len(self._images)
        categories = [self._check_category(c, n) for n, c in enumerate(content["categories"])]
        self._check_unique("category id", [c["id"] for c in categories])
        if not categories:
            raise DataError("the label set is empty", where=self._where("categories"), expected="at least one category")
        if not self._images:
            raise DataError("there are no pictures", where=self._where("images"), expected="at least one image")
        names = with_background([c["name"] for c in categories])
        bones = {c["name"]: self._check_skeleton(c) for c in categories if c.get("keypoints")}
        self.labels = Labels(names, skeletons=bones)
        self._label_of = {c["id"]: names.index(c["name"]) for c in categories}
        self._captions = _captions_beside(self.path)
        self._folder = self._find_images(images)
        self._annotations: dict[Any, list[dict[str, Any]]] = {i["id"]: [] for i in self._images}
        sizes = {i["id"]: (i["height"], i["width"]) for i in self._images}
        for n, annotation in enumerate(content["annotations"]):
            checked = self._check_annotation(annotation, n, sizes)
            self._annotations[checked["image_id"]].append(checked)
        for image in self._images:
            self._check_file(image)

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Sample]:
        for image in self._images:
            yield self._sample(image)

    def _sample(self, image: dict[str, Any]) -> Sample:
        where = f"image {image['id']} ({image['file_name']})"
        pixels = read_image(self._folder / image["file_name"], self._where(where))
        size = pixels.shape[:2]
        regions = [(a, self._mask(a, size)) for a in self._annotations[image["id"]]]
        known = [(m, IGNORE if a.get("iscrowd") else self._label_of[a["category_id"]]) for a, m in regions]
        annotations = from_regions(known, self.labels, size)
        if self.labels.skeletons:
            annotations["keypoints"] = self._keypoints([a for a, m in regions if not a.get("iscrowd") and m.any()])
        objects = {i for _, i in known if i != IGNORE}
        present = tuple(self.labels.names[i] for i in sorted(objects))
        caption = image.get("caption") or self._captions.get(image["id"]) or describe(present)
        prompt = Prompt(caption, present)
        key = str(Path(image["file_name"]).with_suffix("")) if self._stems_differ else image["file_name"]
        return Sample(key, pixels, self.labels, prompt, annotations, {"coco_image_id": image["id"]})

    def _keypoints(self, objects: list[dict[str, Any]]) -> Keypoints:
        """One row an object; objects without points, or of categories that have none, have no names."""
        names = [self.labels.names[self._label_of[a["category_id"]]] for a in objects]
        bones = [
            self.labels.skeletons.get(n) if "keypoints" in a else None for n, a in zip(names, objects, strict=True)
        ]
        width = max((len(b.points) for b in bones if b), default=0)
        values = np.zeros((len(objects), width, 3), np.float32)
        for row, skeleton, a in zip(values, bones, objects, strict=True):
            if skeleton:
                row[: len(skeleton.points)] = np.array(a["keypoints"], np.float32).reshape(-1, 3)
        values[values[..., 2] == 0] = 0
        return Keypoints(values[..., :2], values[..., 2].astype(np.uint8), tuple(b.points if b else () for b in bones))

    @staticmethod
    def _mask(annotation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
        shape = annotation["segmentation"]
        return decode_rle(shape) if isinstance(shape, dict) else decode_polygons(shape, size)

    # ------------------------------------------------------------------ checks
    def _where(self, what: str) -> str:
        return f"{self.path}, {what}"

    def _check_unique(self, kind: str, ids: list[Any]) -> None:
        seen: set[Any] = set()
        for i in ids:
            if i in seen:
                raise DataError(f"{kind} {i!r} occurs twice", where=self.path, expected=f"every {kind} once")
            seen.add(i)

    def _check_image(self, image: Any, n: int) -> dict[str, Any]:
        where = self._where(f"images[{n}]")
        keys = ("id", "file_name", "width", "height")
        missing = [k for k in keys if not isinstance(image, dict) or k not in image]
        if missing:
            raise DataError(f"an image has no {', '.join(missing)}", where=where, expected=", ".join(keys))
        texts = isinstance(image["file_name"], str) and isinstance(image.get("caption", ""), str)
        if not texts or not isinstance(image["id"], (int, str)):
            raise DataError(
                "id, file_name or caption is of the wrong kind", where=where, expected="number or text, text, text"
            )
        name = Path(image["file_name"])
        if name.is_absolute() or ".." in name.parts:
            raise DataError(
                f"file name {image['file_name']!r} leaves the image folder", where=where, expected="a path inside it"
            )
        if not all(isinstance(image[k], int) and image[k] > 0 for k in ("width", "height")):
            raise DataError(f"size {image['width']}x{image['height']}", where=where, expected="positive whole numbers")
        return image

    def _check_category(self, category: Any, n: int) -> dict[str, Any]:
        ok = isinstance(category, dict) and isinstance(category.get("id"), (int, str))
        if not ok or not isinstance(category.get("name"), str) or not category["name"].strip():
            raise DataError("a category has no id or name", where=self._where(f"categories[{n}]"), expected="id, name")
        return category

    def _check_skeleton(self, category: dict[str, Any]) -> Skeleton:
        """COCO counts points from 1."""
        where = self._where(f"category {category['name']!r}")
        try:
            edges = tuple((a - 1, b - 1) for a, b in category.get("skeleton") or ())
            return Skeleton(tuple(category["keypoints"]), edges)
        except (TypeError, ValueError, DataError) as e:
            expected = "names, and pairs of their numbers from 1"
            raise DataError("the keypoints or the skeleton cannot be read", where=where, expected=expected) from e

    def _check_points(self, a: dict[str, Any], where: str) -> None:
        skeleton = self.labels.skeletons.get(self.labels.names[self._label_of[a["category_id"]]])
        wanted, points = 3 * len(skeleton.points) if skeleton else 0, a["keypoints"]
        if not isinstance(points, list) or len(points) != wanted:
            count = len(points) if isinstance(points, list) else "no"
            raise DataError(f"{count} numbers of keypoints", where=where, expected=f"{wanted}: x, y, v of every point")
        if not all(isinstance(v, (int, float)) and abs(v) < 1e9 for v in points):  # nor NaN
            raise DataError("a keypoint holds something that is no finite number", where=where, expected="pixels")
        if not {*points[2::3]} <= {0, 1, 2}:
            raise DataError("a keypoint's visibility is not 0, 1 or 2", where=where, expected="0, 1 or 2")

    def _check_annotation(self, a: Any, n: int, sizes: dict[Any, tuple[int, int]]) -> dict[str, Any]:
        where = self._where(f"annotation {a.get('id', f'[{n}]') if isinstance(a, dict) else f'[{n}]'}")
        keys = ("image_id", "category_id", "segmentation")
        missing = [k for k in keys if not isinstance(a, dict) or k not in a]
        if missing:
            raise DataError(f"an annotation has no {', '.join(missing)}", where=where, expected=", ".join(keys))
        if not all(isinstance(a[k], (int, str)) for k in ("image_id", "category_id")):
            raise DataError("image_id or category_id is of the wrong kind", where=where, expected="numbers")
        if a.get("iscrowd", 0) not in (0, 1):
            raise DataError(f"iscrowd is {a['iscrowd']!r}", where=where, expected="0 or 1")
        if a["image_id"] not in sizes:
            raise DataError(
                f"it names image {a['image_id']}, which is not in the file", where=where, expected="an image's id"
            )
        if a["category_id"] not in self._label_of:
            known = ", ".join(sorted(map(str, self._label_of))[:12])
            raise DataError(
                f"it names category {a['category_id']}, which is not in the file",
                where=where,
                expected=f"one of: {known}",
            )
        where += f" of image {a['image_id']}"
        self._check_shape(a["segmentation"], sizes[a["image_id"]], where)
        if "keypoints" in a:
            self._check_points(a, where)
        return a

    def _check_shape(self, shape: Any, size: tuple[int, int], where: str) -> None:
        h, w = size
        if isinstance(shape, dict):
            if shape.get("size") != [h, w] or not isinstance(shape.get("counts"), (list, str)):
                raise DataError(
                    f"run lengths of size {shape.get('size')}", where=where, expected=f"size [{h}, {w}] and counts"
                )
            if not _fills(shape, h * w):
                raise DataError(
                    "the run lengths do not fill the picture", where=where, expected=f"{h * w} pixels in all"
                )
            return
        if not isinstance(shape, list) or not shape or not all(isinstance(p, list) for p in shape):
            raise DataError(
                "the segmentation is empty or no list of polygons", where=where, expected="polygons or run lengths"
            )
        for polygon in shape:
            if len(polygon) < 6 or len(polygon) % 2:
                raise DataError(
                    f"a polygon has {len(polygon)} numbers", where=where, expected="x, y of at least 3 points"
                )
            if not all(isinstance(v, (int, float)) and abs(v) < 1e9 for v in polygon):  # nor NaN
                raise DataError("a polygon holds something that is no finite number", where=where, expected="pixels")
            x, y = polygon[::2], polygon[1::2]
            if min(x) < -1 or min(y) < -1 or max(x) > w + 1 or max(y) > h + 1:
                raise DataError(
                    f"a polygon lies outside the picture: x {min(x):g}..{max(x):g}, y {min(y):g}..{max(y):g}",
                    where=where,
                    expected=f"x 0..{w}, y 0..{h}",
                    remedy="clip the polygon, or check that the annotation belongs to this picture",
                )

    def _find_images(self, images: Path | None) -> Path:
        """The folder that holds the first picture."""
        first = self._images[0]["file_name"]
        beside, above = self.path.parent, self.path.parent.parent
        split = self.path.stem.rpartition("_")[2]
        tried = (
            [images]
            if images
            else [beside, beside / "images", above / "images", above / split, above / "images" / split]
        )
        for folder in tried:
            if (folder / first).is_file():
                return folder
        raise DataError(
            f"the picture {first} is missing",
            where=", ".join(map(str, tried)),
            expected="the pictures in one of these folders",
            remedy="name their folder with --images DIR",
        )

    def _check_file(self, image: dict[str, Any]) -> None:
        where = self._where(f"image {image['id']}")
        size = image_size(self._folder / image["file_name"], f"{self._folder / image['file_name']} ({where})")
        if size != (image["height"], image["width"]):
            raise DataError(
                f"{image['file_name']} has {size[1]}x{size[0]} pixels",
                where=where,
                expected=f"{image['width']}x{image['height']}, as the annotations say",
                remedy="use the pictures that were annotated; an EXIF rotation must be applied in both or neither",
            )


def _captions_beside(path: Path) -> dict[Any, str]:
    """Picture id -> its first caption, from the captions file that belongs to an instances or keypoints file."""
    name = re.sub(r"^(instances|person_keypoints|keypoints)", "captions", path.name)
    if name == path.name or not (path.parent / name).is_file():
        return {}
    captions: dict[Any, str] = {}
    for row in _load(path.parent / name, ("annotations",))["annotations"]:
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str) or "image_id" not in row:
            raise DataError("a caption has no image_id or text", where=path.parent / name, expected="image_id, caption")
        captions.setdefault(row["image_id"], row["caption"].strip())
    return captions


def _fills(rle: dict[str, Any], pixels: int) -> bool:
    """Whether run lengths can be decoded to exactly so many pixels."""
    counts = rle["counts"]
    try:
        if isinstance(counts, list) and (min(counts, default=0) < 0 or sum(counts) != pixels):
            return False
        return decode_rle(rle).size == pixels
    except (TypeError, ValueError, OverflowError):
        return False


def _load(path: Path, keys: tuple[str, ...] = ("images", "annotations", "categories")) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise DataError(
            "there is no such file", where=path, expected="a COCO annotation file", remedy="check --data"
        ) from e
    except (OSError, ValueError) as e:
        raise DataError(f"the file is no JSON: {e}", where=path, expected="a COCO annotation file") from e
    missing = [k for k in keys if not isinstance(content, dict) or not isinstance(content.get(k), list)]
    if missing:
        raise DataError(f"the file has no list {', '.join(missing)}", where=path, expected=", ".join(keys))
    return content
