"""Images that are nearly equal to others.

An image is described by `WIDTH` numbers: its brightness in 8 x 8 cells and its two colour differences in 4 x 4 cells. The
distance of two images is the root mean square difference of these, 0 to 1; mirrored copies count, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from jaxtyping import Float32
from PIL import Image
from pydantic import Field

from datasetdm.records import Sample
from datasetdm.records.edits import judge
from datasetdm.transforms import Transform

WIDTH = 96
"""Numbers of a descriptor: 384 bytes per sample stay in memory."""


class FilterByDistance(Transform):
    """Rejects images that are near to others.

    Args:
        distance: images that are nearer than this are copies, 0 to 1.
    """

    reason: ClassVar[str]
    distance: float = Field(0.02, ge=0, le=1)

    def judged(self, sample: Sample, nearest: float) -> Sample:
        """The sample with its distance to the nearest image."""
        return judge(sample, self.name, nearest, self.distance, self.reason)


class FilterDuplicates(FilterByDistance):
    """Rejects samples that look like an earlier, accepted one. Its score is the distance to the nearest, 1 for the first."""

    name: ClassVar[str] = "filter-duplicates"
    reason: ClassVar[str] = "looks like an earlier sample"
    compares: ClassVar[bool] = True

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        earlier = Descriptors()
        for sample in samples:
            own = describe(sample.image)
            judged = self.judged(sample, earlier.nearest(own))
            if judged.accepted:
                earlier.add(own)
            yield judged


class Descriptors:
    """Descriptors of images, to find the nearest of."""

    def __init__(self) -> None:
        self._rows = np.zeros((64, WIDTH), np.float32)
        self._count = 0

    def add(self, own: Float32[np.ndarray, "2 w"]) -> None:
        """Remember an image."""
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self._count] = own[0]
        self._count += 1

    def digest(self) -> str:
        """SHA-256 of all of them."""
        return hashlib.sha256(self._rows[: self._count].tobytes()).hexdigest()

    def nearest(self, own: Float32[np.ndarray, "2 w"]) -> float:
        """Distance to the nearest image, mirrored or not; at most 1, which is also that to none."""
        rows = self._rows[: self._count]
        squares = [((rows - way) ** 2).mean(1) for way in own]
        return min(1.0, float(np.sqrt(np.min(squares)))) if self._count else 1.0


def describe(image: np.ndarray) -> Float32[np.ndarray, "2 w"]:
    """The descriptor of an image u8[h w 3], and that of its mirror image."""
    cells = np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX), np.float32) / 255
    red, green, blue = np.moveaxis(cells, -1, 0)
    coarse = [c.reshape(4, 2, 4, 2).mean((1, 3)) for c in ((red - green) / 2, (blue - (red + green) / 2) / 2)]
    planes = [(red + green + blue) / 3, *coarse]
    return np.stack([np.concatenate([p[:, ::way].ravel() for p in planes]) for way in (1, -1)]).astype(np.float32)
