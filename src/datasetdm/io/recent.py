"""Values that several threads need: each is made once, and those used last are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock, Semaphore
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The values used last, up to a total weight; safe to share among threads.

    Args:
        limit: of the total weight.
        weight: of a value.
        at_once: how many values are made at a time.
    """

    def __init__(self, limit: int, weight: Callable[[Value], int] = lambda _: 1, at_once: int = 1):
        self._limit, self._weight, self._turn = limit, weight, Semaphore(at_once)
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._coming: dict[Hashable, Future[Value]] = {}
        self._total = 0
        self._lock = Lock()

    def known(self, key: Hashable) -> Value | None:
        """The value of `key` if it is there."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def keep(self, key: Hashable, value: Value) -> None:
        """Take note of a value that was made elsewhere."""
        with self._lock:
            self._keep(key, value)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`. Made if it is not there, by one thread for all that ask meanwhile; raises what `make` raises."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            waited = self._coming.get(key)
            coming = waited or self._coming.setdefault(key, Future())
        if waited is None:
            self._make(key, make, coming)
        return coming.result()

    def _make(self, key: Hashable, make: Callable[[], Value], coming: Future[Value]) -> None:
        try:
            with self._turn:
                value = make()
        except BaseException as e:
            with self._lock:
                del self._coming[key]
            coming.set_exception(e)
            return
        with self._lock:
            del self._coming[key]
            self._keep(key, value)
        coming.set_result(value)

    def _keep(self, key: Hashable, value: Value) -> None:
        if key in self._values:
            self._total -= self._weight(self._values.pop(key))
        self._values[key] = value
        self._total += self._weight(value)
        while self._total > self._limit:
            self._total -= self._weight(self._values.popitem(last=False)[1])
