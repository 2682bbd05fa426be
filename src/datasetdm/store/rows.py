"""Samples as rows of a shard, and back. Nothing is lost but depth finer than `DepthMap.quantised`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from datasetdm.io.codecs import compress_runs, decode_png, decompress_runs, encode_png, png_size
from datasetdm.io.files import parse_json
from datasetdm.records import (
    Annotations,
    DepthMap,
    Instances,
    Keypoints,
    Labels,
    MaskStack,
    Prompt,
    Provenance,
    Quality,
    Sample,
    SemanticMap,
)
from datasetdm.store.schema import COLUMNS, SCHEMA

Row = Mapping[str, Any]
"""Column -> value, as `pa.Table.to_pylist` gives it."""

LARGE = 2**20
"""Bytes from which an array is compressed by itself: whoever reads, shows or copies a large image holds less of it. Smaller
ones are left to the compression of the column, which is several times as fast and makes the file no larger."""


def to_row(sample: Sample) -> dict[str, Any]:
    """A sample as a row of `SCHEMA`."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    prompt = sample.prompt
    if prompt:
        row |= {
            "prompt": prompt.text,
            "prompt_labels": prompt.labels,
            "prompt_origin": prompt.origin,
            "seed": prompt.seed,
        }
    row |= {"key": sample.key, "split": sample.split, "provenance": json.dumps(sample.provenance.to_json())}
    row |= {"image": _encoded(sample.image)}
    return row | quality_columns(sample.quality) | _annotation_columns(sample.annotations) | summary(sample)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table of `SCHEMA`."""
    return pa.Table.from_struct_array(pa.array(rows, _ROW)).replace_schema_metadata(SCHEMA.metadata)


_ROW = pa.struct(list(SCHEMA))


def quality_columns(quality: Quality) -> dict[str, Any]:
    """The columns of what filters found out."""
    return {"quality_scores": json.dumps(dict(quality.scores)), "quality_reasons": list(quality.reasons)}


def summary(sample: Sample) -> dict[str, Any]:
    """Columns that filters ask for.

    Returns:
        found: labels with a pixel or an object; objects: every object's label; score: mean confidence of the labels.
    """
    names, semantic, instances = sample.labels.names, sample.semantic, sample.instances
    objects = [] if instances is None else instances.label_ids.tolist()
    score = None
    if semantic is not None and semantic.confidence is not None:
        score = float(semantic.confidence.mean(dtype=np.float64))
    elif instances is not None and objects:
        score = float(instances.scores.mean(dtype=np.float64))
    return {
        "found": [names[i] for i in sorted(sample.annotations.labels_in())],
        "objects": [names[i] for i in objects],
        "score": score,
    }


def _annotation_columns(records: Annotations) -> dict[str, Any]:
    row: dict[str, Any] = {}
    semantic, objects, depth, points = records.semantic, records.instances, records.depth, records.keypoints
    if semantic is not None:
        row["semantic"] = _encoded(semantic.ids)
        row["semantic_confidence"] = _encoded_confidence(semantic.confidence)
    if depth is not None:
        steps = np.clip(np.rint(depth.depth / depth.step), depth.valid, 65535).astype(np.uint16)  # `DepthMap.quantised`
        row |= {"depth": _encoded(steps), "depth_step": depth.step, "depth_unit": depth.unit}
        row["depth_confidence"] = _encoded_confidence(depth.confidence)
    if objects is not None:
        value: dict[str, Any] = {
            "size": objects.size,
            "masks": [compress_runs(r, objects.size) for r in objects.masks.runs],
            "label_ids": objects.label_ids.tolist(),
            "scores": objects.scores.tolist(),
            "boxes": objects.boxes.tolist(),
            "crowd": objects.crowd.tolist(),
            "boxed": objects.boxed,
        }
        row["instances"] = json.dumps(value)
    if points is not None:
        value = {"xy": points.xy.tolist(), "visibility": points.visibility.tolist(), "names": points.names}
        if points.scores is not None:
            value["scores"] = points.scores.tolist()
        row["keypoints"] = json.dumps(value)
    return row


def from_row(row: Row, labels: Labels, pixels: bool = True) -> Sample:
    """The sample of a row of `SCHEMA`.

    Args:
        row: as a table gives it.
        labels: of the store.
        pixels: decode the image; otherwise it is black, and takes no memory until it is read.

    Raises:
        OSError, ValueError, KeyError, TypeError, SyntaxError, DataError: a row that no sample gave.
    """
    prompt = None
    if row["prompt"] is not None:
        prompt = Prompt(row["prompt"], tuple(row["prompt_labels"]), row["seed"], row["prompt_origin"])
    encoded = row["image"]["bytes"]
    image = decode_png(encoded, np.uint8) if pixels else np.zeros((*png_size(encoded), 3), np.uint8)
    return Sample(
        row["key"],
        image,
        labels,
        prompt,
        semantic=_semantic(row),
        instances=_instances(row),
        depth=_depth(row),
        keypoints=_keypoints(row),
        provenance=Provenance.from_json(parse_json(row["provenance"])),
        quality=Quality(parse_json(row["quality_scores"]), tuple(row["quality_reasons"])),
        split=row["split"],
    )


def _semantic(row: Row) -> SemanticMap | None:
    if not row["semantic"]:
        return None
    return SemanticMap(decode_png(row["semantic"]["bytes"], np.uint16), _confidence(row["semantic_confidence"]))


def _depth(row: Row) -> DepthMap | None:
    if not row["depth"]:
        return None
    steps = decode_png(row["depth"]["bytes"], np.uint16)
    metres = np.multiply(steps, row["depth_step"], dtype=np.float64).astype(np.float32)
    return DepthMap(metres, steps > 0, row["depth_unit"], _confidence(row["depth_confidence"]))


def _instances(row: Row) -> Instances | None:
    """Version 2 stored neither boxes nor crowds: they are the masks' own, and none."""
    if not row["instances"]:
        return None
    value = parse_json(row["instances"])
    masks = MaskStack(decompress_runs([m.encode("ascii") for m in value["masks"]]), value["size"])
    others = {"boxed": value["boxed"]}
    if "boxes" in value:
        others |= {
            "boxes": np.array(value["boxes"], np.float64).reshape(-1, 4),
            "crowd": np.array(value["crowd"], bool),
        }
    return Instances(masks, np.array(value["label_ids"], np.int64), np.array(value["scores"], np.float32), **others)


def _keypoints(row: Row) -> Keypoints | None:
    if not row["keypoints"]:
        return None
    value = parse_json(row["keypoints"])
    n = len(value["names"])
    k = len(value["xy"][0]) if n else 0
    xy, visibility = np.array(value["xy"]).reshape(n, k, 2), np.array(value["visibility"]).reshape(n, k)
    scores = np.array(value["scores"]).reshape(n, k) if "scores" in value else None
    return Keypoints(xy, visibility, tuple(tuple(s) for s in value["names"]), scores)


def _encoded(array: np.ndarray) -> dict[str, Any]:
    return {"bytes": encode_png(array, 1 if array.nbytes >= LARGE else 0), "path": None}


def _encoded_confidence(confidence: np.ndarray | None) -> dict[str, Any] | None:
    if confidence is None:
        return None
    return _encoded(np.rint(confidence.astype(np.float32) * 255).astype(np.uint8))


def _confidence(image: Mapping[str, Any] | None) -> np.ndarray | None:
    return None if image is None else decode_png(image["bytes"], np.float32) / 255
