"""What every accumulator of figures promises."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from datasetdm.records import AnnotationName, Sample


@runtime_checkable
class Meter(Protocol):
    """Figures over many samples."""

    @property
    def better(self) -> tuple[str, bool]:
        """The figure that stands for all, between 0 and 1, and whether more is better."""
        ...

    @property
    def reads(self) -> tuple[AnnotationName, ...]:
        """The fields of `Sample` that it compares; both samples must have them."""
        ...

    @property
    def by_label(self) -> bool:
        """Whether both samples must have the same labels."""
        ...

    def update(self, predicted: Sample, true: Sample) -> None:
        """Add one image."""
        ...

    def compute(self) -> dict[str, float]:
        """The figures so far; NaN where nothing was compared."""
        ...

    def by_id(self) -> dict[int, dict[str, float]]:
        """The figures of every label that the truth has, by its id. The first of them is the one whose mean over the labels is
        `better`. Nothing where figures do not depend on labels."""
        ...
