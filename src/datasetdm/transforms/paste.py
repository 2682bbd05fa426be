"""Objects of earlier samples in other images: copy and paste (Ghiasi et al. 2021, arXiv 2012.07177), with blended edges
(Dwibedi et al. 2017, arXiv 1708.01642)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float16, UInt8
from pydantic import Field
from scipy import ndimage

from datasetdm.records import Instances, Keypoints, Sample, SemanticMap
from datasetdm.transforms.splice import Augment, join_points, with_places

KEPT = 64
"""Objects that wait to be pasted."""
LEAST_ALPHA = 0.6
"""Weight of an object's own pixels at least, so that thin parts stay."""
TRIES = 20
"""Places that are tried for one object."""


@dataclass(frozen=True)
class Cutout:
    """An object within its box.

    Args:
        key: of the sample that it comes from.
        points: one row, its places from the box's corner; None if they are not known.
    """

    key: str
    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    confidence: Float16[np.ndarray, "h w"] | None
    label_id: int
    score: float
    points: Keypoints | None


class PasteObjects(Augment):
    """Samples get objects of earlier ones, at their own size, in a random place. Whatever is behind an object loses its pixels; an
    object hides no seen keypoint and at most the fraction `hidden` of another object.

    Crowds, objects known by their box only, objects at the border of their image, and very small and large ones are not taken.

    Args:
        most: objects per sample.
        least_area, most_area: of an object, as fractions of the image that it comes from.
        hidden: of another object at most.
        feather: standard deviation of the blending in pixels.
    """

    name: ClassVar[str] = "paste-objects"
    most: int = Field(3, ge=1)
    least_area: float = Field(0.005, ge=0, le=1)
    most_area: float = Field(0.3, ge=0, le=1)
    hidden: float = Field(0.3, ge=0, lt=1)
    feather: float = Field(1.0, ge=0)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        earlier: deque[Cutout] = deque(maxlen=KEPT)
        for sample in samples:
            rng, pasted = self._chosen(sample), sample
            if rng is not None and earlier:
                pasted = self._flat(sample)
                for i in rng.choice(
                    len(earlier), min(len(earlier), int(rng.integers(1, self.most + 1))), replace=False
                ):
                    pasted = self._pasted(pasted, earlier[i], rng)
            if sample.accepted:
                earlier.extend(self._cutouts(sample))
            yield pasted
            del sample, pasted

    def _cutouts(self, sample: Sample) -> Iterator[Cutout]:
        objects, semantic, points = sample.instances, sample.semantic, sample.keypoints
        if objects is None or objects.boxed:
            return
        height, width = sample.size
        low, high = self.least_area * height * width, self.most_area * height * width
        for i in np.flatnonzero(~objects.crowd & (objects.masks.areas >= low) & (objects.masks.areas <= high)):
            mask, (x, y) = objects.masks.crop(int(i))
            h, w = mask.shape
            if x == 0 or y == 0 or x + w == width or y + h == height:
                continue
            box = (slice(y, y + h), slice(x, x + w))
            sure = None if semantic is None or semantic.confidence is None else semantic.confidence[box].copy()
            row = None if points is None else points.take([int(i)])
            own = None if row is None else replace(row, xy=row.xy - np.array([x, y], np.float32))
            label, score = int(objects.label_ids[i]), float(objects.scores[i])
            yield Cutout(sample.key, sample.image[box].copy(), mask, sure, label, score, own)

    def _pasted(self, sample: Sample, cutout: Cutout, rng: np.random.Generator) -> Sample:
        """The sample with an object in a place where it may be; the sample itself where none was found."""
        (height, width), (h, w) = sample.size, cutout.mask.shape
        if h >= height or w >= width or (sample.keypoints is not None and cutout.points is None):
            return sample
        for _ in range(TRIES):
            y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
            mask = np.zeros(sample.size, bool)
            mask[y : y + h, x : x + w] = cutout.mask
            if self._fits(sample, mask):
                return paste(sample, cutout, mask, (x, y), self.feather)
        return sample

    def _fits(self, sample: Sample, mask: Bool[np.ndarray, "h w"]) -> bool:
        objects, points = sample.instances, sample.keypoints
        if objects is not None:
            covered = np.array([(m & mask).sum() for m in objects.masks]) / np.maximum(1, objects.masks.areas)
            if (covered[~objects.crowd] > self.hidden).any():
                return False
        if points is None:
            return True
        xy = np.minimum(points.xy[points.visibility == 2].astype(int), [mask.shape[1] - 1, mask.shape[0] - 1])
        return not mask[xy[:, 1], xy[:, 0]].any()


def paste(
    sample: Sample, cutout: Cutout, mask: Bool[np.ndarray, "h w"], corner: tuple[int, int], feather: float
) -> Sample:
    """The sample with an object in front; depth is not looked at.

    Args:
        mask: the object's pixels.
        corner: (x, y) of the cutout's box.
        feather: standard deviation of the blending, in pixels.
    """
    (x, y), (h, w) = corner, cutout.mask.shape
    box = (slice(y, y + h), slice(x, x + w))
    alpha = cutout.mask.astype(np.float32)
    if feather:
        inner = ndimage.binary_erosion(np.pad(cutout.mask, 1)).astype(np.float32)
        blurred = ndimage.gaussian_filter(inner, feather)[1:-1, 1:-1]
        alpha = np.where(cutout.mask, np.maximum(blurred, LEAST_ALPHA), blurred)
    alpha = alpha[..., None]
    image = sample.image.copy()
    image[box] = np.rint(alpha * cutout.image + (1 - alpha) * image[box]).astype(np.uint8)
    semantic, objects, points = sample.semantic, sample.instances, sample.keypoints
    if semantic is not None:
        sure = semantic.confidence
        if sure is not None and cutout.confidence is not None:
            sure = sure.copy()
            sure[box] = np.where(cutout.mask, cutout.confidence, sure[box])
        semantic = SemanticMap(np.where(mask, np.uint16(cutout.label_id), semantic.ids), sure)
    if objects is not None:
        objects, stay = _in_front(objects, mask, cutout)
        if points is not None and cutout.points is not None:
            moved = with_places(cutout.points, cutout.points.xy + np.array([x, y], np.float32), sample.size)
            points = join_points([points.take(stay), moved])
    details = {**sample.provenance.details, "pasted": [*sample.provenance.details.get("pasted", ()), cutout.key]}
    provenance = replace(sample.provenance, details=details)
    return replace(
        sample, image=image, semantic=semantic, instances=objects, keypoints=points, provenance=provenance, encoded=None
    )


def _in_front(
    objects: Instances, mask: Bool[np.ndarray, "h w"], cutout: Cutout
) -> tuple[Instances, Bool[np.ndarray, "n"]]:
    """The objects with one more in front of them, and which of the others still have a pixel; changed ones get tight boxes."""
    left = np.array([m & ~mask for m in objects.masks], bool).reshape(len(objects), *mask.shape)
    stay = np.asarray(left.any((1, 2)))
    joined = Instances.from_masks(
        np.concatenate([left[stay], mask[None]]),
        np.append(objects.label_ids[stay], cutout.label_id),
        np.append(objects.scores[stay], np.float32(cutout.score)),
        crowd=np.append(objects.crowd[stay], False),
        boxed=objects.boxed,
    )
    same = left.sum((1, 2))[stay] == objects.masks.areas[stay]
    boxes = joined.boxes.copy()
    boxes[:-1][same] = objects.boxes[stay][same]
    return replace(joined, boxes=boxes), stay
