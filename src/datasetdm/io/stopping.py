"""Ending by SIGINT or SIGTERM without losing finished work."""

from __future__ import annotations

import contextlib
import signal
import threading
import weakref
from collections.abc import Generator
from typing import Protocol, runtime_checkable

from datasetdm.errors import DatasetDMError


@runtime_checkable
class Unsaved(Protocol):
    """What holds finished work that is not on the disk yet."""

    def save(self) -> None:
        """Bring it to the disk, by this thread alone."""
        ...


_unsaved: weakref.WeakSet[Unsaved] = weakref.WeakSet()


def remember(holder: Unsaved) -> None:
    """Let `save_all` save what this one holds, until `forget`."""
    _unsaved.add(holder)


def forget(holder: Unsaved) -> None:
    """All that it held is on the disk."""
    _unsaved.discard(holder)


def save_all() -> None:
    """Save what is finished, before the process ends without cleaning up. What cannot be saved is lost."""
    for holder in list(_unsaved):
        with contextlib.suppress(DatasetDMError, OSError):
            holder.save()


@contextlib.contextmanager
def uninterrupted() -> Generator[None]:
    """Put off SIGINT and SIGTERM until the block has ended (in the main thread; elsewhere they never arrive)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    previous = {s: signal.signal(s, lambda number, _: arrived.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if arrived:
            signal.raise_signal(arrived[0])
