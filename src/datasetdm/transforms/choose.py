"""A part of the samples, chosen at random: small parts of large data, balanced over the labels if wanted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from pydantic import Field

from datasetdm.records import Sample
from datasetdm.transforms import Transform

Chosen = TypeVar("Chosen", bound="Selectable")


@runtime_checkable
class Selectable(Protocol):
    """Samples by number, as readers have them: those that are not chosen need not be read."""

    @property
    def numbers(self) -> list[int]:
        """The numbers of all samples."""
        ...

    def numbered(self) -> Iterator[tuple[int, Sample]]:
        """All samples with their numbers."""
        ...

    def only(self: Chosen, numbers: Sequence[int]) -> Chosen:
        """The samples of these numbers, in their order."""
        ...

    def __iter__(self) -> Iterator[Sample]: ...


@runtime_checkable
class Indexed(Protocol):
    """Samples by their place, as stores and lists have them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Choose(Transform):
    """At most `limit` samples at random, in their order. The same seed chooses the same ones.

    Of a reader or a store only the chosen samples are read (all of them first, if `balance` asks for their labels). Other
    samples are read twice; an iterator, which can be read only once, is held in memory.

    Args:
        limit: number of samples, at least 1.
        balance: choose again and again a sample of the label that was chosen least often, so that rare labels are there.
        seed: of the random choice.
    """

    name: ClassVar[str] = "choose"
    selects: ClassVar[bool] = True
    limit: int = Field(ge=1)
    balance: bool = False
    seed: int = Field(0, ge=0)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        if isinstance(samples, Selectable):
            yield from self.select(samples)
            return
        if isinstance(samples, Iterator):
            samples = list(samples)
        if isinstance(samples, Indexed) and not self.balance:
            chosen = self._choose(dict.fromkeys(range(len(samples)), ()))
            yield from (samples[i] for i in sorted(chosen))
            return
        chosen = self._choose({i: _labels_in(s) if self.balance else () for i, s in enumerate(samples)})
        yield from (s for i, s in enumerate(samples) if i in chosen)

    def select(self, reader: Chosen) -> Chosen:
        """The reader of the chosen samples."""
        if self.balance:
            return reader.only(sorted(self._choose({n: _labels_in(s) for n, s in reader.numbered()})))
        return reader.only(sorted(self._choose(dict.fromkeys(reader.numbers, ()))))

    def _choose(self, labels_of: Mapping[int, Collection[str]]) -> set[int]:
        """The chosen ones of the numbers, from the labels that each sample has."""
        order = np.random.default_rng(self.seed).permutation(list(labels_of)).tolist()
        waiting: dict[str, deque[int]] = {}
        for number in order:
            for name in labels_of[number]:
                waiting.setdefault(name, deque()).append(number)
        times: Counter[str] = Counter()
        chosen: set[int] = set()
        while waiting and len(chosen) < self.limit:
            rarest = min(sorted(waiting), key=lambda name: times[name])
            if not waiting[rarest]:
                del waiting[rarest]
            elif (number := waiting[rarest].popleft()) not in chosen:
                chosen.add(number)
                times.update(labels_of[number])
        rest = [n for n in order if n not in chosen]
        return chosen | set(rest[: self.limit - len(chosen)])


def _labels_in(sample: Sample) -> set[str]:
    return {sample.labels.names[i] for i in sample.annotations.labels_in()}
