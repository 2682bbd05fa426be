"""How the samples of a run are divided among workers, and what a worker and its driver say to each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from datasetdm.engines.progress import Seen
from datasetdm.pipelines.divisible import Divisible, Keys
from datasetdm.records import Labels, Sample

PARTS_PER_WORKER = 4
"""A run of few shards is cut into so many parts per worker, so that none waits long for the others at the end."""


@dataclass(frozen=True)
class Part:
    """Consecutive samples that one worker makes and writes: a shard, or a piece of one.

    Args:
        numbers: of the samples in their source, ascending.
        ends: whether a shard of the store ends with it.
        alone: numbers whose groups ended workers: each of their samples is made by itself.
        failed: numbers of samples that are given up -> why.
    """

    numbers: tuple[int, ...]
    ends: bool
    alone: frozenset[int] = frozenset()
    failed: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The same for the same samples."""
        digest = hashlib.sha256(json.dumps(self.numbers).encode()).hexdigest()
        return f"{self.numbers[0]:09d}-{digest[:16]}"


@dataclass(frozen=True)
class Step:
    """Where a worker is: `done` samples of its part are made, and it makes those of `numbers` now; none when it has ended."""

    done: int
    numbers: tuple[int, ...] = ()


@runtime_checkable
class Job(Protocol):
    """What a worker has loaded."""

    @property
    def source(self) -> Divisible:
        """Makes the samples."""
        ...

    def count(self, samples: Sequence[Sample]) -> Seen:
        """The samples, counted."""
        ...

    def skipped(self) -> list[tuple[str, str]]:
        """What is wrong with data that were skipped since this was last asked, and where."""
        ...

    def made_by(self) -> dict[str, Any]:
        """Software and models, for the store, JSON-ready."""
        ...

    def notes(self) -> list[str]:
        """What the user should know before the work begins."""
        ...


@dataclass(frozen=True)
class Opened:
    """What a worker says once its models are there."""

    labels: Labels
    origin: Mapping[str, Any]
    made_by: Mapping[str, Any]
    """Software and licences, for the store."""
    notes: Sequence[str]
    place: str
    """Machine and process."""


@dataclass(frozen=True)
class Task:
    """A run of several workers.

    Args:
        open: makes the job, in every worker; it is sent there by name, with its settings.
        pending: the numbers of samples whose key is not among those given, in their order; None stands for an empty store.
        batch: samples that pass the models together, so that parts are whole batches.
        total: how many samples there are at most, if that is known.
        fixed: the same number is always the same sample, so that unfinished parts of an earlier run are used.
        check: raises StoreError if a store of the same origin is of other data.
    """

    open: Callable[[], Job]
    pending: Callable[[Keys | None], Iterator[int]]
    batch: int
    total: int | None = None
    fixed: bool = True
    check: Callable[[Any], None] = lambda store: None


def part_size(total: int | None, workers: int, batch: int, shard_size: int) -> int:
    """Samples per part: a shard, or whole batches where there are few samples."""
    if total is None:
        return shard_size
    fair = -(-total // (workers * PARTS_PER_WORKER))
    return min(shard_size, max(1, -(-fair // batch)) * batch)


def divide(numbers: Iterable[int], begun: int, shard_size: int, size: int) -> Iterator[Part]:
    """Consecutive parts of at most `size` samples; a shard ends after every `shard_size` samples, `begun` included."""
    iterator, position = iter(numbers), begun
    while True:
        within = position % shard_size
        stop = min(shard_size, (within // size + 1) * size)
        if not (chunk := tuple(islice(iterator, stop - within))):
            return
        position += len(chunk)
        yield Part(chunk, position % shard_size == 0)
