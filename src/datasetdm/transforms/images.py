"""Images that show nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from pydantic import Field

from datasetdm.records import Sample
from datasetdm.records.edits import judge
from datasetdm.transforms import Transform


class _ImageFilter(Transform):
    reason: ClassVar[str]
    minimum: float

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return (judge(s, self.name, self.measure(s.image), self.minimum, self.reason) for s in samples)

    @abstractmethod
    def measure(self, image: np.ndarray) -> float:
        """The score of an image u8[h w 3]."""


class FilterByContrast(_ImageFilter):
    """Rejects blank images.

    Args:
        minimum: standard deviation of the brightness, as a fraction of its range.
    """

    name: ClassVar[str] = "filter-by-contrast"
    reason: ClassVar[str] = "blank image"
    minimum: float = Field(0.02, ge=0, le=1)

    def measure(self, image: np.ndarray) -> float:
        """Standard deviation of the brightness, 0 to 0.5."""
        return float(image.mean(-1, dtype=np.float32).std(dtype=np.float64)) / 255


class FilterByClipping(_ImageFilter):
    """Rejects over-saturated images.

    Args:
        minimum: fraction of colour values that are neither 0 nor 255.
    """

    name: ClassVar[str] = "filter-by-clipping"
    reason: ClassVar[str] = "over-saturated image"
    minimum: float = Field(0.5, ge=0, le=1)

    def measure(self, image: np.ndarray) -> float:
        """Fraction of values that are not clipped."""
        return float(((image > 0) & (image < 255)).mean())
