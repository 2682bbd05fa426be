"""FiftyOne: `samples.json`, `metadata.json` and `data/NAME.png`, which `fiftyone.Dataset.from_dir(dataset_dir=FOLDER,
dataset_type=fiftyone.types.FiftyOneDataset)` opens.

Fields: `objects` (Detections with masks), `keypoints` (Keypoints, NaN where absent), `semantic` (Segmentation: label id + 1, 0
unknown) with its names as mask targets, `depth` (Heatmap in metres), `caption`, `key`. Splits are tags. Crowds are left out. It
is the form without a `version`, which FiftyOne reads sample by sample and brings up to date itself; written for FiftyOne 1.22.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from datasetdm.exporters.objects import caption_of, objects_of, points_of, without_crowds
from datasetdm.exporters.streams import JsonLists
from datasetdm.exporters.target import Target
from datasetdm.io.files import write_json
from datasetdm.records import BACKGROUND, IGNORE, Labels, Sample


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write images and samples as they come."""
    write_json(target.folder / "metadata.json", _metadata(target.labels))
    with JsonLists(target.folder / "samples.json", "samples") as file:
        for sample in map(without_crowds, samples):
            tags = [sample.split] if sample.split else []
            name = target.write_image(sample, "data", *tags)
            file.add("samples", _sample(sample, "/".join(["data", *tags, name])) | {"tags": tags})
            yield


def _metadata(labels: Labels) -> dict[str, Any]:
    targets = {str(i + 1): n for i, n in enumerate(labels.names)}
    skeletons = {n: {"labels": s.points, "edges": s.edges} for n, s in labels.skeletons.items()}
    info = {"classes": list(labels.names), "mask_targets": targets, "skeletons": skeletons}
    return {"name": "datasetdm", "media_type": "image", "info": info}


def _sample(sample: Sample, place: str) -> dict[str, Any]:
    h, w = sample.size
    value: dict[str, Any] = {
        "filepath": place,
        "metadata": {"_cls": "ImageMetadata", "width": w, "height": h, "num_channels": 3},
        "key": sample.key,
    }
    if (caption := caption_of(sample)) is not None:
        value["caption"] = caption
    semantic, depth = sample.semantic, sample.depth
    value["objects"] = {"_cls": "Detections", "detections": list(_detections(sample))}
    if points := list(_keypoints(sample)):
        value["keypoints"] = {"_cls": "Keypoints", "keypoints": points}
    if semantic is not None:
        ids = np.where(semantic.ids == IGNORE, 0, semantic.ids + 1)
        value["semantic"] = {"_cls": "Segmentation", "mask": pack_array(ids.astype(np.uint16))}
    if depth is not None:
        top = float(depth.depth.max(initial=0)) or 1.0
        value["depth"] = {"_cls": "Heatmap", "map": pack_array(depth.depth), "range": [0.0, top]}
    return value


def _detections(sample: Sample) -> Iterator[dict[str, Any]]:
    """Boxes are fractions of the image. A mask is stretched over its box, so that box is the mask's own, in whole pixels."""
    objects = objects_of(sample)
    h, w = sample.size
    for n, label in enumerate(objects.label_ids.tolist()):
        if sample.labels.names[label] == BACKGROUND:
            continue
        if objects.boxed:
            (x, y, bw, bh), mask = objects.boxes[n].tolist(), {}
        else:
            inside, (x, y) = objects.masks.crop(n)
            bh, bw = inside.shape
            mask = {"mask": pack_array(inside)}
        yield {
            "_cls": "Detection",
            "label": sample.labels.names[label],
            "bounding_box": [x / w, y / h, bw / w, bh / h],
            "confidence": round(float(objects.scores[n]), 4),
            "index": n + 1,
        } | mask


def _keypoints(sample: Sample) -> Iterator[dict[str, Any]]:
    objects = objects_of(sample)
    h, w = sample.size
    nowhere = {"$numberDouble": "NaN"}
    for n, label in enumerate(objects.label_ids.tolist()):
        if (points := points_of(sample, n)) is not None:
            places = [[x / w, y / h] if seen else [nowhere, nowhere] for x, y, seen in points.tolist()]
            seen = points[:, 2].astype(int).tolist()
            name = sample.labels.names[label]
            yield {"_cls": "Keypoint", "label": name, "points": places, "index": n + 1, "visibility": seen}


def pack_array(array: np.ndarray) -> dict[str, Any]:
    """An array as FiftyOne holds it in JSON: NumPy's own format, compressed, in base 64."""
    out = io.BytesIO()
    np.save(out, array)
    return {"$binary": {"base64": base64.b64encode(zlib.compress(out.getvalue())).decode(), "subType": "00"}}
