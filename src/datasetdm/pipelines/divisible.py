"""Samples that several workers can make, and the keys of those that are there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from datasetdm.records import Labels, Sample


@runtime_checkable
class Keys(Protocol):
    """Keys of samples: a set, or the store that is being written."""

    def __contains__(self, key: str, /) -> bool: ...


@runtime_checkable
class Divisible(Protocol):
    """A source whose samples several workers can make, in any order: they have numbers, and follow from their numbers."""

    @property
    def labels(self) -> Labels:
        """The vocabulary of its samples."""
        ...

    def origin(self) -> dict[str, Any]:
        """As a `Source`'s."""
        ...

    def groups(self, numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Ascending numbers in the groups that pass the models together."""
        ...

    def make(self, group: Sequence[int], without: Collection[int] = ()) -> list[Sample]:
        """The samples of one group, in their order, but for those of `without`. In the models others take their place, so that
        the group's other samples are what they would be with them."""
        ...

    def make_alone(self, number: int) -> list[Sample]:
        """One sample, by itself in the models; none if the source leaves it out."""
        ...

    def describe(self, number: int) -> tuple[str, str]:
        """Key and prompt of a sample."""
        ...
