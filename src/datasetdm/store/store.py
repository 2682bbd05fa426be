"""Reading a store: samples in order, single ones, and columns without their images."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasetdm.errors import DataError, StoreError
from datasetdm.records import Labels, Quality, Sample
from datasetdm.store.manifest import (
    META,
    RESTORE,
    current_manifest,
    damaged,
    open_verified,
    read_meta,
    shard_path,
)
from datasetdm.store.quality import read_quality
from datasetdm.store.rows import Row, from_row, quality_columns, summary
from datasetdm.store.schema import COLUMNS, MIGRATIONS, VERSION, migrate

THREADS = 4
"""Shards and samples that are read at a time."""

AHEAD = 16
"""Large samples that are decoded before they are asked for."""

THREADED = 2**19
"""Bytes of a row from which it is decoded in a thread of its own; with smaller ones, threads wait for each other (Python's
global lock) for longer than they help."""

CACHED_GROUPS = 4
"""Row groups that stay in memory for random access."""

HEADER = 64
"""Bytes of an encoded image that tell its size."""

ROW_ERRORS = (OSError, ValueError, KeyError, TypeError, IndexError, SyntaxError, OverflowError, DataError)
"""What a row raises that no sample gave."""


@dataclass(frozen=True)
class Shard:
    """A shard that a store held when it was opened.

    Args:
        path: its file.
        start: the number of its first row.
        rows: how many it has.
        checked: it has a manifest; shards of version 2 have none, and only Parquet's own checks.
    """

    path: Path
    start: int
    rows: int
    checked: bool = True

    @contextmanager
    def opened(self) -> Generator[tuple[pq.ParquetFile, int]]:
        """Its file, and the version of its columns. Raises StoreError, also while it is read."""
        with open_shard(self.path, self.checked) as opened:
            yield opened

    def keys(self) -> Sequence[str]:
        """The keys of its rows."""
        if self.checked:
            manifest = current_manifest(self.path)
            return manifest.keys[: self.rows] if manifest else ()
        with self.opened() as (file, _):
            return file.read(columns=["key"])["key"].to_pylist()


class _Group(NamedTuple):
    """Rows that are read at a time."""

    path: Path
    version: int
    rows: list[Row]
    row_bytes: float


class Store:
    """An existing store: `len`, iteration over samples in order, and random access by row.

    It shows the rows that were there when it was opened, and may be shared among threads.

    Args:
        folder: where it lies.

    Raises:
        StoreError: no store, a newer format, or damaged files; also later, when a damaged row is read.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.meta = read_meta(self.folder)
        self.labels = Labels.from_json(self.meta["labels"])
        self.stream: dict[str, Any] = self.meta["stream"]
        """Where the samples come from, JSON-ready."""
        self.quality: Mapping[str, Quality] = read_quality(self.folder)
        """By key, what filters found out after the sample was written; it replaces the row's own."""
        self.shards = _find_shards(self.folder, self.meta["version"])
        self._starts = [s.start for s in self.shards]
        self._lock = threading.Lock()
        self._group = lru_cache(CACHED_GROUPS)(self._read_group)
        self._bounds = lru_cache(4096)(_group_bounds)

    def __len__(self) -> int:
        return self.shards[-1].start + self.shards[-1].rows if self.shards else 0

    def __iter__(self) -> Iterator[Sample]:
        with closing(self._groups()) as groups, ThreadPoolExecutor(THREADS) as pool:
            waiting: deque[Callable[[], Sample]] = deque()
            coming = pool.submit(lambda: next(groups, None))
            try:
                while group := coming.result():
                    coming = pool.submit(lambda: next(groups, None))
                    for row in group.rows:
                        decode = partial(self._sample, row, group.path, group.version)
                        waiting.append(pool.submit(decode).result if group.row_bytes >= THREADED else decode)
                        if len(waiting) >= AHEAD:
                            yield waiting.popleft()()
                while waiting:
                    yield waiting.popleft()()
            finally:
                pool.shutdown(cancel_futures=True)

    def __getitem__(self, index: int) -> Sample:
        shard, version, rows = self._locate(index)
        return self._sample(self._row(rows), shard.path, version)

    def without_pixels(self, index: int) -> Sample:
        """A sample with a black image of the right size: all but the image is read. Raises IndexError, StoreError."""
        shard, version, rows = self._locate(index)
        header = {"bytes": _image_bytes(rows)[:HEADER].to_pybytes(), "path": None}
        row = self._row(rows.drop_columns("image")) | {"image": header}
        return self._sample(row, shard.path, version, pixels=False)

    def encoded(self, index: int) -> pa.Buffer:
        """The stored image of a row, not copied. Raises IndexError, StoreError."""
        return _image_bytes(self._locate(index)[2])

    def keys(self) -> Iterator[str]:
        """The keys of all rows, in order."""
        for shard in self.shards:
            yield from shard.keys()

    def row(self, index: int) -> dict[str, Any]:
        """One row, nothing in it decoded. Raises IndexError, StoreError."""
        return self._row(self._locate(index)[2])

    def table(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> pa.Table:
        """Some columns of the rows from `start` to before `stop`, without reading others."""
        stop = len(self) if stop is None else min(stop, len(self))
        needed = [s for s in self.shards if s.start < stop and start < s.start + s.rows]
        if not needed:
            return pa.table({name: pa.array([], COLUMNS[name]) for name in columns})
        with ThreadPoolExecutor(THREADS) as pool:
            found = pa.concat_tables(pool.map(lambda s: self._read(s, columns), needed))
        return found.slice(start - needed[0].start, stop - start)

    def filled(self) -> set[str]:
        """The columns that the first or the last shard has values of, by the files' own statistics."""
        return set().union(*(_filled_columns(s) for s in {*self.shards[:1], *self.shards[-1:]}))

    def _groups(self) -> Generator[_Group]:
        """Every row group."""
        for shard in self.shards:
            left = shard.rows
            with shard.opened() as (file, version):
                for group in range(file.num_row_groups):
                    table = _whole(file.read_row_group(group), version, shard.path)
                    rows = [self._with_quality(row) for row in table.slice(0, left).to_pylist()]
                    left -= len(rows)
                    row_bytes = table.nbytes / table.num_rows
                    del table  # not held while its rows are in use
                    yield _Group(shard.path, version, rows, row_bytes)

    def _locate(self, index: int) -> tuple[Shard, int, pa.Table]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        shard = self.shards[number]
        within = index - shard.start
        with self._lock:
            bounds = self._bounds(shard)
            group = int(np.searchsorted(bounds, within, "right")) - 1
            table, version = self._group(number, group)
        return shard, version, table.slice(within - bounds[group], 1)

    def _row(self, rows: pa.Table) -> dict[str, Any]:
        """A table of one row as a mapping."""
        return dict(self._with_quality(rows.to_pylist()[0]))

    def _read_group(self, number: int, group: int) -> tuple[pa.Table, int]:
        shard = self.shards[number]
        with shard.opened() as (file, version):
            return _whole(file.read_row_group(group), version, shard.path), version

    def _read(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        with shard.opened() as (file, version):
            there = [c for c in columns if c in file.schema_arrow.names]
            table = _whole(file.read(columns=there, use_threads=False), version, shard.path, columns)
        return self._table_with_quality(table.slice(0, shard.rows), shard)

    def _table_with_quality(self, table: pa.Table, shard: Shard) -> pa.Table:
        changed = [n for n in table.column_names if n.startswith("quality_")]
        if not self.quality or not changed:
            return table
        keys = table["key"].to_pylist() if "key" in table.column_names else shard.keys()
        later = [quality_columns(self.quality[k]) if k in self.quality else None for k in keys]
        for name in changed:
            values = [v if n is None else n[name] for v, n in zip(table[name].to_pylist(), later, strict=True)]
            table = table.set_column(table.column_names.index(name), name, pa.array(values, COLUMNS[name]))
        return table

    def _with_quality(self, row: Row) -> Row:
        later = self.quality.get(row["key"])
        return row if later is None else {**row, **quality_columns(later)}

    def _sample(self, row: Row, path: Path, version: int, pixels: bool = True) -> Sample:
        try:
            sample = from_row(row, self.labels, pixels)
        except ROW_ERRORS as e:
            raise damaged(path, f"row {row['key']!r}: {str(e) or repr(e)}") from e
        if version < VERSION and row["found"] != summary(sample)["found"]:
            raise StoreError(
                f"the labels of sample {row['key']!r} are not those that it was written with",
                where=self.folder / META,
                expected=f"names by which it shows {', '.join(row['found']) or 'nothing'}",
                remedy="restore dataset.json from a copy",
            )
        return sample


def _find_shards(folder: Path, version: int) -> tuple[Shard, ...]:
    """The shards that are there, numbered without gaps."""
    checked = version >= VERSION
    files = list((folder / "data").glob("shard-*.parquet"))
    manifests = list((folder / "data").glob("shard-*.json")) if checked else []
    found = sorted({p.stem for p in (*files, *manifests)})
    paths = [shard_path(folder, i) for i in range(len(found))]
    if missing := [p for p, name in zip(paths, found, strict=True) if p.stem != name]:
        raise StoreError(
            "a shard is missing", where=missing[0], expected="shards numbered without gaps", remedy=RESTORE
        )
    with ThreadPoolExecutor(THREADS) as pool:
        counts = list(pool.map(lambda path: _count_rows(path, checked), paths))
    starts = np.cumsum([0, *counts]).tolist()
    return tuple(Shard(p, start, rows, checked) for p, start, rows in zip(paths, starts, counts, strict=False) if rows)


def _count_rows(path: Path, checked: bool) -> int:
    if checked:
        manifest = current_manifest(path)
        return 0 if manifest is None else manifest.rows
    with open_shard(path, checked) as (file, _):
        return file.metadata.num_rows


@contextmanager
def open_shard(path: Path, checked: bool) -> Generator[tuple[pq.ParquetFile, int]]:
    """A shard's file, verified while it is read if it has a manifest, and the version of its columns."""
    try:
        if not checked:
            with pq.ParquetFile(path) as file:
                yield file, min(MIGRATIONS)
            return
        verified, manifest = open_verified(path)
        with verified, pq.ParquetFile(pa.PythonFile(verified, mode="r"), buffer_size=1 << 20) as file:
            if file.metadata.num_rows != manifest.rows:
                raise damaged(path, f"{file.metadata.num_rows} rows instead of {manifest.rows}")
            yield file, manifest.version
    except (OSError, pa.ArrowException, UnicodeDecodeError) as e:
        raise damaged(path, str(e) or repr(e)) from e


def _whole(table: pa.Table, version: int, path: Path, columns: Sequence[str] = tuple(COLUMNS)) -> pa.Table:
    """A table of any version as one of today's, with these columns in this order."""
    table = migrate(table, version)
    if missing := [c for c in columns if c not in table.column_names]:
        raise StoreError(f"a shard has no column {missing[0]}", where=path, expected=", ".join(columns), remedy=RESTORE)
    return table.select(list(columns))


def _image_bytes(rows: pa.Table) -> pa.Buffer:
    """The encoded image of a table of one row, as a view (a scalar of Arrow would be a copy)."""
    column = rows["image"].chunk(0).field("bytes")
    _, offsets, data = column.buffers()
    start, stop = np.frombuffer(offsets, np.int32)[column.offset : column.offset + 2].tolist()
    return data.slice(start, stop - start)


def _group_bounds(shard: Shard) -> list[int]:
    """Where each row group begins."""
    with shard.opened() as (file, _):
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return np.cumsum([0, *counts])[:-1].tolist()


def _filled_columns(shard: Shard) -> set[str]:
    with shard.opened() as (file, _):
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        columns = [g.column(c) for g in groups for c in range(g.num_columns)]
        some = [c for c in columns if c.statistics is None or c.statistics.null_count < c.num_values]
        return {c.path_in_schema.split(".")[0] for c in some}
