"""Single rows of a store of any size, and the columns that lists and filters need. Only what is looked at is decoded."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from PIL import Image

from datasetdm.errors import StoreError
from datasetdm.records import Sample
from datasetdm.store import Store, from_row, shard_path

LISTED = ("key", "prompt", "found", "objects", "score", "reasons", "scores")
"""Columns of a store that `Listed` holds; old stores lack the last two."""

READERS = 4
"""Shards that are read at a time."""

KEPT_BYTES = 64_000_000
"""Row groups, and decoded samples, that stay in memory."""

BYTES_PER_PIXEL = 16
"""Of a sample with all annotations, about."""

LARGE = 2_000_000
"""Images of more pixels are decoded and painted one at a time, so that memory does not grow with the number of requests."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Listed:
    """What lists and filters need to know about some rows.

    labels: lists of labels with a pixel or an object. objects: lists of every object's label.
    confidence: the labels' mean, 0 to 1; NaN if they have none. reasons: lists of why filters rejected the row.
    scores: of filters, by name; NaN where a row has none.
    """

    keys: pa.Array
    prompts: pa.Array
    labels: pa.Array
    objects: pa.Array
    confidence: Float32[np.ndarray, "n"]
    reasons: pa.Array
    scores: Mapping[str, Float32[np.ndarray, "n"]]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> Listed:
        """The chosen rows, in this order."""
        columns = (self.keys, self.prompts, self.labels, self.objects)
        scores = {name: values[rows] for name, values in self.scores.items()}
        chosen = pa.array(rows, pa.int64())
        return Listed(*(c.take(chosen) for c in columns), self.confidence[rows], self.reasons.take(chosen), scores)

    @classmethod
    def from_table(cls, table: pa.Table) -> Listed:
        """The columns as a store holds them."""
        keys, prompts, labels, objects, confidence = (table[n].combine_chunks() for n in LISTED[:5])
        reasons, scores = pa.array([[]] * len(table), pa.list_(pa.string())), {}
        return cls(keys, prompts, labels, objects, confidence.to_numpy(False).astype(np.float32), reasons, scores)


class Recent(Generic[Value]):
    """The values used last, up to a total weight; safe to share among threads."""

    def __init__(self, limit: int, weight: Callable[[Value], int]):
        self._limit, self._weight = limit, weight
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`, made if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._total += self._weight(value)
            while self._total > self._limit:
                self._total -= self._weight(self._values.popitem(last=False)[1])
        return value


class Rows:
    """The rows that `store` holds now; safe to share among threads."""

    def __init__(self, store: Store):
        self.store, self.count = store, len(store)
        self._lock, self._one_large = Lock(), Lock()
        self._starts = lru_cache(4096)(_group_starts)
        self._groups: Recent[pa.Table] = Recent(KEPT_BYTES, lambda table: table.nbytes)
        self._samples: Recent[Sample] = Recent(KEPT_BYTES, lambda s: s.size[0] * s.size[1] * BYTES_PER_PIXEL)

    def __len__(self) -> int:
        return self.count

    def row(self, number: int) -> dict[str, Any]:
        """Row `number`, nothing in it decoded.

        Raises:
            IndexError: no such row. StoreError: a damaged file.
        """
        if not 0 <= number < self.count:
            raise IndexError(number)
        path, within = self._place(number)
        with self._lock:
            starts = self._starts(path)
            group = max(i for i, start in enumerate(starts) if start <= within)
            table = self._groups.get((path, group), lambda: _read_group(path, group))
            return table.slice(within - starts[group], 1).to_pylist()[0]

    def sample(self, number: int) -> Sample:
        """The sample of row `number`.

        Raises:
            IndexError: no such row. StoreError: a damaged file.
        """
        return self._samples.get(number, lambda: self._sample(number))

    def encoded(self, number: int) -> bytes:
        """The stored image of row `number`."""
        return self.row(number)["image"]["bytes"]

    @contextmanager
    def turn(self, number: int) -> Generator[None]:
        """Held while row `number` is decoded and painted; waits for other large images if it is large itself."""
        if _pixels(self.encoded(number)) <= LARGE:
            yield
            return
        with self._one_large:
            yield

    def _sample(self, number: int) -> Sample:
        row = self.row(number)
        try:
            return from_row(row, self.store.labels)
        except (OSError, ValueError, KeyError, TypeError, SyntaxError) as e:
            raise StoreError(f"sample {row['key']!r} is damaged: {e!r}", where=self._place(number)[0]) from e

    def listed(self, start: int, stop: int) -> Listed:
        """The rows from `start` to before `stop`, without reading others."""
        size = self.store.meta["shard_size"]
        first, last = start // size, (max(start, stop - 1)) // size
        paths = [shard_path(self.store.folder, i) for i in range(first, last + 1)]
        with ThreadPoolExecutor(READERS) as pool:
            table = pa.concat_tables(pool.map(_read_listed, paths))
        return Listed.from_table(table.slice(start - first * size, stop - start))

    def annotated(self) -> set[str]:
        """Annotation columns that the first or the last shard has values of."""
        size = self.store.meta["shard_size"]
        shards = {0, (self.count - 1) // size} if self.count else set()
        return set().union(*(_filled(shard_path(self.store.folder, s)) for s in shards))

    def _place(self, number: int) -> tuple[Path, int]:
        shard, within = divmod(number, self.store.meta["shard_size"])
        return shard_path(self.store.folder, shard), within


def _pixels(encoded: bytes) -> int:
    """Of an encoded image, by its header; 0 if it is none."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.width * image.height
    except (OSError, ValueError, SyntaxError):
        return 0


def _group_starts(path: Path) -> Sequence[int]:
    """The first row of each row group."""
    with _open(path) as f:
        starts = [0]
        for i in range(f.metadata.num_row_groups - 1):
            starts.append(starts[-1] + f.metadata.row_group(i).num_rows)
        return starts


def _read_group(path: Path, group: int) -> pa.Table:
    with _open(path) as f:
        return f.read_row_group(group, use_threads=False)


def _read_listed(path: Path) -> pa.Table:
    with _open(path) as f:
        return f.read(columns=list(LISTED), use_threads=False)


def _filled(path: Path) -> set[str]:
    """Columns in which not every value is missing, by the file's own statistics."""
    with _open(path) as f:
        groups = [f.metadata.row_group(i) for i in range(f.metadata.num_row_groups)]
        columns = [g.column(c) for g in groups for c in range(g.num_columns)]
        some = [c for c in columns if c.statistics is None or c.statistics.null_count < c.num_values]
        return {c.path_in_schema.split(".")[0] for c in some}


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as e:
        raise StoreError(f"a shard is damaged: {e!r}", where=path, expected="a whole Parquet file") from e
