"""Objects that are too small, in pieces, or whose outlines follow no edge of the image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float32
from pydantic import Field
from scipy import ndimage

from datasetdm.records import Instances, Sample
from datasetdm.records.edits import drop_objects, judge
from datasetdm.transforms import Transform


class ObjectFilter(Transform):
    """Takes unsound objects out, their pixels are ignored. Its score is the fraction of objects that are sound.

    Args:
        tolerate: a sample is rejected if a larger fraction of its objects is unsound; crowds are not judged.
    """

    reason: ClassVar[str]
    tolerate: float = Field(0.5, ge=0, le=1)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return map(self._filter, samples)

    def _filter(self, sample: Sample) -> Sample:
        objects = sample.instances
        if objects is None or objects.crowd.all():
            return sample
        sound = self.sound(sample, objects) | objects.crowd
        fraction = float(sound[~objects.crowd].mean())
        return judge(drop_objects(sample, sound), self.name, fraction, 1 - self.tolerate, self.reason)

    @abstractmethod
    def sound(self, sample: Sample, objects: Instances) -> Bool[np.ndarray, "n"]:
        """Which of the sample's objects stay."""


class FilterByArea(ObjectFilter):
    """Without small objects.

    Args:
        minimum: area of an object, as a fraction of the image.
    """

    name: ClassVar[str] = "filter-by-area"
    reason: ClassVar[str] = "small objects"
    minimum: float = Field(ge=0, le=1)

    def sound(self, sample: Sample, objects: Instances) -> Bool[np.ndarray, "n"]:
        """Objects of at least that area."""
        return objects.masks.areas >= self.minimum * np.prod(sample.size)


class FilterFragments(ObjectFilter):
    """Without objects in pieces.

    Args:
        minimum: fraction of an object's pixels that lie in its largest connected part.
        parts: the most connected parts that an object may have.
    """

    name: ClassVar[str] = "filter-fragments"
    reason: ClassVar[str] = "objects in pieces"
    minimum: float = Field(0.8, ge=0, le=1)
    parts: int = Field(4, ge=1)

    def sound(self, sample: Sample, objects: Instances) -> Bool[np.ndarray, "n"]:
        """Objects that are mostly one piece."""
        return np.array([self._whole(objects.masks.crop(i)[0]) for i in range(len(objects))], bool)

    def _whole(self, mask: np.ndarray) -> bool:
        numbers, count = ndimage.label(mask, np.ones((3, 3)))
        return bool(count <= self.parts and np.bincount(numbers[mask]).max() >= self.minimum * mask.sum())


class FilterByBoundary(ObjectFilter):
    """Without objects whose outlines follow no edges of the image.

    Args:
        minimum: mean rank of the image's gradient along an object's outline: 0 is the image's weakest gradient, 1 its
            strongest, 0.5 what a random outline has.
    """

    name: ClassVar[str] = "filter-by-boundary"
    reason: ClassVar[str] = "outlines that follow no edge"
    minimum: float = Field(0.6, ge=0, le=1)

    def sound(self, sample: Sample, objects: Instances) -> Bool[np.ndarray, "n"]:
        """Objects with outlines on edges."""
        ranks = edge_ranks(sample.image)
        return np.array([outline_rank(mask, ranks) >= self.minimum for mask in objects.masks], bool)


def edge_ranks(image: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """Every pixel's rank among the image's gradients, 0 to 1; equal gradients share their mean rank."""
    colours = ndimage.gaussian_filter(image.astype(np.float32), (1, 1, 0))
    strength = np.maximum(*(np.abs(ndimage.sobel(colours, axis)).max(-1) for axis in (0, 1)))
    values, inverse, counts = np.unique(np.rint(strength), return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    ranks = middle / max(1, strength.size - 1) if len(values) > 1 else np.full(1, 0.5)
    return ranks[inverse].reshape(strength.shape).astype(np.float32)


def outline_rank(mask: Bool[np.ndarray, "h w"], ranks: Float32[np.ndarray, "h w"]) -> float:
    """Mean rank along a mask's outline, the image's border left out; 1 for a mask that fills the image."""
    outline = mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
    return float(ranks[outline].mean(dtype=np.float64)) if outline.any() else 1.0
