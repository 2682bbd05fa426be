"""Rows that workers wrote beside a store, until its writer takes them over.

    STORE/parts/NAME-0.parquet    rows of the part NAME; another file (-1, -2, ...) wherever one is full
    STORE/parts/NAME.json         written last: the manifests of these files, and what the worker says of the part

A part counts when its JSON file is there, so a worker may be killed at any moment, and two workers may write the same part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasetdm.errors import OutputError, StoreError
from datasetdm.io.files import atomic, remove_folder
from datasetdm.io.remote import Place
from datasetdm.records import Sample
from datasetdm.store.manifest import META, Manifest, VerifiedFile, read_checked, write_checked
from datasetdm.store.rows import to_row, to_table
from datasetdm.store.writer import SHARD_BYTES, Writer, write_parquet

PARTS = "parts"


@dataclass(frozen=True)
class StagedPart:
    """A whole part: its files with their manifests, and what the worker says of it."""

    files: Mapping[Place, Manifest]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many samples it holds."""
        return sum(m.rows for m in self.files.values())


class PartWriter:
    """Writes one part beside the store. It counts once `finish` has returned.

    Args:
        store: the store's folder, whose writer has begun.
        name: of the part, as a file name.
    """

    def __init__(self, store: Place, name: str):
        self.store, self.folder, self.name = store, store / PARTS, name
        self._rows: list[pa.Table] = []
        self._bytes = 0
        self._manifests: list[Manifest] = []

    def add(self, sample: Sample) -> None:
        """Append one sample. Raises OutputError if a file cannot be written."""
        row = to_table([to_row(sample)])
        self._rows.append(row)
        self._bytes += row.nbytes
        if self._bytes >= SHARD_BYTES:
            self._write()

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write what is left.

        Args:
            about: what else to say of the part, JSON-ready.
        """
        if self._rows:
            self._write()
        self._require_store()
        manifests = [asdict(m) for m in self._manifests]
        write_checked(self.folder / f"{self.name}.json", {"files": manifests, "about": dict(about)})

    def _write(self) -> None:
        table = pa.concat_tables(self._rows).combine_chunks()
        self._require_store()
        with atomic(part_file(self.folder, self.name, len(self._manifests))) as temporary:
            write_parquet(table, temporary)
            self._manifests.append(Manifest.of_file(temporary, table["key"].to_pylist()))
        self._rows, self._bytes = [], 0

    def _require_store(self) -> None:
        if not (self.store / META).exists():
            raise OutputError(
                "a worker cannot see the store that its run writes",
                where=self.store,
                expected="a folder that every worker reaches under the same path, or a URL",
                remedy="put the store on a file system that all machines share",
            )


def part_file(folder: Place, name: str, number: int) -> Place:
    """One file of a part."""
    return folder / f"{name}-{number}.parquet"


def open_staged(store: Place, name: str, verify: bool = True) -> StagedPart | None:
    """The part of this name; None if it is not there, unfinished, or (if all of its bytes are verified) damaged."""
    folder = store / PARTS
    try:
        value = read_checked(folder / f"{name}.json")
        manifests = [Manifest.from_json(m) for m in value["files"]]
        files = {part_file(folder, name, i): m for i, m in enumerate(manifests)}
        if verify and any(Manifest.of_file(path, m.keys) != m for path, m in files.items()):
            return None
        return StagedPart(files, value["about"])
    except (OSError, KeyError, TypeError, ValueError):
        return None


def staged_names(store: Place) -> set[str]:
    """The names of all parts that are there."""
    return {p.stem for p in (store / PARTS).glob("*.json")}


def remove_parts(store: Place) -> None:
    """Remove all parts. The caller holds the store's lock."""
    remove_folder(store / PARTS)


def adopt(writer: Writer, part: StagedPart, ends: bool) -> None:
    """Append the rows of a part to the store. A whole shard is linked or copied; rows that share a shard with others are copied.

    Args:
        writer: of the store.
        part: its rows; its files stay.
        ends: the shard ends with this part, however many rows it has.

    Raises:
        StoreError: a damaged file, or a key that is there already. OutputError: the store cannot be written.
    """
    for number, (path, manifest) in enumerate(part.files.items(), 1):
        if writer.begun or not (ends or number < len(part.files)):
            writer.add_rows(_read_rows(path, manifest))
        else:
            writer.append_shard(path, manifest, closed=False)
    if ends:
        writer.end_shard()


def discard(store: Place, names: Collection[str]) -> None:
    """Remove parts whose rows the store holds."""
    for path in [*(store / PARTS).iterdir()] if names else []:
        if path.stem in names or path.stem.rpartition("-")[0] in names:
            path.unlink(missing_ok=True)


def _read_rows(path: Place, manifest: Manifest) -> Iterator[pa.Table]:
    """Tables of one row each."""
    try:
        with path.open("rb") as f, pq.ParquetFile(pa.PythonFile(VerifiedFile(f, manifest, path), mode="r")) as file:
            table = file.read(use_threads=False)
    except (OSError, pa.ArrowException) as e:
        raise StoreError("a worker's part of a shard is gone or damaged", where=path) from e
    yield from (to_table([row]) for row in table.to_pylist())
