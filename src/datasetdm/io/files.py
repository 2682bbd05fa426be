"""Writing files so that nothing is ever half-written, and naming them so that none leaves its folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from datasetdm.errors import DataError, OutputError


@contextlib.contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn the operating system's refusals below `path` into one clear `OutputError`."""
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk is full" if full else f"cannot write: {e.strerror or e}"
        remedy = "free some space, then run the same command again: it goes on where it stopped" if full else None
        raise OutputError(what, where=path, expected="a folder that can be written", remedy=remedy) from e


@contextlib.contextmanager
def atomic(path: Path) -> Generator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well and vanishes when it does not."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as f:
                os.fsync(f.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def occupied(folder: Path) -> bool:
    """Whether something is there that a new output would overwrite; leftovers of a killed `atomic` do not count."""
    if not folder.exists():
        return False
    return not folder.is_dir() or any(not (p.name.startswith(".") and p.suffix == ".tmp") for p in folder.iterdir())


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or none of it."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a whole JSON file or none of it."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file into a folder that is itself written whole or not at all, as exporters do."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def claim_name(folder: Path, key: str, suffix: str) -> str:
    """The file name of a sample in a folder of one file a sample; two samples of one key are an error."""
    name = safe_name(key) + suffix
    if (folder / name).exists():
        raise DataError(f"two samples have the key {key!r}", expected="unique keys", remedy="rename one of them")
    return name


def safe_name(key: str) -> str:
    """A file name for any sample key: letters, digits, `.`, `_` and `-`; other keys get a hash so that none collide."""
    clean = re.sub(r"[^\w.-]", "_", key, flags=re.ASCII).lstrip(".")[:120]
    return clean if clean == key else f"{clean}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
