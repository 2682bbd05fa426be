"""Annotations that are not certain enough, taken out: whole objects and regions by their score, or single pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from pydantic import field_validator

from datasetdm.errors import ConfigError
from datasetdm.records import IGNORE, Sample
from datasetdm.records.edits import drop_depth, drop_objects, ignore_pixels, judge
from datasetdm.transforms import Transform


class _Threshold(Transform):
    """Changes nothing where the minimum is 0."""

    minimum: float

    @field_validator("minimum")
    @classmethod
    def _within(cls, value: float) -> float:
        if not 0 <= value <= 1:
            raise ConfigError(f"minimum {cls.name.rpartition('-')[2]} {value:g}", expected="0..1")
        return value

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return map(self._change, samples) if self.minimum > 0 else iter(samples)

    @abstractmethod
    def _change(self, sample: Sample) -> Sample: ...


class FilterByScore(_Threshold):
    """Without objects of a lower score and regions of a lower mean confidence; their pixels are ignored.

    Args:
        minimum: score, 0 to 1.
    """

    name: ClassVar[str] = "filter-by-score"

    def _change(self, sample: Sample) -> Sample:
        semantic, objects = sample.semantic, sample.instances
        doubtful = np.zeros(sample.size, bool)
        if semantic is not None and semantic.confidence is not None:
            for region in (semantic.ids == i for i in np.unique(semantic.ids)):
                doubtful |= region & (semantic.confidence[region].mean(dtype=np.float64) < self.minimum)
        if objects is not None:
            sample = drop_objects(sample, objects.scores >= np.float32(self.minimum))
        return ignore_pixels(sample, doubtful)


class MaskByConfidence(_Threshold):
    """Without the pixels of a lower confidence: they are ignored in semantic maps, and have no depth.

    Args:
        minimum: confidence, 0 to 1.
    """

    name: ClassVar[str] = "mask-by-confidence"

    def _change(self, sample: Sample) -> Sample:
        semantic, depth = sample.semantic, sample.depth
        if semantic is not None and semantic.confidence is not None:
            sample = ignore_pixels(sample, semantic.confidence < self.minimum)
        if depth is not None and depth.confidence is not None:
            sample = drop_depth(sample, depth.confidence < self.minimum)
        return sample


class FilterByConfidence(_Threshold):
    """Rejects samples whose semantic map has a lower mean confidence; its score is that mean.

    Args:
        minimum: mean confidence of the labelled pixels, 0 to 1.
    """

    name: ClassVar[str] = "filter-by-confidence"

    def _change(self, sample: Sample) -> Sample:
        semantic = sample.semantic
        if semantic is None or semantic.confidence is None:
            return sample
        labelled = semantic.confidence[semantic.ids != IGNORE]
        mean = float(labelled.mean(dtype=np.float64)) if labelled.size else 0.0
        return judge(sample, self.name, mean, self.minimum, "uncertain labels")
