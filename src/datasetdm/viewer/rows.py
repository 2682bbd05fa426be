"""Single rows of a store of any size, and the columns that lists and filters need. Only what is looked at is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasetdm.errors import StoreError
from datasetdm.records import Sample
from datasetdm.store import Store, from_row, shard_path

LISTED = ("key", "prompt", "found", "objects", "score", "provenance")
"""Columns that a list of samples shows."""

READERS = 4
"""Shards that are read at a time."""


class Rows:
    """The rows that `store` holds now. The last few row groups and samples stay in memory; safe to share among threads."""

    def __init__(self, store: Store):
        self.store, self.count = store, len(store)
        self._lock = Lock()
        self._bounds = lru_cache(4096)(_bounds)
        self._group = lru_cache(4)(_read_group)
        self.sample = lru_cache(16)(self._sample)

    def __len__(self) -> int:
        return self.count

    def row(self, number: int) -> dict[str, Any]:
        """Row `number`, nothing in it decoded. Raises IndexError, StoreError."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        path, within = self._place(number)
        with self._lock:
            starts = self._bounds(path)
            group = max(i for i, start in enumerate(starts) if start <= within)
            return self._group(path, group).slice(within - starts[group], 1).to_pylist()[0]

    def _sample(self, number: int) -> Sample:
        """The sample of row `number`."""
        row = self.row(number)
        try:
            return from_row(row, self.store.labels)
        except (OSError, ValueError, KeyError, TypeError, SyntaxError) as e:
            raise StoreError(f"sample {row['key']!r} is damaged: {e!r}", where=self._place(number)[0]) from e

    def listed(self, start: int, stop: int) -> pa.Table:
        """Columns `LISTED` of the rows from `start` to before `stop`, without reading others."""
        size = self.store.meta["shard_size"]
        first, last = start // size, (max(start, stop - 1)) // size
        paths = [shard_path(self.store.folder, i) for i in range(first, last + 1)]
        with ThreadPoolExecutor(READERS) as pool:
            table = pa.concat_tables(pool.map(_read_listed, paths))
        return table.slice(start - first * size, stop - start)

    def annotated(self) -> set[str]:
        """Annotation columns that the first or the last shard has values of."""
        size = self.store.meta["shard_size"]
        shards = {0, (self.count - 1) // size} if self.count else set()
        return set().union(*(_filled(shard_path(self.store.folder, s)) for s in shards))

    def _place(self, number: int) -> tuple[Path, int]:
        shard, within = divmod(number, self.store.meta["shard_size"])
        return shard_path(self.store.folder, shard), within


def _bounds(path: Path) -> Sequence[int]:
    """Where each row group begins."""
    with _open(path) as f:
        starts = [0]
        for i in range(f.metadata.num_row_groups - 1):
            starts.append(starts[-1] + f.metadata.row_group(i).num_rows)
        return starts


def _read_group(path: Path, group: int) -> pa.Table:
    with _open(path) as f:
        return f.read_row_group(group)


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
