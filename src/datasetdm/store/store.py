"""Reading a store: samples in order, single ones, and columns without their images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasetdm.errors import DataError, StoreError
from datasetdm.io.files import distant
from datasetdm.io.recent import Recent
from datasetdm.io.remote import Place, as_place
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

Result = TypeVar("Result")

THREADS = 4
"""Shards and samples that are read at a time."""

REQUESTS = 16
"""Shards that are read at a time over a network."""

REOPENED = 3
"""Times that a shard is opened anew because its writer replaced it while it was read."""

AHEAD = 16
"""Large samples that are decoded before they are asked for."""

THREADED = 2**19
"""Bytes of a row from which it is decoded in a thread of its own; with smaller ones, threads wait for each other (Python's
global lock) for longer than they help."""

KEPT_BYTES = 64_000_000
"""Row groups that stay in memory for random access."""

READERS = 2
"""Row groups that are read at a time for random access: more would take more memory and no less time."""

IMAGE = ("image",)
OTHERS = tuple(name for name in COLUMNS if name not in IMAGE)

HEADER = 64
"""Bytes of an encoded image that tell its size."""

ROW_ERRORS = (OSError, ValueError, KeyError, TypeError, IndexError, SyntaxError, OverflowError, DataError)
"""What a row raises that no sample gave."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard that a store held when it was opened. A large store has thousands, so it holds little.

    Args:
        folder, number: its place, in a store.
        start: the number of its first row.
        rows: how many it has.
        checked: it has a manifest; shards of version 2 have none, and only Parquet's own checks.
    """

    folder: Place
    number: int
    start: int
    rows: int
    checked: bool = True

    @property
    def path(self) -> Place:
        """Its file."""
        return shard_path(self.folder, self.number)

    @contextmanager
    def opened(self) -> Generator[tuple[pq.ParquetFile, int]]:
        """Its file, and the version of its columns. Raises StoreError, also while it is read."""
        with open_shard(self.path, self.checked) as opened:
            yield opened

    def read(self, use: Callable[[pq.ParquetFile, int], Result]) -> Result:
        """What `use` gives of its file and the version of its columns. Raises StoreError."""
        for left in reversed(range(REOPENED)):
            try:
                with self.opened() as opened:
                    return use(*opened)
            except ShardReplaced:
                if not left:
                    raise
        raise AssertionError

    def keys(self) -> Sequence[str]:
        """The keys of its rows."""
        if self.checked:
            return manifest.keys[: self.rows] if (manifest := current_manifest(self.path)) else ()
        return self.read(lambda file, _: file.read(columns=["key"])["key"].to_pylist())


class _Group(NamedTuple):
    """Rows that are read at a time."""

    path: Place
    version: int
    rows: list[Row]
    row_bytes: float


class Store:
    """An existing store: `len`, iteration over samples in order, and random access by row.

    It shows the rows that were there when it was opened, and may be shared among threads.

    Args:
        folder: where it lies, a URL for one on remote storage (`s3://bucket/folder`).

    Raises:
        StoreError: no store, a newer format, or damaged files; also later, when a damaged row is read.
        RemoteError: the storage refuses or fails, also later.
    """

    def __init__(self, folder: Place | str):
        self.folder = as_place(folder)
        self.parallel = REQUESTS if distant(self.folder) else THREADS
        self.meta = read_meta(self.folder)
        self.labels = Labels.from_json(self.meta["labels"])
        self.stream: dict[str, Any] = self.meta["stream"]
        """Where the samples come from, JSON-ready."""
        self.made: dict[str, Any] = dict(self.meta.get("made") or {})
        """What made it, as it was begun: names, licences and hashes of models, versions of software; JSON-ready."""
        self.quality: Mapping[str, Quality] = read_quality(self.folder)
        """By key, what filters found out after the sample was written; it replaces the row's own."""
        self.shards = _find_shards(self.folder, self.meta["version"])
        self._starts = [s.start for s in self.shards]
        readers = REQUESTS if distant(self.folder) else READERS
        self._recent: Recent[tuple[pa.Table, int]] = Recent(KEPT_BYTES, lambda group: group[0].nbytes, readers)
        self._bounds: Recent[list[int]] = Recent(4096, at_once=THREADS)

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
        shard, version, rows = self._locate(index, OTHERS)
        row = self._row(rows) | {"image": {"bytes": self.encoded(index)[:HEADER].to_pybytes(), "path": None}}
        return self._sample(row, shard.path, version, pixels=False)

    def encoded(self, index: int) -> pa.Buffer:
        """The stored image of a row, not copied. Raises IndexError, StoreError."""
        return _image_bytes(self._locate(index, IMAGE)[2])

    def keys(self) -> Iterator[str]:
        """The keys of all rows, in order."""
        if not distant(self.folder):
            for shard in self.shards:
                yield from shard.keys()
            return
        with ThreadPoolExecutor(REQUESTS) as pool:
            waiting: deque[Future[Sequence[str]]] = deque()
            for shard in self.shards:
                waiting.append(pool.submit(shard.keys))
                if len(waiting) >= REQUESTS:
                    yield from waiting.popleft().result()
            for coming in waiting:
                yield from coming.result()

    def row(self, index: int) -> dict[str, Any]:
        """One row, nothing in it decoded. Raises IndexError, StoreError."""
        return self._row(self._locate(index)[2])

    def table(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> pa.Table:
        """Some columns of the rows from `start` to before `stop`, without reading others."""
        stop = len(self) if stop is None else min(stop, len(self))
        needed = [s for s in self.shards if s.start < stop and start < s.start + s.rows]
        if not needed:
            return pa.table({name: pa.array([], COLUMNS[name]) for name in columns})
        with ThreadPoolExecutor(self.parallel) as pool:
            found = pa.concat_tables(pool.map(lambda s: self._read(s, columns), needed))
        return found.slice(start - needed[0].start, stop - start)

    def filled(self) -> set[str]:
        """The columns that the first or the last shard has values of, by the files' own statistics."""
        return set().union(*(_filled_columns(s) for s in {*self.shards[:1], *self.shards[-1:]}))

    def _groups(self) -> Generator[_Group]:
        """Every row group."""
        for shard in self.shards:
            given = 0
            for left in reversed(range(REOPENED)):
                try:
                    for group in self._groups_of(shard, given):
                        given += len(group.rows)
                        yield group
                    break
                except ShardReplaced:  # its first rows are the same
                    if not left:
                        raise

    def _groups_of(self, shard: Shard, given: int) -> Generator[_Group]:
        """The row groups of a shard whose first `given` rows have been read."""
        with shard.opened() as (file, version):
            start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if stop > given and start < shard.rows:
                    table = _whole(file.read_row_group(group), version, shard.path)
                    row_bytes = table.nbytes / table.num_rows
                    wanted = table.slice(max(0, given - start), shard.rows - max(start, given))
                    rows = [self._with_quality(row) for row in wanted.to_pylist()]
                    del table, wanted  # not held while its rows are in use
                    yield _Group(shard.path, version, rows, row_bytes)
                start = stop

    def place(self, index: int) -> tuple[int, int, int]:
        """Where a row lies: shard, row group of the shard, row of the group. Raises IndexError, StoreError."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        bounds = self._bounds.get(number, lambda: _group_bounds(self.shards[number]))
        group = int(np.searchsorted(bounds, index, "right")) - 1
        return number, group, index - bounds[group]

    def _locate(self, index: int, columns: Sequence[str] = tuple(COLUMNS)) -> tuple[Shard, int, pa.Table]:
        number, group, row = self.place(index)
        shard = self.shards[number]
        table, version = self._recent.get((number, group, columns), lambda: self._read_group(shard, group, columns))
        return shard, version, table.slice(row, 1)

    def _row(self, rows: pa.Table) -> dict[str, Any]:
        return dict(self._with_quality(rows.to_pylist()[0]))

    def _read_group(self, shard: Shard, group: int, columns: Sequence[str]) -> tuple[pa.Table, int]:
        def read(file: pq.ParquetFile, version: int) -> tuple[pa.Table, int]:
            table = file.read_row_group(group, _there(file, columns), use_threads=False)
            return _whole(table, version, shard.path, columns), version

        return shard.read(read)

    def _read(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        def read(file: pq.ParquetFile, version: int) -> pa.Table:
            table = file.read(_there(file, columns), use_threads=False)
            return _whole(table, version, shard.path, columns)

        table = shard.read(read)
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

    def _sample(self, row: Row, path: Place, version: int, pixels: bool = True) -> Sample:
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


def _find_shards(folder: Place, version: int) -> tuple[Shard, ...]:
    """The shards that are there, numbered without gaps."""
    checked = version >= VERSION
    suffixes = ("parquet", "json") if checked else ("parquet",)
    found = sorted({p.stem for suffix in suffixes for p in (folder / "data").glob(f"shard-*.{suffix}")})
    if missing := next((p for i, name in enumerate(found) if (p := shard_path(folder, i)).stem != name), None):
        raise StoreError("a shard is missing", where=missing, expected="shards numbered without gaps", remedy=RESTORE)
    threads = REQUESTS if distant(folder) else THREADS
    with ThreadPoolExecutor(threads) as pool:  # one task per thread: one per shard would take memory
        every = [range(first, len(found), threads) for first in range(threads)]
        counts = list(pool.map(lambda own: [_count_rows(shard_path(folder, i), checked) for i in own], every))
    rows = [counts[i % threads][i // threads] for i in range(len(found))]
    starts = np.cumsum([0, *rows]).tolist()
    return tuple(Shard(folder, i, starts[i], count, checked) for i, count in enumerate(rows) if count)


def _count_rows(path: Place, checked: bool) -> int:
    if checked:
        return manifest.rows if (manifest := current_manifest(path)) else 0
    with open_shard(path, checked) as (file, _):
        return file.metadata.num_rows


class ShardReplaced(StoreError):
    """Its writer replaced the last shard of a store while it was read."""


@contextmanager
def open_shard(path: Place, checked: bool) -> Generator[tuple[pq.ParquetFile, int]]:
    """A shard's file, verified while it is read if it has a manifest, and the version of its columns."""
    try:
        if not checked:
            with path.open("rb") as plain, pq.ParquetFile(plain) as file:
                yield file, min(MIGRATIONS)
            return
        verified, manifest = open_verified(path)
        far = distant(path)
        reads = {"pre_buffer": True} if far else {"buffer_size": 1 << 20}
        try:
            with verified, pq.ParquetFile(pa.PythonFile(verified, mode="r"), **reads) as file:
                if file.metadata.num_rows != manifest.rows:
                    raise damaged(path, f"{file.metadata.num_rows} rows instead of {manifest.rows}")
                yield file, manifest.version
        except (StoreError, OSError, pa.ArrowException) as e:
            if far and current_manifest(path) != manifest:
                raise ShardReplaced(
                    "a shard was replaced while it was read", where=path, remedy="run the same command again"
                ) from e
            raise
    except (OSError, pa.ArrowException, UnicodeDecodeError) as e:
        raise damaged(path, str(e) or repr(e)) from e


def _whole(table: pa.Table, version: int, path: Place, columns: Sequence[str] = tuple(COLUMNS)) -> pa.Table:
    """A table of any version as one of today's, with these columns in this order."""
    table = migrate(table, version)
    if missing := [c for c in columns if c not in table.column_names]:
        raise StoreError(f"a shard has no column {missing[0]}", where=path, expected=", ".join(columns), remedy=RESTORE)
    return table.select(list(columns))


def _there(file: pq.ParquetFile, columns: Sequence[str]) -> list[str]:
    """Those of the columns that the file has."""
    return [c for c in columns if c in file.schema_arrow.names]


def _image_bytes(rows: pa.Table) -> pa.Buffer:
    """The encoded image of a table of one row, as a view (a scalar of Arrow would be a copy)."""
    column = rows["image"].chunk(0).field("bytes")
    _, offsets, data = column.buffers()
    start, stop = np.frombuffer(offsets, np.int32)[column.offset : column.offset + 2].tolist()
    return data.slice(start, stop - start)


def _group_bounds(shard: Shard) -> list[int]:
    """The first row of each row group, counted as the store does."""
    counts = shard.read(lambda file, _: [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    return np.cumsum([shard.start, *counts])[:-1].tolist()


def _filled_columns(shard: Shard) -> set[str]:
    def read(file: pq.ParquetFile, _: int) -> set[str]:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        parts = [g.column(c) for g in groups for c in range(g.num_columns)]
        return {c.path_in_schema.split(".")[0] for c in parts if not (s := c.statistics) or s.null_count < c.num_values}

    return shard.read(read)
