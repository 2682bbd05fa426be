"""What the files of a store must hold: `dataset.json` for the whole, and beside every shard a manifest with its checksums.

A shard is replaced in three steps, so that a store opens whatever step a kill prevents: its manifest says what comes and what
was there before; the shard is replaced; its manifest says what is there. Readers, who hold no lock, take whichever of the two
the file is.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from datasetdm.errors import DataError, StoreError
from datasetdm.io.files import parse_json, write_json
from datasetdm.io.remote import Place, RemoteFile, SizedFile
from datasetdm.records import Labels
from datasetdm.store.schema import MIGRATIONS, VERSION

META = "dataset.json"
BLOCK = 1 << 16
"""Bytes that share one CRC-32, which finds every change of up to 32 neighbouring bits."""

READS = 2
"""Times that bytes with a wrong checksum are read before they count as damaged: it may have been the way that damaged them."""

RESTORE = (
    "restore it from a copy; or delete both files of this shard and of all later ones, and run the command that wrote the "
    "store again: it goes on from there"
)


@dataclass(frozen=True)
class Manifest:
    """What one shard holds.

    Args:
        keys: of its rows, in order.
        size: of its file in bytes.
        blocks: CRC-32 of every `BLOCK` bytes of the file.
        version: of its columns.
        closed: it stays as it is, even if there is room for more rows.
    """

    keys: tuple[str, ...]
    size: int
    blocks: tuple[int, ...]
    version: int = VERSION
    closed: bool = False

    @property
    def rows(self) -> int:
        """How many samples the shard holds."""
        return len(self.keys)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """What `asdict` gave. Raises KeyError, TypeError, ValueError where it did not."""
        keys, blocks, size = tuple(map(str, value["keys"])), tuple(map(int, value["blocks"])), int(value["size"])
        version = int(value["version"])
        if not blocks or len(blocks) != -(-size // BLOCK):
            raise ValueError(f"{len(blocks)} checksums for {size} bytes")
        if version not in (*MIGRATIONS, VERSION):
            raise ValueError(f"version {version}")
        return cls(keys, size, blocks, version, bool(value["closed"]))

    @classmethod
    def of_file(cls, path: Place, keys: Sequence[str], version: int = VERSION, closed: bool = False) -> Manifest:
        """The manifest of a shard file as it is now."""
        blocks = []
        with path.open("rb") as f:
            while data := f.read(BLOCK):
                blocks.append(zlib.crc32(data))
            return cls(tuple(keys), f.tell(), tuple(blocks), version, closed)


class VerifiedFile(SizedFile):
    """A shard's file, opened for reading; every block is held against the manifest before a byte of it is given out.

    Raises:
        StoreError: when a damaged block is read.
    """

    def __init__(self, file: BinaryIO | RemoteFile, manifest: Manifest, where: Place):
        super().__init__(manifest.size)
        self._file, self._manifest, self._where = file, manifest, where

    def read(self, size: int = -1) -> memoryview:
        """The next bytes, not copied, at most `size` of them; all that are left if it is negative."""
        stop = self._size if size < 0 else min(self._position + size, self._size)
        if stop <= self._position:
            return memoryview(b"")
        first, last = self._position // BLOCK, -(-stop // BLOCK)
        offset = first * BLOCK
        for _ in range(READS):
            self._file.seek(offset)
            data = memoryview(self._file.read(last * BLOCK - offset))
            blocks = [zlib.crc32(data[i : i + BLOCK]) for i in range(0, len(data), BLOCK)]
            if tuple(blocks) == self._manifest.blocks[first:last]:
                piece = data[self._position - offset : stop - offset]
                self._position = stop
                return piece
        raise damaged(self._where, "it is too short" if len(data) < stop - offset else "its checksum differs")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def damaged(path: Place, what: str) -> StoreError:
    """The error of a damaged shard."""
    return StoreError(
        f"a shard is damaged: {what.splitlines()[0]}", where=path, expected="the file as written", remedy=RESTORE
    )


# ------------------------------------------------------------------------------ places
def shard_path(folder: Place, number: int) -> Place:
    """Where shard `number` lies."""
    return folder / "data" / f"shard-{number:06d}.parquet"


def manifest_path(shard: Place) -> Place:
    """Where the manifest of a shard lies."""
    return shard.with_suffix(".json")


# --------------------------------------------------------------------------- checked JSON
def _checksum(value: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def write_checked(path: Place, value: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a JSON object with its checksum."""
    plain = json.loads(json.dumps(value))
    write_json(path, {**plain, "checksum": _checksum(plain)}, indent)


def read_checked(path: Place, by_hand: bool = False) -> dict[str, Any]:
    """What `write_checked` wrote.

    Args:
        path: the file.
        by_hand: people may change it, if they delete its checksum.

    Raises:
        OSError, ValueError: no file, no JSON object, or another checksum.
    """
    for left in reversed(range(READS)):
        try:
            return _parse_checked(path.read_bytes(), by_hand)
        except ValueError:
            if not left:
                raise
    raise AssertionError


def _parse_checked(text: bytes, by_hand: bool) -> dict[str, Any]:
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if by_hand and "checksum" not in value:
        return value
    if value.pop("checksum", None) != _checksum(value):
        raise ValueError("its checksum differs: it was changed or damaged after it was written")
    return value


# ------------------------------------------------------------------------------ dataset.json
def read_meta(folder: Place) -> dict[str, Any]:
    """A store's `dataset.json`: format, version, labels, shard_size, stream.

    Raises:
        StoreError: no store, a version that is not known, or a damaged file.
    """
    path = folder / META
    try:
        meta = read_checked(path, by_hand=True)
        version = meta["version"]
        if meta["format"] != "datasetdm-store" or (version != VERSION and version not in MIGRATIONS):
            age = "a newer" if version > VERSION else "an older"
            expected = f"version {min(MIGRATIONS)} to {VERSION}"
            raise StoreError(
                f"this store has {age} format", where=path, expected=expected, remedy="use the software that made it"
            )
        if version == VERSION and "stream" not in meta:
            raise KeyError("stream")
        meta["stream"] = dict(meta["stream"] if "stream" in meta else meta.pop("recipe"))
        _ = Labels.from_json(meta["labels"]), meta["shard_size"] + 1
    except (FileNotFoundError, NotADirectoryError) as e:
        raise StoreError(
            "there is no store here",
            where=folder,
            expected="a folder that `datasetdm generate` wrote",
            remedy="check the path",
        ) from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as e:
        raise StoreError(
            f"dataset.json cannot be read: {e!r}",
            where=path,
            expected="the file as written",
            remedy='restore it from a copy; if it was changed on purpose, delete its line "checksum"',
        ) from e
    return meta


# ------------------------------------------------------------------------------ one shard
def write_manifest(shard: Place, manifest: Manifest) -> None:
    """Say what the shard is."""
    write_checked(manifest_path(shard), {"shard": asdict(manifest)})


def announce(shard: Place, manifest: Manifest) -> None:
    """Say what the shard is about to become; until it is, readers take it for what it was."""
    previous = current_manifest(shard) if manifest_path(shard).exists() else None
    states = {"shard": asdict(manifest), "previous": None if previous is None else asdict(previous)}
    write_checked(manifest_path(shard), states)


def settle(folder: Place) -> None:
    """Finish what a killed writer announced: the last manifest says what is there. The caller holds the store's lock."""
    last = max((folder / "data").glob("shard-*.json"), default=None)
    if last is None or len(_read_states(last.with_suffix(".parquet"))) == 1:
        return
    shard = last.with_suffix(".parquet")
    current = current_manifest(shard)
    if current is None:
        last.unlink()
    else:
        write_manifest(shard, current)


def current_manifest(shard: Place) -> Manifest | None:
    """The manifest of the shard's file as it is now; None for one that was about to be written when a run was killed.

    Raises:
        StoreError: the file or its manifest is missing or damaged.
    """
    failed: list[list[Manifest | None]] = []
    while len(failed) < 3 or any(states != failed[-1] for states in failed[-3:]):  # a writer may be replacing both
        states = _read_states(shard)
        for state in states:
            if state is None:
                if not shard.exists():
                    return None
            elif _is(shard, state):
                return state
        failed.append(states)
    if not shard.exists():
        raise StoreError("a shard is missing", where=shard, expected="the file that its manifest names", remedy=RESTORE)
    raise damaged(shard, "it is not what its manifest says")


def open_verified(shard: Place) -> tuple[VerifiedFile, Manifest]:
    """The shard's file, to be read with its checksums verified, and its manifest. Raises StoreError, OSError."""
    for _ in range(20):  # a writer may be replacing it
        manifest = current_manifest(shard)
        if manifest is None:
            break
        file = shard.open("rb")
        if file.seek(0, os.SEEK_END) == manifest.size:
            return VerifiedFile(file, manifest, shard), manifest
        file.close()
    raise damaged(shard, "it is not what its manifest says")


def _read_states(shard: Place) -> list[Manifest | None]:
    """What the shard may be: what is written, and while that is unfinished what was there before (None: no file)."""
    path = manifest_path(shard)
    try:
        value = read_checked(path)
        written = Manifest.from_json(value["shard"])
        if "previous" not in value:
            return [written]
        return [written, None if value["previous"] is None else Manifest.from_json(value["previous"])]
    except FileNotFoundError as e:
        raise StoreError(
            "the manifest of a shard is missing", where=path, expected="one per shard", remedy=RESTORE
        ) from e
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as e:
        raise StoreError(
            f"the manifest of a shard is damaged: {e}", where=path, expected="the file as written", remedy=RESTORE
        ) from e


def _is(shard: Place, manifest: Manifest) -> bool:
    """Whether the file has the manifest's size and last block, which holds Parquet's table of contents."""
    try:
        last = (len(manifest.blocks) - 1) * BLOCK
        with shard.open("rb") as f:
            if f.seek(0, os.SEEK_END) != manifest.size:
                return False
            f.seek(last)
            return zlib.crc32(f.read(BLOCK)) == manifest.blocks[-1]
    except FileNotFoundError:
        return False
    except OSError as e:
        raise damaged(shard, f"it cannot be read: {e.strerror}") from e
