"""Writing files so that nothing is ever half-written, and naming them so that none leaves its folder.

What stores and their locks need works for places behind a URL, too; this is the only module that asks which of the two it is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from datasetdm.errors import OutputError
from datasetdm.io.lease import leased
from datasetdm.io.remote import Place, RemotePath

WAIT = 30.0
"""Seconds that `shared` waits for another owner of a lock on remote storage."""


@contextlib.contextmanager
def writing(path: Place) -> Generator[None]:
    """Turn the operating system's refusals below `path` into one clear `OutputError`."""
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk is full" if full else f"cannot write: {e.strerror or e}"
        remedy = "free some space, then run the same command again: it goes on where it stopped" if full else None
        raise OutputError(what, where=path, expected="a folder that can be written", remedy=remedy) from e


@contextlib.contextmanager
def atomic(path: Place) -> Generator[Path]:
    """A temporary file that becomes `path` when the block ends well and vanishes when it does not. It lies beside `path`, or in
    the machine's temporary folder until it is uploaded whole."""
    if isinstance(path, RemotePath):
        with writing(path), tempfile.TemporaryDirectory(prefix="datasetdm-") as folder:
            temporary = Path(folder) / path.name
            yield temporary
            path.upload(temporary)
        return
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
def locked(path: Place, what: str) -> Generator[Callable[[], None]]:
    """Hold the lock file `path` while the block runs; it is deleted afterwards, and so is its folder if that is then empty and
    was not there before. The operating system frees the lock whatever ends the process; on remote storage it is a lease, see
    `io.lease`.

    Args:
        path: name it with a leading dot and the suffix `.lock`, so that `occupied` does not count it.
        what: what only one process at a time may write, for instance "store".

    Yields:
        What raises OutputError if the lock has been lost: to be called before anything is written.

    Raises:
        OutputError: another process (or another part of this one) holds it, or it cannot be made.
    """
    if isinstance(path, RemotePath):
        with leased(path, what) as lease:
            yield lease.check
        return
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
        yield lambda: None
    finally:
        for own in (holder, path):
            with contextlib.suppress(OSError):  # the folder may be gone, or closed to us
                own.unlink()
        lock.release()
        if made:
            with contextlib.suppress(OSError):
                path.parent.rmdir()


@contextlib.contextmanager
def shared(path: Place, what: str) -> Generator[None]:
    """Hold the lock `path` while a block of seconds runs; whoever else holds it is waited for."""
    if isinstance(path, RemotePath):
        with leased(path, what, WAIT, renew=False):
            yield
        return
    with FileLock(path):
        yield


def _read_holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "an unknown process"
    except (OSError, UnicodeDecodeError):
        return "an unknown process"


def occupied(folder: Place) -> bool:
    """Whether something is there that a new output would overwrite; locks and leftovers of a killed `atomic` do not count."""
    if not folder.exists():
        return False
    return not folder.is_dir() or any(not _passing(p) for p in folder.iterdir())


def _passing(path: Place) -> bool:
    return path.name.startswith(".") and path.suffix in (".tmp", ".lock", ".holder")


def remove_leftovers(folder: Place, name: str | None = None) -> None:
    """Delete the temporary files and folders (`.NAME.*.tmp`) that killed runs left in `folder`: all, or those of one name.
    Remote storage has none.

    Only whoever holds the lock on what they would have become may call this.
    """
    if isinstance(folder, RemotePath):
        return
    with writing(folder):
        pattern = r"\..*\..*\.tmp" if name is None else rf"\.{re.escape(name)}\.[^.]*\.tmp"
        for path in [p for p in folder.iterdir() if re.fullmatch(pattern, p.name)] if folder.exists() else []:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def remove_folder(folder: Place) -> None:
    """Delete a folder of files with all that is in it; one that is not there is fine."""
    with writing(folder):
        if isinstance(folder, RemotePath):
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
        elif folder.exists():
            shutil.rmtree(folder)


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


def distant(place: Place) -> bool:
    """Whether every read of it is a request over a network: few large ones, many at a time, are then the fastest."""
    return isinstance(place, RemotePath)


def size_of(path: Place) -> int:
    """Bytes of a file; 0 if it is not there."""
    try:
        return path.size() if isinstance(path, RemotePath) else path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def copied(source: Place, path: Place) -> Generator[None]:
    """`path` becomes the file `source` when the block ends well: linked on the same disk, copied by the storage that both lie in,
    else sent."""
    if isinstance(path, RemotePath):
        yield
        if isinstance(source, Path):
            path.upload(source)
        elif source.fs == path.fs:
            path.copy_from(source)
        else:
            with tempfile.TemporaryDirectory(prefix="datasetdm-") as folder:
                source.download(Path(folder) / path.name)
                path.upload(Path(folder) / path.name)
        return
    temporary = path.with_name(f".{path.name}.linked.tmp")
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        temporary.unlink(missing_ok=True)
        if isinstance(source, RemotePath):
            source.download(temporary)
        else:
            try:
                os.link(source, temporary)
            except OSError:  # another disk, or one without links
                shutil.copyfile(source, temporary)
        yield
        temporary.replace(path)


def append_bytes(path: Place, data: bytes, finish: Callable[[io.BufferedIOBase], None]) -> int:
    """Append to a file, after `finish` has put its end in order; it is on the disk when this returns. One process at a time.

    Returns:
        The size of the file, in bytes.
    """
    if isinstance(path, RemotePath):  # which has no appending: the whole file is written
        with io.BytesIO(path.read_bytes() if path.exists() else b"") as f:
            finish(f)
            f.seek(0, os.SEEK_END)
            f.write(data)
            path.write_bytes(f.getvalue())
            return f.tell()
    with path.open("ab+") as f:
        finish(f)
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
        return f.tell()


def write_text(path: Place, text: str) -> None:
    """Write a whole text file or none of it."""
    if isinstance(path, RemotePath):
        path.write_bytes(text.encode())
        return
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Place, value: Any, indent: int | None = 2) -> None:
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
