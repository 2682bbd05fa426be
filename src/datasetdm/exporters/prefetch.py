"""Reading ahead: one thread decodes images while another encodes and writes (both leave Python's lock meanwhile)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

MOST_BYTES = 32 * 2**20
"""Of what waits to be taken: more large images at once would cost memory, and gain no time."""


def ahead(items: Generator[T], most: int = 8, size: Callable[[T], int] = lambda _: 0) -> Generator[T]:
    """The same items in the same order, worked out by a thread before they are asked for.

    An error comes where it would have come; when this generator is closed, so is the other.

    Args:
        items: worked on, and closed, by the thread alone.
        most: number of items that wait at a time.
        size: bytes of an item; none is worked out while `MOST_BYTES` wait.
    """
    ready: deque[tuple[T] | BaseException] = deque()
    end, given_up, changed = StopIteration(), threading.Event(), threading.Condition()

    def put(entry: tuple[T] | BaseException) -> None:
        with changed:
            ready.append(entry)
            changed.notify_all()

    def room() -> bool:
        waiting = sum(size(entry[0]) for entry in ready if isinstance(entry, tuple))
        return given_up.is_set() or (len(ready) < most and waiting < MOST_BYTES)

    def work() -> None:
        last: BaseException = end
        try:
            try:
                for item in items:
                    put((item,))
                    del item
                    with changed:
                        changed.wait_for(room)
                    if given_up.is_set():
                        break
            finally:
                items.close()
        except BaseException as e:
            last = e
        put(last)

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: ready)
                entry = ready.popleft()
                changed.notify_all()
            if entry is end:
                return
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
            del entry
    finally:
        with changed:
            given_up.set()
            changed.notify_all()
        thread.join()
