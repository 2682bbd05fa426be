"""Files behind a URL (s3://, gs://, hf://, memory://), with those methods of `pathlib.Path` that a store needs.

Every request is sent again, with growing waits, where the storage fails, throttles or ends an answer early; then one
`RemoteError` says so. A file is written whole: it appears with its last byte, or it stays what it was.
"""

from __future__ import annotations

import errno
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from datasetdm.errors import ConfigError, DatasetDMError, OutputError, RemoteError

Result = TypeVar("Result")

WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds, give or take half, before a request that failed is sent again; what the storage's own client repeats is not
counted."""

FINAL = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""Answers, not failures."""

REFUSED = (PermissionError, ValueError, TypeError, NotImplementedError, ImportError)
"""Failures that no repetition helps."""

REFUSED_CODES = (errno.EPERM, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS)

EXTRAS = {"s3": "pip install 'datasetdm[s3]'", "gs": "pip install gcsfs", "az": "pip install adlfs"}
"""Protocol -> how to install what speaks it."""


@dataclass(frozen=True)
class RemotePath:
    """A file or folder behind a URL. Folders need not be made; they are there as soon as a file is in them.

    Args:
        path: without the protocol, as the file system names it.
        fs: the file system.
    """

    path: str
    fs: Any = field(repr=False, hash=False)

    @classmethod
    def of(cls, url: str) -> RemotePath:
        """The path of a URL. Raises ConfigError for one that nothing installed speaks."""
        from fsspec.core import url_to_fs

        protocol = url.partition("://")[0]
        try:
            # A listing must show what others wrote meanwhile; a repository of the hub changes seldom.
            fs, path = url_to_fs(url, **({} if protocol == "hf" else {"use_listings_cache": False}))
        except (ImportError, ValueError) as e:
            raise ConfigError(
                f"no software for {protocol}:// is installed: {str(e).splitlines()[0]}",
                where=url,
                expected="a folder, or a URL as s3://bucket/folder",
                remedy=EXTRAS.get(protocol, "install the fsspec package of this storage"),
            ) from e
        return cls(path.rstrip("/"), fs)

    # ------------------------------------------------------------------ names
    def __str__(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.path}/{name}", self.fs)

    def __lt__(self, other: RemotePath) -> bool:
        return self.path < other.path

    @cached_property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.path)

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The end of the name, from its last dot."""
        return self._pure.suffix

    @property
    def parent(self) -> RemotePath:
        """The folder that it lies in."""
        return RemotePath(self.path.rpartition("/")[0], self.fs)

    def with_name(self, name: str) -> RemotePath:
        """Another file of the same folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        """The same name with another suffix."""
        return self.parent / f"{self.stem}{suffix}"

    def resolve(self) -> RemotePath:
        """Itself: a URL is absolute."""
        return self

    # ------------------------------------------------------------------ reading
    def exists(self) -> bool:
        """Whether a file is there, or a folder with one."""
        return self._ask(self.fs.exists, self.path)

    def is_dir(self) -> bool:
        """Whether files lie below it."""
        return self._ask(self.fs.isdir, self.path)

    def iterdir(self) -> Iterator[RemotePath]:
        """The files and folders in this one; none if it is not there."""
        try:
            found = self._ask(self.fs.ls, self.path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        for path in found:
            if path.rstrip("/") != self.path:
                yield RemotePath(path.rstrip("/"), self.fs)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """The files in this folder whose names match."""
        return (p for p in self.iterdir() if p._pure.match(pattern))

    def size(self) -> int:
        """Bytes of the file. Raises FileNotFoundError."""
        return int(self._ask(self.fs.info, self.path)["size"])

    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        """The file's bytes from `start` to before `stop`, in one request. Raises FileNotFoundError."""

        def read() -> bytes:
            try:
                data = self.fs.cat_file(self.path, start=start, end=stop)
            except OSError as e:
                if e.errno == errno.EINVAL:  # S3's answer to a range behind the end
                    return b""
                raise
            return bytes(data)

        return self._ask(read)

    def open(self, mode: str = "rb") -> RemoteFile:
        """The file, for reading at any place. Raises FileNotFoundError."""
        assert mode == "rb", mode
        return RemoteFile(self, self.size())

    # ------------------------------------------------------------------ writing
    def write_bytes(self, data: bytes) -> None:
        """Put the whole file there, or leave what was there."""
        self._put(self.fs.pipe_file, self.path, data)

    def create(self, data: bytes) -> None:
        """Put the file there if none is: of several at once, one succeeds. Raises FileExistsError."""
        self._put(self.fs.pipe_file, self.path, data, mode="create")

    def upload(self, source: Path) -> None:
        """`write_bytes` of a local file of any size."""
        self._put(self.fs.put_file, str(source), self.path)

    def download(self, target: Path) -> None:
        """Copy the file into a local one. Raises FileNotFoundError."""
        self._ask(self.fs.get_file, self.path, str(target))

    def copy_from(self, source: RemotePath) -> None:
        """Copy a file of the same file system; the storage does it. Raises FileNotFoundError."""
        self._ask(self.fs.cp_file, source.path, self.path)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file. Raises FileNotFoundError."""
        try:
            self._ask(self.fs.rm_file, self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders are there with their files."""

    def _put(self, request: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Send a file. Raises FileExistsError, OutputError, RemoteError."""
        if str(self).startswith("hf://"):
            raise OutputError(
                "a repository of the hub is not written file by file", where=self, expected="a folder, or storage of objects",
                remedy="make the store elsewhere; `datasetdm push` sends it to the hub, all at once",
            )  # fmt: skip
        try:
            self._ask(request, *arguments, **options)
        except FileNotFoundError as e:
            raise RemoteError(
                f"the storage has no such place: {_first_line(e)}", where=self, expected="a bucket that exists",
                remedy="make the bucket first, or correct its name",
            ) from e  # fmt: skip

    def _ask(self, request: Callable[..., Result], *args: Any, **options: Any) -> Result:
        """What a request to the storage gives, sent again where it fails. Raises `FINAL`, RemoteError."""
        for wait in (*WAITS, None):
            try:
                return request(*args, **options)
            except (*FINAL, DatasetDMError):
                raise
            except Exception as e:  # of whatever client
                if isinstance(e, REFUSED) or getattr(e, "errno", None) in REFUSED_CODES or "Credential" in repr(e):
                    raise RemoteError(
                        f"the storage refuses: {_first_line(e)}",
                        where=self,
                        expected="credentials that may do this, as the storage's own tools find them",
                    ) from e
                if wait is None:
                    raise RemoteError(
                        f"the storage gives no good answer after {len(WAITS) + 1} tries: {_first_line(e)}",
                        where=self,
                        expected="a storage that answers",
                        remedy="run the same command again when it does: it goes on where it stopped",
                    ) from e
                time.sleep(wait * random.uniform(0.5, 1.5))
        raise AssertionError


class SizedFile(io.RawIOBase):
    """A file of known size in bytes that is read at a position."""

    def __init__(self, size: int):
        super().__init__()
        self._size, self._position = size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position


class RemoteFile(SizedFile):
    """A file behind a URL, opened for reading; every read is one request."""

    def __init__(self, place: RemotePath, size: int):
        super().__init__(size)
        self.place = place

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size` of them; all that are left if it is negative."""
        stop = self._size if size < 0 else min(self._position + size, self._size)
        if stop <= self._position:
            return b""
        data = self.place.read_bytes(self._position, stop)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """`read` into a buffer; how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


Place = Path | RemotePath
"""Where files lie: in a folder of this machine, or behind a URL."""


def as_place(where: Place | str) -> Place:
    """The place that a text names: a URL (`s3://bucket/folder`), or a path of this machine."""
    if isinstance(where, RemotePath):
        return where
    text = str(where)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return RemotePath.of(text) if is_url(text) else Path(where)


def is_url(text: str) -> bool:
    """Whether a text is a URL, not a path or FORMAT:PATH."""
    protocol, colon, _ = text.partition("://")
    return bool(colon) and protocol.replace("+", "").replace("-", "").isalnum()


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0][:200]
