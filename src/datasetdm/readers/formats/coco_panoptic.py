"""COCO panoptic: `coco-panoptic:FILE.json` with one PNG per image in a folder named like the file, beside it.

A pixel's colour is its segment's id (red + 256 green + 65536 blue); 0 is unlabelled and ignored, and so are crowds. Segments
of things are objects, crowds among them; every segment labels its pixels of the semantic map. A category without
`isthing` is a thing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasetdm.errors import DataError
from datasetdm.io.codecs import image_size, read_image
from datasetdm.readers.coco_file import CocoFile, id_of, is_id
from datasetdm.readers.formats.coco import captions_beside, check_image, find_images, key_of, size_of
from datasetdm.readers.maps import packed, read_map
from datasetdm.readers.places import inside, the_file
from datasetdm.readers.regions import Region, instances, labels_in, paint, value_runs
from datasetdm.readers.source import Source, caption_prompt, other_size
from datasetdm.records import IGNORE, Annotations, Labels, Provenance, Sample, SemanticMap

LAYOUT = """\
ROOT/
  annotations/panoptic_SPLIT.json    images, annotations with segments_info, categories
  annotations/panoptic_SPLIT/NAME.png   colour = segment id: red + 256 green + 65536 blue
  SPLIT/NAME.jpg                     or images/NAME.jpg, or beside the JSON file, or --images DIR
"""


class PanopticSource(Source):
    """See the module."""

    def __init__(self, path: str, images: Path | None = None):
        self.path = the_file(
            Path(path), ("panoptic*.json", "annotations/panoptic*.json", "*.json"), "panoptic_SPLIT.json"
        )
        self.file = CocoFile(self.path, segments=True, size_of=lambda name: size_of(self.path, name, images))
        self.orphan_errors, self.notes = self.file.orphan_errors, self.file.notes
        things = {c["id"] for c in self.file.categories if c.get("isthing", 1)}
        stuff = tuple(c["name"] for c in self.file.categories if c["id"] not in things)
        self.labels = Labels(tuple(c["name"] for c in self.file.categories), stuff=stuff)
        self._things = things
        self._label_of = {c["id"]: i for i, c in enumerate(self.file.categories)}
        self._captions = captions_beside(self.path)
        self._folder = find_images(self.path, self.file.names, images)
        self._maps = self.path.with_suffix("")

    def __len__(self) -> int:
        return len(self.file.images)

    def check(self, index: int) -> None:
        """One entry of segments, and the image and the PNG in the size that the file says."""
        if fault := self.file.faults.get(index):
            raise fault
        image = self.file.images[index]
        check_image(self._folder, image, self.path)
        where = f"{self.path}, image {image['id']}"
        entries = self.file.annotations[index]
        if len(entries) != 1:
            raise DataError(f"{len(entries)} annotations", where=where, expected="one per image, with segments_info")
        _check_segments(entries[0], self._label_of, where)
        path = inside(self._maps, entries[0]["file_name"], where)
        if (found := image_size(path, path)) != (size := (image["height"], image["width"])):
            raise other_size(path, found, size)

    def __getitem__(self, index: int) -> Sample:
        self.check(index)
        image, entry = self.file.images[index], self.file.annotations[index][0]
        file = self._folder / image["file_name"]
        pixels = read_image(file, f"{self.path}, image {image['id']}")
        records = self._records(entry, pixels.shape[:2])
        found = labels_in(records, self.labels)
        present = tuple(n for n in self.labels.names if n in found)
        caption = image.get("caption") or self._captions.get(image["id"])
        key = key_of(image["file_name"], self.file)
        provenance = Provenance(details={"coco_image_id": image["id"]})
        return Sample(
            key, pixels, self.labels, caption_prompt(caption, present),
            **records.fields(), provenance=provenance, encoded=file,
        )  # fmt: skip

    def _records(self, entry: dict[str, Any], size: tuple[int, int]) -> Annotations:
        path = self._maps / entry["file_name"]
        pixels = read_map(path, path, size)
        if pixels.ndim != 3:
            raise DataError("the PNG has no colours", where=path, expected="segment ids as red, green and blue")
        segments, known = value_runs(packed(pixels)), {s["id"]: s for s in entry["segments_info"]}
        present = set(segments) - {0}
        if present != set(known):
            strange, absent = sorted(present - set(known))[:5], sorted(set(known) - present)[:5]
            what = (
                f"the PNG has segments {strange} that the file lacks" if strange else f"no pixel of segments {absent}"
            )
            raise DataError(what, where=path, expected="the segments of segments_info")
        regions = {
            n: Region(segments[n], self._label_of[s["category_id"]], bool(s.get("iscrowd"))) for n, s in known.items()
        }
        things = [regions[n] for n, s in known.items() if s["category_id"] in self._things]
        return Annotations(SemanticMap(paint(regions.values(), size, IGNORE)), instances(things, size))


def _check_segments(entry: dict[str, Any], label_of: dict[Any, int], where: str) -> None:
    segments = entry.get("segments_info")
    if not isinstance(segments, list) or not isinstance(entry.get("file_name"), str):
        raise DataError("an annotation has no segments_info or file_name", where=where, expected="both")
    seen: set[int] = set()
    for segment in segments:
        ok = isinstance(segment, dict) and isinstance(segment.get("id"), int) and 0 < segment["id"] < 2**24
        if not ok or not is_id(segment.get("category_id")) or segment.get("iscrowd", 0) not in (0, 1):
            raise DataError(f"a segment cannot be read: {str(segment)[:80]}", where=where, expected="id, category_id")
        segment["category_id"] = id_of(segment["category_id"])
        if segment["category_id"] not in label_of:
            what = f"segment {segment['id']} names category {segment['category_id']}, which is not in the file"
            raise DataError(what, where=where, expected="a category's id")
        if segment["id"] in seen:
            raise DataError(f"segment id {segment['id']} occurs twice", where=where, expected="every segment id once")
        seen.add(segment["id"])
