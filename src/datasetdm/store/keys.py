"""Many keys in little memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


class KeySet:
    """A set of texts in 16 bytes each: their hashes."""

    RECENT = 4096
    """Hashes that are held apart until they are sorted in."""

    def __init__(self, keys: Iterable[str] = ()):
        hashes = b"".join(map(_hash, keys))
        self._sorted = np.sort(np.frombuffer(hashes, "S16"))
        self._recent: set[bytes] = set()

    def __contains__(self, key: str) -> bool:
        value = _hash(key)
        if value in self._recent:
            return True
        place = int(np.searchsorted(self._sorted, np.bytes_(value)))
        return place < len(self._sorted) and bool(self._sorted[place] == np.bytes_(value))

    def add(self, key: str) -> None:
        self._recent.add(_hash(key))
        if len(self._recent) >= self.RECENT:
            new = np.sort(np.array(list(self._recent), "S16"))
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, new), new)
            self._recent = set()


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=15).digest() + b"\1"  # NumPy cuts zeros off the ends of texts
