"""Hugging Face datasets: `hf:PATH` of a local folder, or `hf:OWNER/NAME` from the hub; `@SPLIT` for a split other than train.

A local folder is what `save_to_disk` wrote, or holds Parquet, JSON or image files that `load_dataset` knows. Needs the extra
`hf`. Columns are found by name:

image       `image`, `img` or `picture`, or the only column of images
mask        `mask`, `annotation`, `semantic`, `segmentation`, `label` or `labels`, a column of images: classes by value or
            colour, whose names a file beside the data tells (`classes.json` and others, see `legend`)
objects     `objects` with `bbox` ([x, y, width, height] in pixels) and `category` or `label` (a ClassLabel): filled boxes, or
            masks where all have a `segmentation` (COCO's compressed run lengths)
caption     `caption`, `text` or `prompt`
key         `key`; without it the row's number
depth       `depth` of our own export (`key`, `semantic`, `depth` and `objects` together): 16 bits, 1/256 m, 0 unknown
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasetdm.errors import ConfigError, DataError
from datasetdm.io.codecs import read_image, rle_counts
from datasetdm.readers.coco_shapes import check_box, check_rle
from datasetdm.readers.depths import read_depth
from datasetdm.readers.legend import FILES, read_legend
from datasetdm.readers.maps import Palette, require_classes
from datasetdm.readers.places import json_of, with_option
from datasetdm.readers.regions import Edges, Region, box_runs, covers, instances, labels_in, with_background
from datasetdm.readers.source import Source, caption_prompt
from datasetdm.records import BACKGROUND, Annotations, Instances, Labels, Prompt, Provenance, Sample, SemanticMap
from datasetdm.records.objects import Runs

LAYOUT = """\
PATH/                            or OWNER/NAME of the hub
  state.json, data-*.arrow       what save_to_disk wrote; or Parquet, JSON or image files that load_dataset knows
  classes.json                   what the values of a mask column mean (or id2label.json, ...)

columns: image; mask; objects: {bbox, category, segmentation}; caption; key
"""

IMAGES = ("image", "img", "picture")
MASKS = ("mask", "annotation", "semantic", "segmentation", "label", "labels")
CAPTIONS = ("caption", "text", "prompt")
LABELS = {
    *MASKS, "objects", "object", "annotations", "instances", "bbox", "bboxes", "box", "boxes", "segmentations", "masks",
    "polygons", "keypoints", "faces", "regions", "depth", "depth_map",
}  # fmt: skip
"""Columns that hold labels, in whatever shape."""


class HfSource(Source):
    """See the module."""

    def __init__(self, path: str, images: Path | None = None):
        place, split = with_option(path)
        self.name, self._root = str(place), place if place.exists() else None
        data, image_columns = _load(self.name, split or "train", self._root)
        self._image = next(
            (c for c in IMAGES if c in image_columns), image_columns[0] if len(image_columns) == 1 else None
        )
        if self._image is None:
            raise DataError(
                f"no column holds the images: {', '.join(data.column_names)}", where=self.name, expected="image"
            )
        self._mask = next((c for c in MASKS if c in image_columns and c != self._image), None)
        self._caption = next((c for c in CAPTIONS if c in data.column_names), None)
        self._data, self._palette = data, Palette()
        self._category, names = _categories(data, self.name, self._root)
        self._names = {n: i for i, n in enumerate(names)}
        self._depth = "depth" in image_columns and {*data.column_names} >= {"key", "semantic", "depth", "objects"}
        self.notes = self._unread(image_columns)
        if self._mask:
            self.labels, self._palette = read_legend(self._root or _legend_folder(self.name))
            require_classes(self._palette, self._masks())
        else:
            self.labels = Labels(with_background(names)) if names else Labels(("image",))
        if strange := [n for n in names if n not in self.labels.names]:
            raise DataError(f"objects' class {strange[0]!r} has no value in masks", where=self.name, expected="a name")
        self._label_of = [self.labels.index[n] for n in names]

    def _unread(self, image_columns: Sequence[str]) -> list[str]:
        """A note of the columns that are left out.

        Raises:
            DataError: one of them looks like labels, and no other column holds any.
        """
        read = {self._image, self._mask, self._caption, "key"} | ({"objects"} if self._category else set())
        left = [c for c in self._data.column_names if c not in read and not (self._depth and c == "depth")]
        labels = [c for c in left if c in LABELS and (c in image_columns or not _plain(self._data.features[c]))]
        if labels and not (self._mask or self._category):
            raise DataError(
                f"the column {labels[0]!r} holds labels of an unknown shape: {str(self._data.features[labels[0]])[:120]}",
                where=self.name,
                expected="a column of masks as images, or objects with bbox and category",
                remedy="rename or convert the column; without it, only the images are read",
            )
        return [f"columns that are not read: {', '.join(left)}"] if left else []

    def _masks(self) -> Iterator[tuple[Path | bytes, object]]:
        """The masks and their rows, as far as they are there."""
        masks = self._data.select_columns([self._mask])
        for index in range(len(masks)):
            where = f"{self.name}, row {index}"
            with contextlib.suppress(DataError):
                yield self._file(masks[index][self._mask], where), where

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        row, where = self._data[index], f"{self.name}, row {index}"
        image = read_image(self._file(row[self._image], where), where)
        records = self._records(row, where, image.shape[:2])
        found = labels_in(records, self.labels)
        present = tuple(n for n in self.labels.names if n in found and n != BACKGROUND)
        prompt = None
        if self._caption:
            text = row[self._caption]
            prompt = Prompt(text, present, origin="caption") if isinstance(text, str) and text else None
        elif records != Annotations():
            prompt = caption_prompt(None, present)
        key = row["key"] if isinstance(row.get("key"), str) else f"{index:06d}"
        provenance = Provenance(
            details={"dataset": self._root.resolve().name if self._root else self.name, "row": index}
        )
        return Sample(key, image, self.labels, prompt, **records.fields(), provenance=provenance)

    def _records(self, row: Mapping[str, Any], where: str, size: tuple[int, int]) -> Annotations:
        semantic = objects = depth = None
        if self._mask and row[self._mask] is not None:
            semantic = SemanticMap(self._palette.ids(self._file(row[self._mask], where), where, size))
        if self._depth and row["depth"] is not None:
            depth = read_depth(self._file(row["depth"], where), where, size, 1 / 256)
        if self._category and row["objects"] is not None:
            objects = self._objects(_rows(row["objects"], where), where, size)
        return Annotations(semantic, objects, depth)

    def _file(self, value: Any, where: str) -> Path | bytes:
        """An image as it is stored: bytes, or a file that lies in the data's own folder."""
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        if not isinstance(value, dict) or not isinstance(value.get("path"), str):
            raise DataError("the row has no image", where=where, expected="bytes or a path")
        path = Path(value["path"])
        if self._root and not path.resolve().is_relative_to(self._root.resolve()):
            raise DataError(f"the path {value['path']!r} leaves its folder", where=where, expected=f"in {self._root}")
        return path

    def _objects(self, rows: Sequence[Mapping[str, Any]], where: str, size: tuple[int, int]) -> Instances:
        outlined = bool(rows) and all(isinstance(r.get("segmentation"), str) and r["segmentation"] for r in rows)
        objects, boxes = [], []
        for row in rows:
            category = row.get(str(self._category))
            category = self._names.get(category, category) if isinstance(category, str) else category
            if type(category) is not int or not 0 <= category < len(self._label_of):
                raise DataError(f"category {category}", where=where, expected=f"0..{len(self._label_of) - 1}")
            try:
                if outlined:
                    runs = _outline(row["segmentation"], size)
                else:
                    boxes.append(_box(row.get("bbox"), size))
                    runs = box_runs(*boxes[-1], size)
            except DataError as e:
                e.where = where
                raise
            objects.append(Region(runs, self._label_of[category]))
        return instances(objects, size, boxed=not outlined and bool(rows), boxes=boxes or None)


def _outline(counts: str, size: tuple[int, int]) -> Runs:
    rle = {"size": [*size], "counts": counts}
    check_rle(rle, size)
    return rle_counts(counts)


def _box(box: Any, size: tuple[int, int]) -> Edges:
    check_box(box, size)
    edges = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    if not covers(box_runs(*edges, size)):
        raise DataError(f"bbox {box} covers no pixel", expected="a larger one, or none")
    return edges


def _load(name: str, split: str, root: Path | None) -> tuple[Any, list[str]]:
    """The split, its images undecoded, and the columns that hold images."""
    try:
        import datasets
    except ImportError as e:
        remedy = "pip install 'datasetdm[hf]'"
        raise ConfigError("reading Hugging Face datasets needs datasets", expected="the extra hf", remedy=remedy) from e
    try:
        if root and any((root / f).is_file() for f in ("state.json", "dataset_dict.json")):
            data = datasets.load_from_disk(name)
            data = data[split] if isinstance(data, datasets.DatasetDict) else data
        else:
            data = datasets.load_dataset(name, split=split)
    except KeyError as e:
        raise DataError(f"there is no split {split!r}", where=name, expected="hf:PATH@SPLIT") from e
    except Exception as e:  # the library raises its own kinds, and those of every library below it
        what = f"the dataset cannot be read: {(str(e) or repr(e)).splitlines()[0]}"
        raise DataError(what, where=name, expected="a local folder or a hub id, and a split") from e
    try:  # before rows are read: a damaged offset would crash the process
        for table in (data.data, data._indices):
            if table is not None:
                table.validate(full=True)
        images = [c for c, f in data.features.items() if isinstance(f, datasets.Image)]
        data = data.with_format(None)  # one that was saved with it may hide columns, or give tensors
        for column in images:
            data = data.cast_column(column, datasets.Image(decode=False))
    except Exception as e:  # as above
        what = f"the dataset is damaged: {(str(e) or repr(e)).splitlines()[0]}"
        raise DataError(what, where=name, expected="Arrow files as written", remedy="download or save it again") from e
    return data, images


def _plain(feature: Any) -> bool:
    """Whether a column holds one number or text per row, as a class of the whole image is."""
    return isinstance(getattr(feature, "dtype", None), str) and feature.dtype not in ("binary", "list", "dict")


def _legend_folder(name: str) -> Path:
    """Where the legend of a hub dataset was downloaded to."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for file in FILES:
        try:
            return Path(hf_hub_download(name, file, repo_type="dataset")).parent
        except (HfHubHTTPError, LocalEntryNotFoundError):
            continue
    raise DataError("nothing says what the masks' values mean", where=name, expected=f"one of: {', '.join(FILES)}")


CATEGORIES = ("category", "categories", "label", "labels", "class", "classes", "category_id")


def _categories(data: Any, name: str, root: Path | None) -> tuple[str | None, list[str]]:
    """The field of `objects` that holds the classes, and their names: of a ClassLabel, words, or numbers with a classes.json.

    Raises:
        DataError: objects without a class, or numbers that nothing names.
    """
    objects = data.features.get("objects")
    objects = getattr(objects, "feature", objects)  # List(...) of one struct per object
    objects = objects[0] if isinstance(objects, list) else objects
    if not isinstance(objects, dict) or "bbox" not in objects:
        return None, []  # which is said where nothing else holds labels
    field = next((c for c in CATEGORIES if c in objects), None)
    if field is None:
        raise DataError(f"objects have no class: {', '.join(objects)}", where=name, expected=" or ".join(CATEGORIES))
    feature = getattr(objects[field], "feature", objects[field])
    if getattr(feature, "names", None):
        return field, list(feature.names)
    found = {
        c for own in data.select_columns(["objects"]) for r in _rows(own["objects"] or [], name) for c in [r.get(field)]
    }
    words = sorted(c for c in found if isinstance(c, str))
    if words and len(words) == len(found):
        return field, words
    file = root / "classes.json" if root else None
    names = json_of(file, "a list of names") if file and file.is_file() else None
    if isinstance(names, list) and names and all(isinstance(n, str) for n in names):
        return field, names
    if not found - {None}:
        what = f"the objects' {field} are empty" if found else "no image has an object"
        raise DataError(what, where=name, expected="words, a ClassLabel, or numbers with names")
    raise DataError(
        f"the objects' {field} are numbers, and nothing names them",
        where=name,
        expected="words, a ClassLabel, or names in classes.json",
        remedy='write classes.json beside the data, for instance ["cat", "dog"] for 0 and 1',
    )


def _rows(objects: Any, where: str) -> list[dict[str, Any]]:
    """One row an object, of a list of them or of lists of their fields."""
    if not isinstance(objects, dict):
        return list(objects)
    lists = {k: v for k, v in objects.items() if isinstance(v, list)}
    if objects and not lists:
        raise DataError(f"objects are no list: {str(objects)[:80]}", where=where, expected="lists of bbox and category")
    if len({*map(len, lists.values())}) > 1:
        what = "objects' fields differ in length: " + ", ".join(f"{len(v)} {k}" for k, v in lists.items())
        raise DataError(what, where=where, expected="one of each an object")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
