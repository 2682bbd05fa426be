"""An ignore band along outlines, where labels are least certain, as in VOC's segmentations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.ndimage import maximum_filter, minimum_filter

from datasetdm.records import IGNORE, Sample
from datasetdm.records.edits import ignore_pixels
from datasetdm.transforms import Transform


class MaskOutlines(Transform):
    """Without the pixels near an outline between two labels: they are ignored in semantic maps.

    Args:
        width: so many pixels on either side of an outline are ignored, 0 for none.
    """

    name: ClassVar[str] = "mask-outlines"
    width: int = Field(1, ge=0)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        return map(self._change, samples) if self.width else iter(samples)

    def _change(self, sample: Sample) -> Sample:
        if sample.semantic is None:
            return sample
        ids, side = sample.semantic.ids.astype(np.int32), 2 * self.width + 1
        known = ids != IGNORE
        highest = maximum_filter(np.where(known, ids, -1), side, mode="nearest")
        lowest = minimum_filter(np.where(known, ids, IGNORE), side, mode="nearest")
        return ignore_pixels(sample, highest > lowest)
