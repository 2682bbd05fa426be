"""The one way for samples: a source, then transforms, then a sink (a store, an exporter, a page).

    generate:  DatasetGenerator(prompts)           -> store
    annotate:  Annotator(Data(read(images)))       -> store
    export:    Stream(Data(read(data)), transforms) -> folder

A store remembers its stream by `origin()`: what its samples depend on, and nothing else. So the same stream goes on with the
store, on any machine and with any count; another one is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from datasetdm.errors import ConfigError, DataError, StoreError
from datasetdm.pipelines.divisible import Divisible, Keys
from datasetdm.readers import Reader
from datasetdm.records import Labels, Sample
from datasetdm.store.keys import KeySet
from datasetdm.store.store import Store
from datasetdm.transforms import Transform, apply

CHECKED = 16
"""Samples of a store that are compared with the data before the store is continued."""


@runtime_checkable
class Source(Protocol):
    """Where samples come from. Every sample has a key of its own, and the same key always gives the same sample."""

    @property
    def labels(self) -> Labels:
        """The vocabulary of its samples."""
        ...

    @property
    def endless(self) -> bool:
        """Whether its samples never end."""
        ...

    def origin(self) -> dict[str, Any]:
        """All that the samples depend on, JSON-ready, models and texts by hash; never the count, the sink or the device."""
        ...

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """The samples in their order, without those whose key is in `done`; they may never end."""
        ...

    def check(self, store: Store) -> None:
        """Raises StoreError if the samples of a store that says the same origin are not this source's."""
        ...


@dataclass(frozen=True)
class Stream:
    """A source and what is done to its samples, in this order: again a source."""

    source: Source
    transforms: Sequence[Transform] = ()

    def __post_init__(self) -> None:
        choice = next((t for t in self.transforms if t.selects or t.compares), None)
        if choice and self.source.endless:
            raise ConfigError(
                f"the transform {choice.name!r} looks at all samples, and this source never ends",
                expected="a source that ends, for instance a store",
                remedy="write a store first, then choose from it or filter it (`datasetdm filter`)",
            )

    @property
    def labels(self) -> Labels:
        """The vocabulary of the samples that leave."""
        return apply((), self.source.labels, self.transforms)[1]

    @property
    def endless(self) -> bool:
        """Whether its source never ends."""
        return self.source.endless

    @property
    def filtered(self) -> bool:
        """Whether transforms or checks may reject samples."""
        return bool(self.transforms or self.source.origin().get("checks"))

    def origin(self) -> dict[str, Any]:
        """What a store says about where its samples come from, JSON-ready."""
        steps = [t.origin() for t in self.transforms]
        return {**self.source.origin(), **({"transforms": steps} if steps else {})}

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """The samples that leave, without those whose key is in `done`."""
        if any(t.selects or t.compares for t in self.transforms):  # they look at all samples, whatever is done
            stream = iter(apply(self.source.samples(), self.source.labels, self.transforms)[0])
            return (s for s in stream if s.key not in done)
        return iter(apply(self.source.samples(done), self.source.labels, self.transforms)[0])

    def check(self, store: Store) -> None:
        """The source's own check."""
        self.source.check(store)

    # ------------------------------------------------------------------ as a Divisible
    def groups(self, numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """The source's own groups."""
        return self._divisible.groups(numbers)

    def make(self, group: Sequence[int], without: Collection[int] = ()) -> list[Sample]:
        """The samples of one group after all transforms."""
        return self._applied(self._divisible.make(group, without))

    def make_alone(self, number: int) -> list[Sample]:
        """One sample after all transforms."""
        return self._applied(self._divisible.make_alone(number))

    def describe(self, number: int) -> tuple[str, str]:
        """As the source does."""
        return self._divisible.describe(number)

    @property
    def _divisible(self) -> Divisible:
        whole = next((t for t in self.transforms if t.selects or t.compares), None)
        if whole or not isinstance(self.source, Divisible):
            raise ConfigError(
                f"the transform {whole.name!r} looks at all samples"
                if whole
                else "the samples of this source have an order",
                expected="samples that workers can make by themselves",
                remedy="use --engine local, or filter the finished store (`datasetdm filter`)",
            )
        return self.source

    def _applied(self, samples: list[Sample]) -> list[Sample]:
        return list(apply(samples, self.source.labels, self.transforms)[0])


@runtime_checkable
class Numbered(Protocol):
    """A reader whose samples can be read in any order."""

    @property
    def numbers(self) -> list[int]:
        """The numbers of its samples."""
        ...

    @property
    def whole(self) -> bool:
        """Whether there is a sample for every number, as far as that is known without reading it."""
        ...

    def at(self, number: int) -> Sample | None:
        """The sample of this number; None if it is left out. Raises DataError."""
        ...


@dataclass(frozen=True)
class Data:
    """Labelled data, or images alone, as a source.

    Args:
        reader: the open data.
        format: its name, for the origin.
    """

    reader: Reader
    format: str = "samples"
    endless: ClassVar[bool] = False

    @property
    def labels(self) -> Labels:
        """The data's labels."""
        return self.reader.labels

    def origin(self) -> dict[str, Any]:
        """The format. What the samples are is compared key by key (`check`), so that data may grow."""
        return {"source": "data", "format": self.format}

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """The data's samples in their order. Raises DataError where two have one key."""
        seen = KeySet()
        for sample in self.reader:
            _claim(seen, sample.key)
            if sample.key not in done:
                yield sample

    def pending(self, done: Keys | None) -> Iterator[int]:
        """The numbers of the samples whose key is not in `done`; nothing is read if that is None, which is for a new store."""
        reader = self._numbered
        if done is None and reader.whole:
            yield from reader.numbers
            return
        seen = KeySet()
        for number in reader.numbers:
            if (sample := reader.at(number)) is not None:
                _claim(seen, sample.key)
                if done is None or sample.key not in done:
                    yield number

    def at(self, number: int) -> Sample | None:
        """The sample of this number; None if it is left out. Raises DataError."""
        return self._numbered.at(number)

    @property
    def _numbered(self) -> Numbered:
        if not isinstance(self.reader, Numbered):
            raise ConfigError("these data have no numbers, so workers cannot share them", remedy="use --engine local")
        return self.reader

    def check(self, store: Store) -> None:
        """Some of the store's images, the first and the last among them, must be the data's images of the same keys."""
        rows = np.unique(np.linspace(0, len(store) - 1, CHECKED).astype(int)).tolist() if len(store) else []
        images = {(s := store[row]).key: s.image for row in rows}
        for sample in self.samples():
            if (image := images.pop(sample.key, None)) is not None and not np.array_equal(image, sample.image):
                raise other_data(store, f"the image {sample.key!r} is another one than in the store")
            if not images:
                return
        if images:
            raise other_data(store, f"the store holds {min(images)!r}, which these data lack")


def _claim(seen: KeySet, key: str) -> None:
    """Raises DataError for a second sample of one key."""
    if key in seen:
        raise DataError(f"two samples have the key {key!r}", expected="unique keys", remedy="rename one of them")
    seen.add(key)


def other_data(store: Store, what: str) -> StoreError:
    """The error of a store whose samples come from other data."""
    return StoreError(
        what,
        where=store.folder,
        expected="the data that the store was begun with, to which some may have been added",
        remedy="choose another --out, or give the same data",
    )
