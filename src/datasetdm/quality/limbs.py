"""Keypoints whose limbs have lengths that no labelled object has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool
from pydantic import Field, PrivateAttr

from datasetdm.io.digests import digest, place_name
from datasetdm.readers import read
from datasetdm.records import Instances, Sample
from datasetdm.transforms.objects import ObjectFilter

LEAST = 5
"""Labelled limbs of a kind from which its lengths are known."""

Limb = tuple[str, str, str]
"""Label, and the names of the two points."""


class FilterByLimbs(ObjectFilter):
    """Without objects whose keypoints are implausible: too many limbs (edges of the skeleton) are longer or shorter than those
    of labelled objects of their label, in units of the root of the object's area. Objects without a known limb are sound.

    Args:
        data: labelled objects with keypoints, FORMAT:PATH.
        minimum: least fraction of an object's limbs with a plausible length.
        slack: how much the range of labelled lengths is widened at both ends, a factor.
    """

    name: ClassVar[str] = "filter-by-limbs"
    reason: ClassVar[str] = "implausible keypoints"
    data: str
    minimum: float = Field(0.6, ge=0, le=1)
    slack: float = Field(1.3, ge=1)
    _ranges: Mapping[Limb, tuple[float, float]] | None = PrivateAttr(None)

    def sound(self, sample: Sample, objects: Instances) -> Bool[np.ndarray, "n"]:
        """Objects with plausible limbs."""
        ranges = self._labelled()
        known: list[list[bool]] = [[] for _ in range(len(objects))]
        for i, limb, length in limbs(sample):
            if limb in ranges:
                low, high = ranges[limb]
                known[i].append(low / self.slack <= length <= high * self.slack)
        return np.array([not k or float(np.mean(k)) >= self.minimum for k in known], bool)

    def origin(self) -> dict[str, Any]:
        """The settings and the labelled lengths."""
        ranges = sorted((limb, *found) for limb, found in self._labelled().items())
        return {**self.to_json(), "data": place_name(self.data), "sha256": digest(ranges)}

    def _labelled(self) -> Mapping[Limb, tuple[float, float]]:
        if self._ranges is None:
            self._ranges = limb_ranges(read(self.data))
        return self._ranges


def limb_ranges(samples: Iterable[Sample]) -> Mapping[Limb, tuple[float, float]]:
    """The shortest and the longest limb of each kind of which there are at least `LEAST`."""
    found: dict[Limb, list[float]] = defaultdict(list)
    for sample in samples:
        for _, limb, length in limbs(sample):
            found[limb].append(length)
    return {limb: (min(x), max(x)) for limb, x in found.items() if len(x) >= LEAST}


def limbs(sample: Sample) -> Iterator[tuple[int, Limb, float]]:
    """(object, limb, length) of all limbs with two present points; the unit is the root of the object's area."""
    objects, points = sample.instances, sample.keypoints
    if objects is None or points is None:
        return
    for i, (label, area) in enumerate(zip(objects.label_ids.tolist(), objects.masks.areas.tolist(), strict=True)):
        if (skeleton := sample.labels.skeleton_of(label)) is None:
            continue
        place = {n: k for k, n in enumerate(points.names[i]) if points.visibility[i, k] > 0}
        for a, b in ((skeleton.points[x], skeleton.points[y]) for x, y in skeleton.edges):
            if a in place and b in place:
                length = float(np.linalg.norm(points.xy[i, place[a]] - points.xy[i, place[b]]))
                yield i, (sample.labels.names[label], a, b), length / area**0.5
