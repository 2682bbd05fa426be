"""A dataset for Hugging Face `datasets`: `data/train-00000-of-00002.parquet` with the images inside, a card `README.md`, and
`classes.json` with the value of every label in `semantic`.

Columns: `key`, `image`, `caption`; `semantic`, a PNG of label ids (ignored: 255, or 65535 with more than 255 labels);
`depth`, a PNG of 16 bits, 1/256 m per step, 0 unknown; `objects`, lists of `bbox` (x, y, width, height), `category`, `score`,
`area`, `segmentation` (COCO's compressed run lengths) and `keypoints` (x, y, visibility of every point of the label).
Categories are label ids; objects known as boxes only have an empty segmentation; crowds are left out.
Without splits all is `train`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasetdm.exporters.card import Card
from datasetdm.exporters.coco_rows import object_rows
from datasetdm.exporters.maps import IGNORED, depth_steps, small_ids, write_legend
from datasetdm.exporters.objects import caption_of, without_crowds
from datasetdm.exporters.target import ByPart, Target, image_bytes
from datasetdm.io.codecs import encode_png
from datasetdm.io.files import write_text
from datasetdm.records import Labels, Sample

SHARD_BYTES, GROUP_ROWS, GROUP_BYTES = 300_000_000, 64, 32_000_000
"""Bytes of the images in a file; rows that are held in memory, and bytes of their images."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_OBJECTS: dict[str, pa.DataType] = {
    "bbox": pa.list_(pa.list_(pa.float32())),
    "category": pa.list_(pa.int64()),
    "score": pa.list_(pa.float32()),
    "area": pa.list_(pa.float32()),
    "segmentation": pa.list_(pa.string()),
    "keypoints": pa.list_(pa.list_(pa.float32())),
}


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write shards as they fill, then the card."""
    write_legend(target)
    small, card = len(target.labels) <= IGNORED, Card(target.labels)
    with ExitStack() as files:
        by_part = ByPart(
            lambda part: files.enter_context(_Shards(target.folder / "data", part, target.labels)), target.parts
        )
        for sample in map(without_crowds, samples):
            by_part[sample.split or "train"].add(_row(sample, small, card))
            yield
        by_part.at_least("train")
    counts = {name: shards.rows for name, shards in by_part.items()}
    write_text(target.folder / "README.md", card.text(counts, target.licence))


def _row(sample: Sample, small: bool, card: Card) -> dict[str, Any]:
    """A row, counted for the card."""
    suffix, image = image_bytes(sample)
    semantic, steps = sample.semantic, depth_steps(sample)
    rows = list(object_rows(sample, {i: i for i in range(len(sample.labels))}))
    ids = None if semantic is None else small_ids(semantic) if small else semantic.ids
    card.count(sample, [r["category_id"] for r in rows])
    objects = {
        "bbox": [r["bbox"] for r in rows],
        "category": [r["category_id"] for r in rows],
        "score": [r["score"] for r in rows],
        "area": [r["area"] for r in rows],
        "segmentation": [r["segmentation"]["counts"] if r["segmentation"] else "" for r in rows],
        "keypoints": [r.get("keypoints", []) for r in rows],
    }
    return {
        "key": sample.key,
        "image": {"bytes": image, "path": f"image{suffix}"},
        "caption": caption_of(sample),
        "semantic": None if ids is None else {"bytes": encode_png(ids, 1), "path": None},
        "depth": None if steps is None else {"bytes": encode_png(steps, 1), "path": None},
        "objects": objects,
    }


def _schema(labels: Labels) -> pa.Schema:
    """Columns with the metadata from which `datasets` takes its features."""
    columns = {"key": pa.string(), "image": _IMAGE, "caption": pa.string(), "semantic": _IMAGE, "depth": _IMAGE}
    number, text = {"dtype": "float32", "_type": "Value"}, {"dtype": "string", "_type": "Value"}
    lists = {
        "bbox": _list(_list(number)),
        "category": _list({"names": list(labels.names), "_type": "ClassLabel"}),
        "score": _list(number),
        "area": _list(number),
        "segmentation": _list(text),
        "keypoints": _list(_list(number)),
    }
    features: dict[str, Any] = {n: {"_type": "Image"} if t == _IMAGE else text for n, t in columns.items()}
    info = json.dumps({"info": {"features": features | {"objects": lists}}})
    fields = [*columns.items(), ("objects", pa.struct(list(_OBJECTS.items())))]
    return pa.schema(fields, metadata={"huggingface": info})


def _list(feature: dict[str, Any]) -> dict[str, Any]:
    return {"feature": feature, "_type": "List"}


@dataclass
class _Shards:
    """The Parquet files of a split; their number is in their names, which they get at the end."""

    folder: Path
    name: str
    labels: Labels
    rows: int = 0
    _held: list[dict[str, Any]] = field(default_factory=list)
    _files: list[Path] = field(default_factory=list)
    _bytes: int = 0
    _held_bytes: int = 0
    _writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Shards:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open()
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self._held_bytes += sum(len(row[k]["bytes"]) for k in ("image", "semantic", "depth") if row[k])
        self._held.append(row)
        self.rows += 1
        del row  # else a large image would stay in memory twice
        if len(self._held) == GROUP_ROWS or self._held_bytes >= GROUP_BYTES:
            self._flush()
            if self._bytes >= SHARD_BYTES:
                self._close()
                self._open()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._close()
        if kind is None and not self.rows:
            self._files.pop().unlink()  # `datasets` refuses a split without rows
        if kind is None:
            for n, path in enumerate(self._files):
                path.rename(self.folder / f"{self.name}-{n:05d}-of-{len(self._files):05d}.parquet")

    def _open(self) -> None:
        self._files.append(self.folder / f"{self.name}-{len(self._files):05d}.tmp")
        self._bytes = 0
        self._writer = pq.ParquetWriter(
            self._files[-1], _schema(self.labels), compression="zstd", use_dictionary=False, write_statistics=False
        )  # a dictionary and statistics would hold images three times more

    def _flush(self) -> None:
        if self._held and self._writer:
            table = pa.Table.from_pylist(self._held, schema=self._writer.schema)
            self._bytes += self._held_bytes
            self._held, self._held_bytes = [], 0
            self._writer.write_table(table)

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None
