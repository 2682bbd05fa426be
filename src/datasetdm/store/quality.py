"""Scores and reasons that filters give to samples of a finished store: appended, so that no shard is rewritten.

`STORE/quality.jsonl` holds one JSON object per line; of several lines with one key the last counts:

    {"key": "00000007", "scores": {"sharpness": 0.2}, "reasons": ["blurred"]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from datasetdm.errors import DataError, StoreError
from datasetdm.io.files import parse_json, writing
from datasetdm.records import Quality

QUALITY = "quality.jsonl"


def read_quality(folder: Path) -> dict[str, Quality]:
    """Key -> what was found out last.

    Raises:
        StoreError: a line that is no quality.
    """
    found: dict[str, Quality] = {}
    for where, value in read_lines(folder / QUALITY, "a quality"):
        try:
            found[value["key"]] = Quality(value["scores"], tuple(value["reasons"]))
        except (AttributeError, KeyError, TypeError, ValueError, DataError) as e:
            raise bad_line("a quality", where, e) from e
    return found


def append_quality(folder: Path, key: str, quality: Quality) -> None:
    """Write one line; the caller holds the store's lock."""
    append_lines(folder / QUALITY, [{"key": key, "scores": dict(quality.scores), "reasons": quality.reasons}])


# ----------------------------------------------------------------- files that are only appended to
def read_lines(path: Path, what: str) -> Iterator[tuple[str, Any]]:
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
            raise bad_line(what, f"{path}:{number}", e) from e
        yield f"{path}:{number}", value


def bad_line(what: str, where: str, error: Exception) -> StoreError:
    """The error of a line that cannot be read."""
    return StoreError(f"{what} cannot be read: {error!r}", where=where, remedy="correct or delete the line")


def append_lines(path: Path, values: Iterable[Any]) -> None:
    """Write JSON lines; they are on the disk when this returns. One process at a time: the caller holds a lock.

    Raises:
        OutputError: the file cannot be written.
    """
    data = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values).encode()
    with writing(path), path.open("ab+") as f:
        _finish_line(f)
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def _finish_line(f: IO[bytes]) -> None:
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
