"""Many keys in little memory."""

from __future__ import annotations

import sqlite3
import tempfile
import weakref
from collections.abc import Iterable

from datasetdm.errors import OutputError


class KeySet:
    """A set of texts on the disk, in a temporary file that nobody else sees: its memory does not grow with it.

    Raises:
        OutputError: the folder of temporary files is full.
    """

    def __init__(self, keys: Iterable[str] = ()):
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._table.close)
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute("CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._table.execute("BEGIN")  # and no end: nothing is written but what the cache cannot hold
        self._insert(keys)

    def __contains__(self, key: str) -> bool:
        return self._table.execute("SELECT 1 FROM keys WHERE key = ?", (key.encode(),)).fetchone() is not None

    def add(self, key: str) -> None:
        self._insert((key,))

    def _insert(self, keys: Iterable[str]) -> None:
        try:
            self._table.executemany("INSERT OR IGNORE INTO keys VALUES (?)", ((key.encode(),) for key in keys))
        except sqlite3.OperationalError as e:
            raise OutputError(
                f"the keys of the samples cannot be remembered: {e}",
                where=tempfile.gettempdir(),
                expected="some 50 bytes of temporary space per sample",
                remedy="free some space there, or set TMPDIR to a folder that has some",
            ) from e
