"""Reading ahead: one thread decodes pictures while another encodes and writes (both leave Python's lock meanwhile)."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T], most: int = 8) -> Generator[T]:
    """The same items in the same order, worked out by a thread at most `most` before they are asked for.

    An error comes where it would have come; when this generator is closed, so is the other.
    """
    ready: queue.Queue[tuple[T, None] | tuple[None, BaseException | None]] = queue.Queue(most)
    given_up = threading.Event()

    def put(entry: tuple[T, None] | tuple[None, BaseException | None]) -> None:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(entry, timeout=0.05)
                return

    def work() -> None:
        last: BaseException | None = None
        try:
            for item in items:
                put((item, None))
                if given_up.is_set():
                    break
        except BaseException as e:
            last = e
        finally:
            items.close()
        put((None, last))

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        given_up.set()
        thread.join()
