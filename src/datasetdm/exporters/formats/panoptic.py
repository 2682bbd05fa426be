"""COCO panoptic: `annotations/panoptic.json`, its PNGs in `annotations/panoptic/`, pictures in `images/`; with splits
`annotations/panoptic_train.json`, `annotations/panoptic_train/*.png`, `images/train/*.png` and so on.

A pixel's colour is its segment's id (red + 256 green + 65536 blue, as panopticapi reads it); 0 is unlabelled. Instances are
segments, smaller ones on top of larger ones; then every label that is stuff, or that has no instance in the picture, is one
segment of what is left of its region. `background`, ignored pixels, and pixels of a thing outside its instances are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from datasetdm.exporters.formats.coco import INFO, category_row, write_picture
from datasetdm.exporters.formats.depth import write_map
from datasetdm.exporters.objects import require_outlines
from datasetdm.exporters.streams import JsonLists
from datasetdm.exporters.target import Target
from datasetdm.io.files import safe_name
from datasetdm.records import BACKGROUND, IGNORE, Sample


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write pictures, PNGs of segments and annotations as they come."""
    labels = target.labels
    category = {i: i + 1 for i, n in enumerate(labels.names) if n != BACKGROUND}
    categories = [
        category_row(k, labels.names[i], labels) | {"isthing": int(labels.names[i] not in labels.stuff)}
        for i, k in category.items()
    ]
    with ExitStack() as files:
        opened = {p: files.enter_context(_file(target, p)) for p in target.parts}
        for sample in samples:
            require_outlines(sample, "coco")
            part = target.part(sample)
            file = opened[part]
            number = file.count["images"] + 1
            file.add("images", write_picture(sample, number, part, target))
            segments, rows = segments_of(sample, category)
            name = safe_name(sample.key) + ".png"
            write_map(file.path.with_suffix("") / name, id_to_rgb(segments))
            file.add("annotations", {"image_id": number, "file_name": name, "segments_info": rows})
            yield
        for file in opened.values():
            file.head |= {"categories": categories}


def _file(target: Target, part: str) -> JsonLists:
    name = f"panoptic_{part}.json" if part else "panoptic.json"
    file = JsonLists(target.folder / "annotations" / name, "images", "annotations")
    file.path.with_suffix("").mkdir()
    file.head |= {"info": INFO, "licenses": []}
    return file


def segments_of(sample: Sample, category: dict[int, int]) -> tuple[Int64[np.ndarray, "h w"], list[dict[str, Any]]]:
    """The id of every pixel's segment (0: none), and the segments: id, category_id, area, bbox, iscrowd."""
    ids = np.zeros(sample.size, np.int64)
    drawn: list[int] = []
    for mask, label in _regions(sample):
        if label in category:
            drawn.append(label)
            ids[mask] = len(drawn)
    semantic, taken = sample.semantic, set(drawn)
    if semantic is not None:
        for label in np.unique(semantic.ids).tolist():
            stuff = label != IGNORE and sample.labels.names[label] in sample.labels.stuff
            rest = (semantic.ids == label) & (ids == 0)
            if label in category and (stuff or label not in taken) and rest.any():
                drawn.append(label)
                ids[rest] = len(drawn)
    rows = []
    for number, label in enumerate(drawn, 1):
        y, x = np.nonzero(ids == number)
        if len(y):  # nothing is left of an object behind others
            box = [int(x.min()), int(y.min()), int(x.max() - x.min() + 1), int(y.max() - y.min() + 1)]
            rows.append({"id": number, "category_id": category[label], "area": len(y), "bbox": box, "iscrowd": 0})
    return ids, rows


def _regions(sample: Sample) -> list[tuple[np.ndarray, int]]:
    """The instances, largest first."""
    objects = sample.instances
    if objects is None:
        return []
    order = np.argsort(-objects.masks.areas, kind="stable")
    return [(objects.masks[i], int(objects.label_ids[i])) for i in order.tolist()]


def id_to_rgb(ids: Int64[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Segment ids as colours."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)
