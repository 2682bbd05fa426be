"""The columns of a store's shards, and how shards of older versions become tables of today's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

VERSION = 3
"""Of what this software writes. It reads every version from 2 on."""

GROUP_ROWS, GROUP_BYTES = 64, 16_000_000
"""Rows, and bytes of images, that are read at a time: what a random access costs in time and memory."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An encoded image as Hugging Face `datasets` holds it."""

_TEXTS = pa.list_(pa.string())

COLUMNS: Mapping[str, pa.DataType] = {
    "key": pa.string(),
    "split": pa.string(),
    "prompt": pa.string(),
    "prompt_labels": _TEXTS,
    "prompt_origin": pa.string(),
    "seed": pa.uint64(),
    # What filters ask for, so that no image need be decoded to answer.
    "found": _TEXTS,
    "objects": _TEXTS,
    "score": pa.float32(),
    "quality_scores": pa.string(),
    "quality_reasons": _TEXTS,
    "provenance": pa.string(),
    "image": IMAGE,
    "semantic": IMAGE,
    "semantic_confidence": IMAGE,
    "depth": IMAGE,
    "depth_step": pa.float64(),
    "depth_unit": pa.string(),
    "depth_confidence": IMAGE,
    "instances": pa.string(),
    "keypoints": pa.string(),
}
"""Columns with few bytes stand together, so that a list of samples is read in few pieces."""

_NAMES = {pa.string(): "string", pa.uint64(): "uint64", pa.float32(): "float32", pa.float64(): "float64"}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if kind == _TEXTS:
        return {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    return {"dtype": _NAMES[kind], "_type": "Value"}


_FEATURES = {"info": {"features": {name: _feature(kind) for name, kind in COLUMNS.items()}}}

SCHEMA = pa.schema(list(COLUMNS.items()), metadata={"huggingface": json.dumps(_FEATURES)})
"""With the metadata that makes Hugging Face `datasets` decode the images."""


def _from_2(table: pa.Table) -> pa.Table:
    """Version 3 added who wrote the prompt, the split and quality; the first stores of version 2 had no depth confidence."""
    rows = table.num_rows
    added = {
        "split": [""] * rows,
        "prompt_origin": ["unknown"] * rows,
        "quality_scores": ["{}"] * rows,
        "quality_reasons": [[]] * rows,
        "depth_confidence": [None] * rows,
    }
    for name, values in added.items():
        if name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.array(values, COLUMNS[name]))
    return table


MIGRATIONS: Mapping[int, Callable[[pa.Table], pa.Table]] = {2: _from_2}
"""Version -> a function from a table of that version to one of the next; the table may hold only some of the columns."""


def migrate(table: pa.Table, version: int) -> pa.Table:
    """A table of any version with today's columns. Raises KeyError for a version that is not known."""
    while version < VERSION:
        table = MIGRATIONS[version](table)
        version += 1
    return table
