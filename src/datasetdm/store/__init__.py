"""Samples as Parquet shards: a folder that Hugging Face `datasets` opens, never half-written and always resumable.

    STORE/
      dataset.json                   format version, labels, tasks, recipe; written first
      data/shard-000000.parquet      `shard_size` rows each, replaced as a whole; the last may hold fewer

Rows are in order of their index, so the number of rows says where to go on. A store belongs to one recipe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasetdm.errors import DataError, StoreError
from datasetdm.io.codecs import compress_runs, decode_png, encode_png, rle_counts
from datasetdm.io.files import atomic, occupied, write_json, writing
from datasetdm.records import (
    Annotations,
    DepthMap,
    Instances,
    Keypoints,
    Labels,
    MaskStack,
    Prompt,
    Provenance,
    Sample,
    SemanticMap,
)

VERSION = 2
META = "dataset.json"

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "image": _PICTURE,
    "prompt": pa.string(),
    "prompt_labels": pa.list_(pa.string()),
    "seed": pa.uint64(),
    "semantic": _PICTURE,
    "semantic_confidence": _PICTURE,
    "depth": _PICTURE,
    "depth_step": pa.float64(),
    "depth_unit": pa.string(),
    "depth_confidence": _PICTURE,
    "instances": pa.string(),
    "keypoints": pa.string(),
    "provenance": pa.string(),
    # What filters ask for, so that no picture need be decoded to answer.
    "found": pa.list_(pa.string()),
    "objects": pa.list_(pa.string()),
    "score": pa.float32(),
}

LATEST = "depth_confidence"
"""The one column that stores of this version may lack."""


def _schema() -> pa.Schema:
    """Columns with the metadata that makes Hugging Face `datasets` decode the pictures."""
    hf: dict[str, Any] = {n: {"_type": "Image"} for n, t in _COLUMNS.items() if t == _PICTURE}
    words = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    hf |= {n: words for n, t in _COLUMNS.items() if t == pa.list_(pa.string())}
    names = {pa.string(): "string", pa.uint64(): "uint64", pa.float32(): "float32", pa.float64(): "float64"}
    hf |= {n: {"dtype": names[t], "_type": "Value"} for n, t in _COLUMNS.items() if t in names}
    info = json.dumps({"info": {"features": {n: hf[n] for n in _COLUMNS}}})
    return pa.schema(list(_COLUMNS.items()), metadata={"huggingface": info})


SCHEMA = _schema()


class Store:
    """An existing store: `len`, iteration over samples in order, and random access by row.

    Raises:
        StoreError: no store, a newer format, or damaged files.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.meta = read_meta(self.folder)
        self.labels = Labels.from_json(self.meta["labels"])
        self.recipe: dict[str, Any] = self.meta["recipe"]
        with ThreadPoolExecutor() as pool:
            self._counts = list(pool.map(_row_count, self._shards()))
        self._last: tuple[Path, pa.Table] | None = None
        size = self.meta["shard_size"]
        if any(c != size for c in self._counts[:-1]) or any(c > size for c in self._counts[-1:]):
            raise StoreError("a shard is incomplete", where=self.folder, expected=f"{size} rows in all but the last")

    def _shards(self) -> list[Path]:
        found = sorted((self.folder / "data").glob("shard-*.parquet"))
        expected = [shard_path(self.folder, i) for i in range(len(found))]
        if found != expected:
            missing = next(p for p, q in zip(expected, [*found, None], strict=False) if p != q)
            raise StoreError("a shard is missing", where=missing, expected="shards numbered without gaps")
        return found

    def __len__(self) -> int:
        return sum(self._counts)

    def __iter__(self) -> Iterator[Sample]:
        for path in self._shards():
            for row in _read_table(path).to_pylist():
                yield self._sample(row, path)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard, row = divmod(index, self.meta["shard_size"])
        path = shard_path(self.folder, shard)
        if self._last is None or self._last[0] != path:
            self._last = path, _read_table(path)  # neighbours are asked for next
        return self._sample(self._last[1].slice(row, 1).to_pylist()[0], path)

    def _sample(self, row: Mapping[str, Any], path: Path) -> Sample:
        try:
            return from_row(row, self.labels)
        except (OSError, ValueError, KeyError, TypeError, SyntaxError) as e:
            raise _damaged(path, e) from e


class Writer:
    """Appends samples to a new store, or to one of the same recipe.

    A shard is written whole when it is full, and by `flush` as far as it is; the same samples always give the same
    files, however often the writing was interrupted. Use as a context manager: leaving it flushes, whatever happened.

    Args:
        recipe: JSON-ready; an existing store of another recipe is an error that names the first difference.
    """

    def __init__(self, folder: Path | str, labels: Labels, recipe: Mapping[str, Any], shard_size: int = 256):
        self.folder, self.labels = Path(folder), labels
        self._meta: dict[str, Any] = {
            "format": "datasetdm-store",
            "version": VERSION,
            "labels": labels.to_json(),
            "shard_size": shard_size,
            "recipe": json.loads(json.dumps(recipe)),
        }
        self._rows: list[dict[str, Any]] = []
        self._dirty = False
        with writing(self.folder):
            claim(self.folder, self._meta)
        store = Store(self.folder)
        self.written = len(store)
        """Samples that the store holds, those not yet flushed included."""
        if self.written % shard_size:
            self._rows = _read_table(shard_path(self.folder, self.written // shard_size)).to_pylist()

    def add(self, sample: Sample) -> None:
        """Append one sample of the store's labels."""
        if sample.labels.names != self.labels.names:
            raise StoreError(
                f"sample {sample.key!r} has other labels", where=self.folder, expected="the store's labels"
            )
        self._rows.append(to_row(sample))
        self._dirty = True
        self.written += 1
        if len(self._rows) == self._meta["shard_size"]:
            self.flush()
            self._rows = []

    def flush(self) -> None:
        """Write what has been added since the last shard was full."""
        if not self._dirty:
            return
        table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
        with atomic(shard_path(self.folder, (self.written - 1) // self._meta["shard_size"])) as path:
            pq.write_table(table, path, compression="zstd", row_group_size=64)
        self._dirty = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()


def write_store(samples: Iterable[Sample], folder: Path | str, labels: Labels, shard_size: int = 256) -> int:
    """Write samples from anywhere as a new store; returns how many."""
    with Writer(folder, labels, {"source": "samples"}, shard_size) as writer:
        if writer.written:
            raise StoreError(
                "there is a store here already", where=folder, remedy="choose another folder, or delete it"
            )
        for sample in samples:
            writer.add(sample)
    return writer.written


def claim(folder: Path, meta: Mapping[str, Any]) -> None:
    """Make `folder` a store of this recipe, or find that it already is.

    Raises:
        StoreError: the folder holds something else, or a store of another recipe.
    """
    if not (folder / META).exists():
        if occupied(folder):
            raise StoreError(
                "the output place is taken by something that is no store",
                where=folder,
                expected="a new or empty folder, or a store of the same recipe",
                remedy="choose another --out",
            )
        write_json(folder / META, meta)
        return
    old = read_meta(folder)
    for key in ("labels", "shard_size"):
        if old[key] != meta[key]:
            raise _other_recipe(folder, key, old[key], meta[key])
    for key in sorted({*old["recipe"], *meta["recipe"]}):
        if old["recipe"].get(key) != meta["recipe"].get(key):
            raise _other_recipe(folder, key, old["recipe"].get(key), meta["recipe"].get(key))


def _other_recipe(folder: Path, key: str, old: object, new: object) -> StoreError:
    brief = [text if len(text := json.dumps(v)) <= 80 else text[:77] + "..." for v in (old, new)]
    return StoreError(
        f"the store belongs to another recipe: {key} differs",
        where=folder,
        expected=f"{key} = {brief[0]}, as the store was begun, not {brief[1]}",
        remedy="choose another --out, or repeat the store's own settings to go on with it",
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """A store's `dataset.json`."""
    path = folder / META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["format"] != "datasetdm-store" or meta["version"] != VERSION:
            age = "a newer" if meta["version"] > VERSION else "an older"
            raise StoreError(f"this store has {age} format", where=path, expected=f"version {VERSION}")
        _ = Labels.from_json(meta["labels"]), meta["shard_size"] + 1, meta["recipe"].keys()
    except (FileNotFoundError, NotADirectoryError) as e:
        raise StoreError(
            "there is no store here",
            where=folder,
            expected="a folder that `datasetdm generate` wrote",
            remedy="check the path",
        ) from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as e:
        raise StoreError(f"dataset.json cannot be read: {e!r}", where=path, remedy="generate the store again") from e
    return meta


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` lies."""
    return folder / "data" / f"shard-{number:06d}.parquet"


def _row_count(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as e:
        raise _damaged(path, e) from e


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
        if [n for n in SCHEMA.names if n != LATEST] == table.schema.names:
            table = table.append_column(SCHEMA.field(LATEST), pa.nulls(len(table), _PICTURE)).select(SCHEMA.names)
        if table.schema.names != SCHEMA.names:
            raise StoreError("a shard has other columns", where=path, expected=", ".join(SCHEMA.names))
        return table
    except (OSError, pa.ArrowException) as e:
        raise _damaged(path, e) from e


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"a shard is damaged: {(str(error) or repr(error)).splitlines()[0]}",
        where=path,
        expected="a whole Parquet file",
        remedy="delete the shard and all later ones, then run the same generate command: it goes on from there",
    )


# ---------------------------------------------------------------------- one sample, one row
def to_row(sample: Sample) -> dict[str, Any]:
    """A sample as a row of `SCHEMA`."""
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    provenance = json.dumps(sample.provenance.to_json())
    row |= {"key": sample.key, "image": _picture(sample.image), "provenance": provenance}
    if sample.prompt:
        prompt = sample.prompt
        row |= {"prompt": prompt.text, "prompt_labels": list(prompt.labels), "seed": prompt.seed}
    return row | _annotation_columns(sample.annotations) | summary(sample)


def summary(sample: Sample) -> dict[str, Any]:
    """found: labels with a pixel or an object; objects: every object's label; score: mean certainty of the labels."""
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
        row |= {"semantic": _picture(semantic.ids), "semantic_confidence": _levels(semantic.confidence)}
    if depth is not None:
        steps = np.rint(depth.quantised().depth / depth.step).astype(np.uint16)
        row |= {"depth": _picture(steps), "depth_step": depth.step, "depth_unit": depth.unit}
        row |= {"depth_confidence": _levels(depth.confidence)}
    if objects is not None:
        masks = [compress_runs(r, objects.size) for r in objects.masks.runs]
        value: dict[str, Any] = {"size": objects.size, "masks": masks, "label_ids": objects.label_ids.tolist()}
        value |= {"scores": objects.scores.tolist(), "boxed": objects.boxed}
        row["instances"] = json.dumps(value)
    if points is not None:
        value = {"xy": points.xy.tolist(), "visibility": points.visibility.tolist(), "names": points.names}
        if points.scores is not None:
            value["scores"] = points.scores.tolist()
        row["keypoints"] = json.dumps(value)
    return row


def from_row(row: Mapping[str, Any], labels: Labels) -> Sample:
    """The sample of a row."""
    semantic = depth = instances = keypoints = prompt = None
    if row["semantic"]:
        ids = decode_png(row["semantic"]["bytes"], np.uint16)
        semantic = SemanticMap(ids, _shares(row["semantic_confidence"]))
    if row["depth"]:
        steps = decode_png(row["depth"]["bytes"], np.float64)
        metres, sure = (steps * row["depth_step"]).astype(np.float32), _shares(row.get("depth_confidence"))
        depth = DepthMap(metres, steps > 0, row["depth_unit"], sure)
    if row["instances"]:
        value = json.loads(row["instances"])
        masks = MaskStack(map(rle_counts, value["masks"]), value["size"])
        instances = Instances(masks, value["label_ids"], value["scores"], boxed=value["boxed"])
    if row["keypoints"]:
        value = json.loads(row["keypoints"])
        n = len(value["names"])
        k = len(value["xy"][0]) if n else 0
        xy, seen = np.array(value["xy"]).reshape(n, k, 2), np.array(value["visibility"]).reshape(n, k)
        sure = np.array(value["scores"]).reshape(n, k) if "scores" in value else None
        keypoints = Keypoints(xy, seen, tuple(tuple(s) for s in value["names"]), sure)
    if row["prompt"] is not None:
        prompt = Prompt(row["prompt"], tuple(row["prompt_labels"]), row["seed"], "unknown")
    encoded = row["image"]["bytes"]
    return Sample(
        row["key"],
        decode_png(encoded, np.uint8),
        labels,
        prompt,
        semantic=semantic,
        instances=instances,
        depth=depth,
        keypoints=keypoints,
        provenance=Provenance.from_json(json.loads(row["provenance"])),
        encoded=encoded,
    )


def _picture(array: np.ndarray) -> dict[str, Any]:
    return {"bytes": encode_png(array), "path": None}


def _levels(confidence: np.ndarray | None) -> dict[str, Any] | None:
    return None if confidence is None else _picture(np.rint(confidence.astype(np.float32) * 255).astype(np.uint8))


def _shares(picture: Mapping[str, Any] | None) -> np.ndarray | None:
    return None if picture is None else decode_png(picture["bytes"], np.float32) / 255
