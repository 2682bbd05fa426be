from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from datasetdm.io.recent import Recent

ASKING = 16


def test_a_value_is_made_once_for_all_who_ask_meanwhile() -> None:
    recent: Recent[object] = Recent(10)
    everybody, made = threading.Barrier(ASKING + 1), []

    def make() -> object:
        made.append(object())
        everybody.wait(10)
        return made[-1]

    def ask(first: bool) -> object:
        if not first:
            everybody.wait(10)
        return recent.get("key", make)

    with ThreadPoolExecutor(ASKING + 1) as pool:
        found = list(pool.map(ask, [True, *[False] * ASKING]))
    assert len(made) == 1 and all(value is made[0] for value in found)


def test_those_used_last_stay() -> None:
    recent: Recent[int] = Recent(10, lambda value: value)
    made: list[int] = []

    def get(value: int) -> int:
        return recent.get(value, lambda: made.append(value) or value)

    for value in (4, 5, 4, 3, 4, 5, 99, 99, 4):
        assert get(value) == value
    assert made == [4, 5, 3, 5, 99, 99, 4], "3 takes the place of 5, 5 that of 3; 99 is heavier than all and never kept"


def test_what_was_made_elsewhere_is_kept_once() -> None:
    recent: Recent[int] = Recent(10, lambda value: value)
    for value in (4, 5, 5, 4):
        recent.keep(value, value)
    assert [recent.known(value) for value in (4, 5, 6)] == [4, 5, None]
    recent.keep("4 is used least", 2)
    assert [recent.known(value) for value in (4, 5)] == [None, 5]


def test_an_error_is_raised_and_not_kept() -> None:
    recent: Recent[int] = Recent(10)
    with pytest.raises(ZeroDivisionError):
        recent.get("key", lambda: 1 // 0)
    assert recent.get("key", lambda: 1) == 1


def test_few_are_made_at_a_time() -> None:
    recent: Recent[int] = Recent(100, at_once=2)
    working, most, lock = 0, 0, threading.Lock()
    pairs = threading.Barrier(2)

    def make() -> int:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        pairs.wait(10)
        with lock:
            working -= 1
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda key: recent.get(key, make), range(8))) == 8
    assert most == 2
