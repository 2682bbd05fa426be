"""Many keys in little memory."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterable


class KeySet:
    """A set of texts on the disk, in a temporary file that nobody else sees: its memory does not grow with it."""

    def __init__(self, keys: Iterable[str] = ()):
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._table.close)
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute("CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._table.execute("BEGIN")  # and no end: nothing is written but what the cache cannot hold
        self._table.executemany("INSERT OR IGNORE INTO keys VALUES (?)", ((key.encode(),) for key in keys))

    def __contains__(self, key: str) -> bool:
        return self._table.execute("SELECT 1 FROM keys WHERE key = ?", (key.encode(),)).fetchone() is not None

    def add(self, key: str) -> None:
        self._table.execute("INSERT OR IGNORE INTO keys VALUES (?)", (key.encode(),))
