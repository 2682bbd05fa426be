"""Scores and reasons that filters give to samples of a finished store: appended, so that no shard is rewritten.

`STORE/quality.jsonl` holds one JSON object per line; of several lines with one key the last counts:

    {"key": "00000007", "scores": {"sharpness": 0.2}, "reasons": ["blurred"]}
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from datasetdm.errors import DataError, StoreError
from datasetdm.io.files import append_bytes, parse_json, writing
from datasetdm.io.remote import Place
from datasetdm.records import Quality

QUALITY = "quality.jsonl"
Parsed = TypeVar("Parsed")


def read_quality(folder: Place) -> dict[str, Quality]:
    """Key -> what was found out last.

    Raises:
        StoreError: a line that is no quality.
    """
    return read_latest(folder / QUALITY, "a quality", lambda v: (v["key"], Quality(v["scores"], tuple(v["reasons"]))))


def append_quality(folder: Place, key: str, quality: Quality) -> None:
    """Write one line; the caller holds the store's lock."""
    append_qualities(folder, {key: quality})


def append_qualities(folder: Place, found: Mapping[str, Quality]) -> None:
    """Write one line per key, all at once; the caller holds the store's lock."""
    lines = ({"key": key, "scores": dict(q.scores), "reasons": q.reasons} for key, q in found.items())
    append_lines(folder / QUALITY, lines)


# ----------------------------------------------------------------- files that are only appended to
def read_latest(path: Place, what: str, parse: Callable[[Any], tuple[str, Parsed]]) -> dict[str, Parsed]:
    """Key -> the value of its last line; nothing of a file that is not there.

    Args:
        path: a file of JSON lines.
        what: one of its values, for messages.
        parse: key and value of a line's JSON.

    Raises:
        StoreError: a line that cannot be read.
    """
    found = {}
    for where, line in _read_lines(path, what):
        try:
            key, value = parse(line)
            found[key] = value
        except (AttributeError, KeyError, TypeError, ValueError, DataError) as e:
            raise _bad_line(what, where, e) from e
    return found


def _read_lines(path: Place, what: str) -> Iterator[tuple[str, Any]]:
    """(place, value) of every line; the rest of one that was being written when the machine stopped is none.

    Raises:
        StoreError: a line that is no JSON.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    except OSError as e:
        raise StoreError(
            f"{path.name} cannot be read: {e.strerror}", where=path, remedy="correct its permissions"
        ) from e
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line)
        except ValueError as e:
            if not line.endswith(b"\n"):
                return
            raise _bad_line(what, f"{path}:{number}", e) from e
        yield f"{path}:{number}", value


def _bad_line(what: str, where: str, error: Exception) -> StoreError:
    """The error of a line that cannot be read."""
    return StoreError(f"{what} cannot be read: {error!r}", where=where, remedy="correct or delete the line")


def append_lines(path: Place, values: Iterable[Any]) -> int:
    """Write JSON lines; they are on the disk when this returns, and the file has the returned number of bytes. One process at
    a time: the caller holds a lock.

    Raises:
        OutputError: the file cannot be written.
    """
    data = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values).encode()
    with writing(path):
        return append_bytes(path, data, _finish_line)


def _finish_line(f: io.BufferedIOBase) -> None:
    """End the last line, or cut it off where the machine stopped while it was being written."""
    size = f.seek(0, os.SEEK_END)
    f.seek(max(0, size - 1))
    if f.read() in (b"", b"\n"):
        return
    f.seek(0)
    rest = f.read().rpartition(b"\n")[2]
    try:
        parse_json(rest)
        f.write(b"\n")
    except ValueError:
        f.truncate(size - len(rest))
