"""Writing files so that nothing is ever half-written, and naming them so that none leaves its folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from datasetdm.errors import OutputError


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


@contextlib.contextmanager
def locked(path: Path, what: str) -> Generator[None]:
    """Hold the lock file `path` while the block runs; it is deleted afterwards, and so is its folder if that is then empty and
    was not there before. The operating system frees the lock whatever ends the process.

    Args:
        path: name it with a leading dot and the suffix `.lock`, so that `occupied` does not count it.
        what: what only one process at a time may write, for instance "store".

    Raises:
        OutputError: another process (or another part of this one) holds it, or it cannot be made.
    """
    holder = path.with_suffix(".holder")
    with writing(path):
        made = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout as e:
            raise OutputError(
                f"this {what} is being written by another process",
                where=path.parent,
                expected=f"one writer at a time; now it is {_read_holder(holder)}",
                remedy="wait until it has ended, stop it, or choose another folder",
            ) from e
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    try:
        yield
    finally:
        for own in (holder, path):
            with contextlib.suppress(OSError):  # the folder may be gone, or closed to us
                own.unlink()
        lock.release()
        if made:
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def _read_holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "an unknown process"
    except (OSError, UnicodeDecodeError):
        return "an unknown process"


def occupied(folder: Path) -> bool:
    """Whether something is there that a new output would overwrite; locks and leftovers of a killed `atomic` do not count."""
    if not folder.exists():
        return False
    return not folder.is_dir() or any(not _passing(p) for p in folder.iterdir())


def _passing(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix in (".tmp", ".lock", ".holder")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete the temporary files and folders (`.NAME.*.tmp`) that killed runs left in `folder`: all, or those of one name.

    Only whoever holds the lock on what they would have become may call this.
    """
    with writing(folder):
        pattern = r"\..*\..*\.tmp" if name is None else rf"\.{re.escape(name)}\.[^.]*\.tmp"
        for path in [p for p in folder.iterdir() if re.fullmatch(pattern, p.name)] if folder.exists() else []:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def require_regular(path: Path) -> None:
    """Raises OSError for a device, a pipe or a socket: reading one may wait, or go on, without end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError("it is no file but a device or a pipe")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for any that is none, also if it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


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


def safe_name(key: str) -> str:
    """A file name for any sample key: letters, digits, `.`, `_` and `-`; other keys get a hash so that none collide."""
    clean = re.sub(r"[^\w.-]", "_", key, flags=re.ASCII).lstrip(".")[:120]
    return clean if clean == key else f"{clean}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
