"""Labels that a prompt asks for and the annotations do not show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from datasetdm.records import Sample
from datasetdm.records.edits import judge
from datasetdm.transforms import Transform

MISSING = "missing"
"""Key of `Provenance.details` that holds the labels that were not found."""


class FilterByPrompt(Transform):
    """Takes labels that are not found out of `prompt.labels` and names them in the provenance's `missing`. Its score is the
    fraction of the prompted labels that are found.

    Args:
        minimum: fraction that must be found, else the sample is rejected.
        area: least part of the image that a label covers where it counts as found, by its pixels or its objects.
    """

    name: ClassVar[str] = "filter-by-prompt"
    minimum: float = Field(1.0, ge=0, le=1)
    area: float = Field(0.002, ge=0, le=1)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return map(self._judge, samples)

    def _judge(self, sample: Sample) -> Sample:
        prompt = sample.prompt
        if prompt is None or not prompt.labels or (sample.semantic is None and sample.instances is None):
            return sample
        there = found_labels(sample, self.area)
        missing = [n for n in prompt.labels if n in sample.labels.index and n not in there]
        earlier = sample.provenance.details.get(MISSING, ())
        asked = len(prompt.labels) + len(earlier)
        value = 1 - (len(missing) + len(earlier)) / asked
        if missing:
            details = {**sample.provenance.details, MISSING: [*earlier, *missing]}
            sample = replace(
                sample,
                prompt=replace(prompt, labels=tuple(n for n in prompt.labels if n not in missing)),
                provenance=replace(sample.provenance, details=details),
            )
        return judge(sample, self.name, value, self.minimum, "prompted labels are missing")


def found_labels(sample: Sample, area: float) -> set[str]:
    """Labels whose pixels, or whose objects together, cover this fraction of the image."""
    names, needed = sample.labels.names, max(1.0, area * float(np.prod(sample.size)))
    covered = np.zeros(len(names))
    if (semantic := sample.semantic) is not None:
        covered = np.bincount(semantic.ids[semantic.ids < len(names)], minlength=len(names)).astype(float)
    if (objects := sample.instances) is not None:
        by_objects = np.bincount(objects.label_ids, weights=objects.masks.areas, minlength=len(names))
        covered = np.maximum(covered, by_objects)
    return {names[i] for i in np.flatnonzero(covered >= needed)}
