from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datasetdm.errors import ConfigError
from datasetdm.io.settings import validated
from datasetdm.readers import read
from datasetdm.records import Labels, Sample, SemanticMap
from datasetdm.transforms.choose import Choose

LABELS = Labels(("sky", "dog"))


def samples(n: int = 40) -> list[Sample]:
    """Every tenth has a dog, the others sky alone."""
    bare = Sample("", np.zeros((1, 2, 3), np.uint8), LABELS)
    maps = [SemanticMap(np.array([[0, int(i % 10 == 0)]])) for i in range(n)]
    return [replace(bare, key=f"s{i}", semantic=m) for i, m in enumerate(maps)]


class Counting:
    """Samples by place that say which were read."""

    def __init__(self) -> None:
        self.samples, self.read = samples(), Counter[int]()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.read[index] += 1
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        raise AssertionError("all were read")


def test_only_the_chosen_ones_are_read() -> None:
    given = Counting()
    found = [s.key for s in Choose(limit=5, seed=1)(given)]
    assert len(found) == 5 and sorted(given.read.values()) == [1] * 5
    assert found == [f"s{i}" for i in sorted(given.read)] == [s.key for s in Choose(limit=5, seed=1)(samples())]
    assert found != [s.key for s in Choose(limit=5, seed=2)(samples())]


def test_readers_decode_no_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = read("mini:test")
    taken: list[int] = []
    original = type(reader.source).__getitem__
    monkeypatch.setattr(type(reader.source), "__getitem__", lambda self, i: taken.append(i) or original(self, i))
    found = [s.key for s in Choose(limit=3)(reader)]
    assert len(found) == len(taken) == 3 and found == [s.key for s in Choose(limit=3).select(reader)]


@pytest.mark.parametrize("wrap", [list, iter, read], ids=["list", "iterator", "reader"])
def test_rare_labels_are_there(wrap: Any) -> None:
    if wrap is read:
        reader = read("mini:test")
        few, rare = Choose(limit=20, balance=True, seed=3).select(reader), Choose(limit=20, seed=3).select(reader)
        counts = [Counter(i for s in part for i in s.annotations.labels_in()) for part in (few, rare)]
        assert len(few) == len(rare) == 20
        assert min(counts[0].values()) > min(counts[1][i] for i in counts[0])
        return
    found = list(Choose(limit=8, balance=True)(wrap(samples())))
    dogs = sum(1 in s.annotations.labels_in() for s in found)
    assert len(found) == 8 and dogs == 4, "all dogs of 40 samples, and then some of the others"


def test_more_than_there_are() -> None:
    assert [s.key for s in Choose(limit=99, balance=True)(samples(5))] == [f"s{i}" for i in range(5)]


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1, "seed": -1}])
def test_bad_settings(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        validated(Choose, **wrong)
