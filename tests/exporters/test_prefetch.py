from __future__ import annotations

import threading
import time
from collections.abc import Generator

import hypothesis
import pytest
from hypothesis import strategies as st

from datasetdm.exporters.prefetch import ahead


def counted(n: int, ends: list[str], error: Exception | None = None) -> Generator[int]:
    try:
        yield from range(n)
        if error:
            raise error
    finally:
        ends.append(threading.current_thread().name)


@hypothesis.given(st.integers(0, 40), st.integers(1, 5))
def test_order_is_kept(n: int, most: int) -> None:
    ends: list[str] = []
    assert list(ahead(counted(n, ends), most)) == list(range(n)) and ends == ["read ahead"]


def test_an_error_comes_in_its_place() -> None:
    found, ends = [], list[str]()
    with pytest.raises(ValueError, match="no image"):
        for i in ahead(counted(3, ends, ValueError("no image"))):
            found.append(i)
    assert found == [0, 1, 2] and len(ends) == 1


def test_closing_ends_the_thread() -> None:
    ends: list[str] = []
    others = {*threading.enumerate()}
    stream = ahead(counted(10**9, ends), 3)
    assert next(stream) == 0
    started = {*threading.enumerate()} - others
    stream.close()
    assert ends == ["read ahead"] and len(started) == 1 and not any(t.is_alive() for t in started)


def test_no_more_than_a_few_are_ahead() -> None:
    taken: list[int] = []
    stream = ahead((taken.append(i) or i for i in range(100)), 4)
    assert next(stream) == 0
    time.sleep(0.2)
    assert len(taken) <= 6
    assert list(stream) == list(range(1, 100))
