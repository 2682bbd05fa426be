"""Writing a store: one writer at a time, and always in a state that opens and goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasetdm.errors import StoreError
from datasetdm.io.files import atomic, copied, locked, occupied, remove_leftovers
from datasetdm.io.remote import Place, as_place
from datasetdm.io.stopping import forget, remember, uninterrupted
from datasetdm.records import Labels, Quality, Sample
from datasetdm.records.edits import reject
from datasetdm.store.keys import KeySet
from datasetdm.store.manifest import (
    META,
    Manifest,
    announce,
    current_manifest,
    read_meta,
    settle,
    shard_path,
    write_checked,
    write_manifest,
)
from datasetdm.store.quality import append_qualities
from datasetdm.store.rows import to_row, to_table
from datasetdm.store.schema import GROUP_BYTES, GROUP_ROWS, MIGRATIONS, SCHEMA, VERSION
from datasetdm.store.store import Store

LOCK = ".store.lock"
SHARD_BYTES = 1 << 28
"""Encoded rows, in bytes, with which a shard is full, so that memory does not grow with the size of images."""


class Writer:
    """Appends samples to a new store, or to one of the same stream. Use as a context manager: leaving it flushes, whatever
    happened.

    A shard is written whole when it is full (of rows, or of `SHARD_BYTES`), and by `flush` as far as it is; the same samples
    always give the same shards, however often the writing was interrupted.

    Args:
        folder: new, empty, or a store.
        labels: of all samples.
        stream: where the samples come from, JSON-ready; an existing store of another stream is an error.
        shard_size: rows per shard of a new store, at most; an existing one keeps its own.
        made: what makes a new store, for its provenance; an existing one keeps its own, and may be continued by others.

    Raises:
        StoreError: the folder holds something else, a store of another stream (with the first difference), an older or a
            damaged one. OutputError: another process writes it, or it cannot be written.
    """

    def __init__(
        self,
        folder: Place | str,
        labels: Labels,
        stream: Mapping[str, Any],
        shard_size: int = 256,
        made: Mapping[str, Any] | None = None,
    ):
        self.folder, self.labels = as_place(folder), labels
        meta = {
            "format": "datasetdm-store",
            "version": VERSION,
            "labels": labels.to_json(),
            "shard_size": shard_size,
            "stream": json.loads(json.dumps(stream)),
            **({"made": dict(made)} if made else {}),
        }
        _refuse_strangers(self.folder)
        with ExitStack() as stack:
            self._require_lock = stack.enter_context(locked(self.folder / LOCK, "store"))
            self.shard_size: int = _claim(self.folder, meta)["shard_size"]
            remove_leftovers(self.folder)
            remove_leftovers(self.folder / "data")
            settle(self.folder)
            store = Store(self.folder)
            self.written = len(store)
            """Samples that the store holds, those not yet flushed included."""
            self.quality = dict(store.quality)
            """By key, what `assess` said last."""
            self._keys = KeySet(store.keys())
            self._number = len(store.shards)
            self._rows: list[pa.Table] = []  # of one row each
            self._bytes = 0
            self._dirty = False
            self._reopen_last(store)
            self._writing: Future[None] | None = None
            self._pool = stack.enter_context(ThreadPoolExecutor(1))
            self._stack = stack.pop_all()
        remember(self)

    def _reopen_last(self, store: Store) -> None:
        """Take up the last shard if there is room in it."""
        if not store.shards or store.shards[-1].rows >= self.shard_size:
            return
        last = store.shards[-1]
        manifest = current_manifest(last.path)
        if manifest is None or manifest.closed:
            return
        with last.opened() as (file, _):
            rows = [to_table([row]) for row in file.read().to_pylist()]
        size = sum(row.nbytes for row in rows)
        if size < SHARD_BYTES:
            self._rows, self._bytes, self._number = rows, size, self._number - 1

    def __contains__(self, key: str) -> bool:
        """Whether a sample of this key is in the store, flushed or not."""
        return key in self._keys

    def add(self, sample: Sample) -> None:
        """Append one sample. One that cannot be encoded leaves the writer as it was.

        Raises:
            StoreError: it has other labels than the store, or a key that is there already. OutputError: a shard could not be
                written, this one or one before it.
        """
        if sample.labels.names != self.labels.names:
            raise StoreError(
                f"sample {sample.key!r} has other labels", where=self.folder, expected="the store's labels"
            )
        self.add_rows([to_table([to_row(sample)])])

    def add_rows(self, rows: Iterable[pa.Table]) -> None:
        """Append encoded samples, each as a table of one row. Raises as `add` does."""
        for row in rows:
            self._claim_keys(row["key"].to_pylist())
            self._rows.append(row)
            self._bytes += row.nbytes
            self._dirty = True
            self.written += 1
            if len(self._rows) == self.shard_size or self._bytes >= SHARD_BYTES:
                self._write_shard()
                self._begin_shard()

    @property
    def begun(self) -> bool:
        """Whether the next sample shares its shard with others that are there already."""
        return bool(self._rows)

    def end_shard(self) -> None:
        """Bring what there is to the disk and begin a new shard, so that what comes next need not fit into this one."""
        self.flush()
        if self._rows:
            self._begin_shard()

    def flush(self) -> None:
        """Bring everything that was added to the disk."""
        if self._dirty and self._rows:
            self._write_shard()
            self._dirty = False
        self._wait()

    def save(self) -> None:
        """`flush` by this thread alone, for a process that ends at once."""
        self._wait()
        if self._dirty and self._rows:
            _write(shard_path(self.folder, self._number), list(self._rows))

    def append(self, store: Store, changes: Mapping[str, Callable[[Sample], Sample]] | None = None) -> None:
        """Append the rows of another store of the same labels whose keys are not here yet: shard files of which none is here
        are linked (or copied), not rewritten.

        Args:
            store: the other one.
            changes: by key, what is done to a sample; its shard is rewritten.

        Raises:
            StoreError: other labels.
        """
        if store.labels != self.labels:
            raise StoreError(
                "the store has other labels", where=store.folder, expected="the labels of the store it is added to"
            )
        changed = changes or {}
        for shard in store.shards:
            keys = list(shard.keys())
            missing = [(row, key) for row, key in enumerate(keys, shard.start) if key not in self]
            if len(missing) == len(keys) and not any(key in changed for key in keys):
                manifest = current_manifest(shard.path) if shard.checked else None
                self.append_shard(shard.path, manifest or Manifest.of_file(shard.path, keys, min(MIGRATIONS)))
            else:
                for row, key in missing:
                    self.add(changed[key](store[row]) if key in changed else store[row])

    def append_shard(self, source: Place, manifest: Manifest, closed: bool = True) -> None:
        """Append a whole shard file that another store or another worker wrote.

        Args:
            source: the file, local or remote; it is linked or copied.
            manifest: what it holds.
            closed: no row is added to it, even if there is room.
        """
        self.end_shard()
        self._claim_keys(manifest.keys)
        self._require_lock()
        path, manifest = shard_path(self.folder, self._number), replace(manifest, closed=closed)
        with copied(source, path):
            announce(path, manifest)
        write_manifest(path, manifest)
        self.written += manifest.rows
        self._number += 1

    def set_aside(self, sample: Sample, reason: str) -> None:
        """Reject a sample of the store without rewriting its shard: it stays, with one more reason against it."""
        if sample.key not in self:
            raise StoreError(f"no sample has the key {sample.key!r}", where=self.folder, expected="a key of this store")
        latest = replace(sample, quality=self.quality.get(sample.key, sample.quality))
        self.assess({sample.key: reject(latest, reason).quality})

    def assess(self, found: Mapping[str, Quality]) -> None:
        """Replace what filters found out about the samples of these keys without rewriting their shards."""
        if found:
            append_qualities(self.folder, found)
            self.quality.update(found)

    def _claim_keys(self, keys: Sequence[str]) -> None:
        """Take note of new keys, all of them or none."""
        fresh: set[str] = set()
        for key in keys:
            if key in self._keys or key in fresh:
                raise doubled(key, self.folder)
            fresh.add(key)
        for key in keys:
            self._keys.add(key)

    def _begin_shard(self) -> None:
        self._rows, self._bytes, self._number, self._dirty = [], 0, self._number + 1, False

    def _write_shard(self) -> None:
        self._wait()
        self._require_lock()
        self._writing = self._pool.submit(_write, shard_path(self.folder, self._number), list(self._rows))

    def _wait(self) -> None:
        """Until the shard that is being written is on the disk. Raises what its writing raised, every time: no later shard is
        written after one that failed."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def close(self) -> None:
        """Flush and release the lock. An interrupt meanwhile takes effect afterwards."""
        with uninterrupted(), self._stack:
            self.flush()
        forget(self)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_store(samples: Iterable[Sample], folder: Place | str, labels: Labels, shard_size: int = 256) -> int:
    """Write samples from anywhere as a new store; returns how many."""
    with Writer(folder, labels, {"source": "samples"}, shard_size) as writer:
        if writer.written:
            raise StoreError(
                "there is a store here already", where=folder, remedy="choose another folder, or delete it"
            )
        for sample in samples:
            writer.add(sample)
    return writer.written


def doubled(key: str, folder: Place) -> StoreError:
    """The error of a second sample of one key."""
    return StoreError(
        f"two samples have the key {key!r}",
        where=folder,
        expected="unique keys",
        remedy="leave one of them out; `datasetdm merge --prefix-keys` puts the names of stores before their keys",
    )


def _write(path: Place, rows: Sequence[pa.Table]) -> None:
    """Write a shard and its manifest. Safe to kill at any point."""
    table = pa.concat_tables(rows).combine_chunks()
    with atomic(path) as temporary:
        write_parquet(table, temporary)
        manifest = Manifest.of_file(temporary, table["key"].to_pylist())
        announce(path, manifest)
    write_manifest(path, manifest)


def write_parquet(table: pa.Table, path: Place) -> None:
    """Write a table of `SCHEMA` as a shard's file; the same table gives the same bytes."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=False) as file:
        for start, stop in _row_groups(table):
            file.write_table(table.slice(start, stop - start), stop - start)


def _row_groups(table: pa.Table) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) of every row group: at most `GROUP_ROWS`, and `GROUP_BYTES` of images."""
    sizes = pc.call_function("binary_length", [table["image"].flatten()[0]]).to_pylist()
    start = total = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start == GROUP_ROWS or total + size > GROUP_BYTES):
            yield start, row
            start, total = row, 0
        total += size
    if sizes:
        yield start, len(sizes)


def _refuse_strangers(folder: Place) -> None:
    if not (folder / META).exists() and occupied(folder):
        raise StoreError(
            "the output folder holds something that is no store",
            where=folder,
            expected="a new or empty folder, or a store of the same stream",
            remedy="choose another --out",
        )


def _claim(folder: Place, meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make `folder` a store of this stream, or find that it already is; returns what its `dataset.json` says.

    Raises:
        StoreError: a store of an older version, or of another stream or labels.
    """
    if not (folder / META).exists():
        _refuse_strangers(folder)
        write_checked(folder / META, meta, indent=2)
        return meta
    old = read_meta(folder)
    if old["version"] != VERSION:
        raise StoreError(
            f"this store has format version {old['version']}: it can be read, exported and viewed, but not continued",
            where=folder,
            expected=f"version {VERSION}",
            remedy="choose another --out; `datasetdm merge` can put both into one store",
        )
    for name in ("labels", "stream"):
        difference = _first_difference(old[name], meta[name], name if name == "labels" else "")
        if difference:
            path, was, now = difference
            raise StoreError(
                f"the store belongs to another stream: {path} differs",
                where=folder,
                expected=f"{path} = {_brief(was)}, as the store was begun, not {_brief(now)}",
                remedy="choose another --out, or repeat the store's own settings to go on with it",
            )
    return old


def _first_difference(old: Any, new: Any, path: str) -> tuple[str, Any, Any] | None:
    """(path, old value, new value) of the first place where two JSON values differ; None where they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs: Iterator[tuple[Any, Any, Any]] = ((k, old.get(k), new.get(k)) for k in sorted({*old, *new}))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = ((i, a, b) for i, (a, b) in enumerate(zip(old, new, strict=True)))
    else:
        return None if old == new else (path, old, new)
    found = (_first_difference(a, b, f"{path}.{k}" if path else str(k)) for k, a, b in pairs)
    return next((f for f in found if f), None)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
