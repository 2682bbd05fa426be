"""The loop that writes a stream into a store: by key, with any count, and nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datasetdm.engines.local import iter_write, write
from datasetdm.errors import StoreError
from datasetdm.pipelines.stream import Keys, Stream
from datasetdm.records import Sample
from datasetdm.store.store import Store
from datasetdm.transforms.choose import Choose
from datasetdm.transforms.remap import RemapLabels
from datasetdm.transforms.threshold import FilterByScore
from sources import NamedSamples


def keys(folder: Path) -> list[str]:
    return list(Store(folder).keys())


def test_a_store_goes_on_with_a_larger_count(tmp_path: Path) -> None:
    assert write(NamedSamples("abcdefg"), tmp_path, 3) == 3
    source = NamedSamples("abcdefg")
    assert write(source, tmp_path, 5) == 5 and source.made == 2
    assert write(source, tmp_path, 2) == 5, "a smaller count changes nothing"
    assert write(source, tmp_path) == 7 and keys(tmp_path) == list("abcdefg")


def test_a_sample_that_sorts_first_is_added_and_none_twice(tmp_path: Path) -> None:
    write(NamedSamples("bcd"), tmp_path)
    assert write(NamedSamples("abcd"), tmp_path) == 4
    assert keys(tmp_path) == ["b", "c", "d", "a"]


def test_another_stream_is_refused(tmp_path: Path) -> None:
    write(NamedSamples("ab"), tmp_path)
    with pytest.raises(StoreError, match="source differs"):
        write(NamedSamples("abc", "other"), tmp_path)
    with pytest.raises(StoreError, match="transforms differs"):
        write(Stream(NamedSamples("abc"), [FilterByScore(minimum=0.5)]), tmp_path)
    assert keys(tmp_path) == ["a", "b"]


def test_a_source_that_fails_loses_nothing(tmp_path: Path) -> None:
    class Failing(NamedSamples):
        def samples(self, done: Keys = ()) -> Iterator[Sample]:
            for sample in super().samples(done):
                if sample.key == "d":
                    raise KeyboardInterrupt
                yield sample

    with pytest.raises(KeyboardInterrupt):
        write(Failing("abcdef"), tmp_path)
    assert keys(tmp_path) == ["a", "b", "c"]


def test_every_sample_is_reported(tmp_path: Path) -> None:
    events = [(held, s.key if s else None) for held, s in iter_write(NamedSamples("abc"), tmp_path, 2)]
    assert events == [(0, None), (1, "a"), (2, "b")]


def test_transforms_are_applied_and_remembered(tmp_path: Path) -> None:
    stream = Stream(NamedSamples("abc"), [RemapLabels(mapping={"dog": "animal"})])
    write(stream, tmp_path, 2)
    store = Store(tmp_path)
    assert store.labels.names == ("sky", "animal", "grass")
    assert store.stream["transforms"] == [{"name": "remap-labels", "mapping": {"dog": "animal"}}]
    assert write(stream, tmp_path) == 3


def test_a_choice_is_the_same_whatever_is_done(tmp_path: Path) -> None:
    """A choice of the rest would be another choice."""
    chosen = Stream(NamedSamples("abcdefgh"), [Choose(limit=4, seed=1)])
    write(chosen, tmp_path / "parts", 2)
    write(chosen, tmp_path / "parts")
    write(chosen, tmp_path / "whole")
    assert keys(tmp_path / "parts") == keys(tmp_path / "whole") and len(Store(tmp_path / "whole")) == 4
