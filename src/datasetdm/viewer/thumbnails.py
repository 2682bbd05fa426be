"""Small images of a store's rows: those that are stored together are made together, and the last ones are kept."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from datasetdm.io.recent import Recent
from datasetdm.viewer import detail
from datasetdm.viewer.rows import Rows

KEPT_BYTES = 64_000_000
"""Small images that stay in memory."""

LARGEST_KEPT = 512
"""Images that are asked for with more pixels do not stay: few of them would fill that memory."""

Encoded = tuple[bytes, str]
"""(bytes, media type)."""


class Thumbnails:
    """Images of the rows that `rows` holds; safe to share among threads.

    Row groups are read in the order of the first requests that wait for them, each once for all that wait for it.
    """

    def __init__(self, rows: Rows):
        self.rows = rows
        self._recent: Recent[Encoded] = Recent(KEPT_BYTES, lambda image: len(image[0]))
        self._waiting: dict[Hashable, dict[tuple[int, int], Future[Encoded]]] = {}
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(rows.store.parallel)

    def get(self, row: int, side: int) -> Future[Encoded]:
        """The stored image, or a small one (`detail.thumbnail`). Raises IndexError, StoreError, now or as the result."""
        key, coming = (row, side), Future()
        coming.set_running_or_notify_cancel()  # others may wait for it when one has given up
        if known := self._recent.known(key):
            coming.set_result(known)
            return coming
        group = self.rows.store.place(row)[:2]
        with self._lock:
            if group not in self._waiting:
                self._waiting[group] = {}
                self._pool.submit(self._serve, group)
            return self._waiting[group].setdefault(key, coming)

    def _serve(self, group: Hashable) -> None:
        """Make all images that wait for a row group."""
        with self._lock:
            waiting = self._waiting.pop(group)
        for (row, side), coming in waiting.items():
            try:
                image = self._make(row, side)
            except BaseException as e:
                coming.set_exception(e)
                continue
            if 0 < side <= LARGEST_KEPT:
                self._recent.keep((row, side), image)
            coming.set_result(image)

    def _make(self, row: int, side: int) -> Encoded:
        encoded = self.rows.encoded(row)
        with self.rows.turn(row):
            return detail.thumbnail(encoded, side)
