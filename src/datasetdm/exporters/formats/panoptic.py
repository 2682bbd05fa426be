"""COCO panoptic: `annotations/panoptic.json`, its PNGs in `annotations/panoptic/`, images in `images/`; with splits
`annotations/panoptic_train.json`, `annotations/panoptic_train/*.png`, `images/train/*.png` and so on.

A pixel's colour is its segment's id (red + 256 green + 65536 blue, as panopticapi reads it); 0 is unlabelled. Instances are
segments, smaller ones on top of larger ones, with `iscrowd` 1 if they stand for a group; then every label that is stuff, or
that has no instance in the image, is one segment of what is left of its region. `background`, ignored pixels, and pixels of
a thing outside its instances are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt, UInt8

from datasetdm.exporters.coco_rows import INFO, category_row, write_image_row
from datasetdm.exporters.maps import write_map
from datasetdm.exporters.objects import paint, require_outlines
from datasetdm.exporters.streams import JsonLists
from datasetdm.exporters.target import ByPart, Target
from datasetdm.records import BACKGROUND, Annotations, Instances, Sample


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write images, PNGs of segments and annotations as they come."""
    labels = target.labels
    category = {i: i + 1 for i, n in enumerate(labels.names) if n != BACKGROUND}
    categories = [
        category_row(k, labels.names[i], labels) | {"isthing": int(labels.names[i] not in labels.stuff)}
        for i, k in category.items()
    ]
    with ExitStack() as files:

        def opened(part: str) -> JsonLists:
            name = f"panoptic_{part}.json" if part else "panoptic.json"
            file = files.enter_context(JsonLists(target.folder / "annotations" / name, "images", "annotations"))
            file.path.with_suffix("").mkdir()
            file.head |= {"info": INFO, "licenses": [], "categories": categories}
            return file

        by_part = ByPart(opened, target.parts)
        for sample in samples:
            require_outlines(sample, "coco")
            file = by_part[sample.split]
            image = write_image_row(sample, file.count["images"] + 1, target)
            file.add("images", image)
            segments, rows = segments_of(sample, category)
            name = image["file_name"].rpartition(".")[0] + ".png"
            write_map(file.path.with_suffix("") / name, id_to_rgb(segments))
            file.add("annotations", {"image_id": image["id"], "file_name": name, "segments_info": rows})
            yield
        by_part.at_least("")


def segments_of(sample: Sample, category: dict[int, int]) -> tuple[UInt[np.ndarray, "h w"], list[dict[str, Any]]]:
    """The id of every pixel's segment (0: none), and the segments: id, category_id, area, bbox, iscrowd."""
    semantic, objects, labels = sample.semantic, sample.instances or Instances.none(sample.size), sample.labels
    order = np.argsort(-objects.masks.areas, kind="stable")
    objects = objects.take(order[np.isin(objects.label_ids[order], list(category))])
    numbers = np.arange(1, len(objects) + 1, dtype=np.min_scalar_type(len(objects) + len(labels)))
    ids = paint(objects.masks, numbers)
    segments = list(zip(objects.label_ids.tolist(), objects.crowd.tolist(), strict=True))
    windows = [(slice(y, y + h), slice(x, x + w)) for x, y, w, h in objects.masks.boxes.tolist()]
    taken = {label for label, _ in segments}
    for label in sorted(Annotations(semantic).labels_in()):
        if semantic is not None and label in category and (labels.names[label] in labels.stuff or label not in taken):
            rest = (semantic.ids == label) & (ids == 0)
            if rest.any():
                segments.append((label, False))
                windows.append((slice(None), slice(None)))
                ids[rest] = len(segments)
    rows = []
    for number, ((label, crowd), window) in enumerate(zip(segments, windows, strict=True), 1):
        seen = ids[window] == number
        y, x = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        if len(y):  # nothing is left of an object behind others
            left, top = int(x[0]) + (window[1].start or 0), int(y[0]) + (window[0].start or 0)
            box = [left, top, int(x[-1] - x[0]) + 1, int(y[-1] - y[0]) + 1]
            area = int(np.count_nonzero(seen))
            row = {"id": number, "category_id": category[label], "area": area, "bbox": box, "iscrowd": int(crowd)}
            rows.append(row)
    return ids, rows


def id_to_rgb(ids: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Segment ids as colours."""
    colours = np.zeros((*ids.shape, 3), np.uint8)
    for channel in range(3):
        colours[..., channel] = ids >> 8 * channel & 255
    return colours
