"""LVIS: COCO's polygons with some 1,200 categories, most of them rare, none labelled everywhere.

An image is labelled for some categories only (its objects', and those that it is known to lack), so pixels without an
object are ignored rather than `background`. Every sample's provenance names the categories that it surely lacks
(`negative`) and those whose objects are not all outlined (`not_exhaustive`). `lvis:FILE.json@rare`, `@common` or
`@frequent` (several with `+`) keeps the categories of that frequency; the others' objects are ignored pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasetdm.errors import DataError
from datasetdm.readers.coco_file import CocoFile
from datasetdm.readers.formats.coco import CocoSource, mask_of
from datasetdm.readers.places import with_option
from datasetdm.readers.regions import from_regions
from datasetdm.records import IGNORE, Annotations, Labels

LAYOUT = """\
ROOT/
  lvis_SPLIT.json                images, annotations, categories with frequency
  SPLIT/NAME.jpg                 named by coco_url or file_name; or --images DIR
"""

FREQUENCY = {"rare": "r", "common": "c", "frequent": "f"}
"""In 1-10, 11-100, or more training images."""


class LvisSource(CocoSource):
    """`lvis:FILE.json`. Version 1 names images by their address only: the file's own name, below its split's folder."""

    FILES = ("lvis*.json", "annotations/lvis*.json", "*.json")

    def __init__(self, path: str, images: Path | None = None):
        file, option = with_option(path)
        wanted = [o for o in option.split("+") if o]
        if strange := [o for o in wanted if o not in FREQUENCY]:
            raise DataError(f"there is no frequency {strange[0]!r}", where=path, expected=" + ".join(FREQUENCY))
        self._frequencies = {FREQUENCY[o] for o in wanted or FREQUENCY}
        super().__init__(str(file), images)

    def _open(self, path: Path) -> CocoFile:
        return CocoFile(path, _with_file_name, boxes=False, size_of=self._size_of)

    def _word(self, category: dict[str, Any]) -> str:
        return category["name"].replace("_", " ")

    def _labels(self) -> Labels:
        self._ids = {c["id"] for c in self.file.categories}
        kept = [c for c in self.file.categories if str(c.get("frequency", "f")) in self._frequencies]
        return Labels(tuple(map(self._word, kept)), tuple(_synonyms(c, self._word(c)) for c in kept))

    def _records(self, annotations: Sequence[dict[str, Any]], size: tuple[int, int]) -> Annotations:
        regions = [self._region(a, mask_of(a, size)) for a in annotations]
        return from_regions(regions, self.labels, size, elsewhere=IGNORE)

    def _details(self, image: dict[str, Any]) -> dict[str, Any]:
        lists = {"negative": "neg_category_ids", "not_exhaustive": "not_exhaustive_category_ids"}
        return {"coco_image_id": image["id"]} | {k: self._named(image, v) for k, v in lists.items()}

    def _named(self, image: dict[str, Any], key: str) -> list[str]:
        """The labels of a list of category ids, without those that were not kept."""
        ids = image.get(key, [])
        if not isinstance(ids, list) or not all(isinstance(i, int) and i in self._ids for i in ids):
            where = f"{self.path}, image {image['id']}"
            raise DataError(f"{key} names no categories", where=where, expected="a list of category ids")
        return [self.labels.names[self._label_of[i]] for i in ids if i in self._label_of]


def _with_file_name(image: Any) -> Any:
    if not isinstance(image, dict) or "file_name" in image or not isinstance(image.get("coco_url"), str):
        return image
    return image | {"file_name": "/".join(image["coco_url"].split("/")[-2:])}


def _synonyms(category: dict[str, Any], name: str) -> tuple[str, ...]:
    """As plain words: `car_(automobile)` is "car"."""
    listed = category.get("synonyms")
    words = [category["name"], *(listed if isinstance(listed, list) else [])]
    plain = [re.sub(r"\s*\(.*?\)", "", str(w).replace("_", " ")).strip() for w in words]
    return tuple(dict.fromkeys(w for w in plain if w and w != name))
