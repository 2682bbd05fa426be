"""Several samples in one image, as in the paper (DatasetDM, section 3.4): 1x2 and NxN mosaics."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from PIL import Image
from pydantic import Field

from datasetdm.errors import DataError
from datasetdm.records import IGNORE, Instances, Keypoints, Prompt, Provenance, Sample, SemanticMap
from datasetdm.transforms import Transform

GRIDS = ((1, 2), *((n, n) for n in (2, 3, 5, 6, 7, 8)))
"""Rows and columns in the paper."""


class Augment(Transform):
    """Makes new images of several samples; it draws from the accepted samples before each, so it needs a source that ends.

    Rejected samples, and those that chance leaves out, stay as they are.

    Args:
        fraction: of the samples that are changed.
        without_depth: leave depth out of changed samples; else a sample with depth, which would be wrong, is an error.
        seed: of the choices.
    """

    compares: ClassVar[bool] = True
    fraction: float = Field(0.5, ge=0, le=1)
    without_depth: bool = False
    seed: int = Field(0, ge=0)

    def _chosen(self, sample: Sample) -> np.random.Generator | None:
        """The random numbers of a sample that is to be changed; they depend on the seed and its key alone."""
        rng = np.random.default_rng((self.seed, zlib.crc32(sample.key.encode())))
        return rng if sample.accepted and rng.random() < self.fraction else None

    def _flat(self, sample: Sample) -> Sample:
        """The sample without depth. Raises DataError if that was not asked for."""
        if sample.depth is not None and not self.without_depth:
            raise DataError(
                f"{self.name} would make the depth of sample {sample.key!r} wrong",
                where=sample.key,
                expected="samples without depth",
                remedy="set without_depth, which leaves depth out of the changed samples, or take the transform out",
            )
        return replace(sample, depth=None, encoded=None)


class Splice(Augment):
    """Samples become mosaics of themselves and of earlier ones. Tiles keep their aspect; a mosaic of N rows and columns has the
    sample's size, one of 1x2 half its height. Key and quality stay; captions are joined, provenance names the other samples.

    An annotation that one of the tiles lacks is not known of the mosaic.

    Args:
        grids: (rows, columns) to choose from.
    """

    name: ClassVar[str] = "splice"
    grids: tuple[tuple[int, int], ...] = Field(GRIDS, min_length=1)

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        earlier: deque[Sample] = deque(maxlen=max(rows * columns for rows, columns in self.grids) - 1)
        for sample in samples:
            rng = self._chosen(sample)
            fitting = [g for g in self.grids if g[0] * g[1] - 1 <= len(earlier)]
            if rng is None or not fitting:
                spliced = sample
            else:
                rows, columns = fitting[int(rng.integers(len(fitting)))]
                others = rng.choice(len(earlier), rows * columns - 1, replace=False)
                tiles = [self._flat(sample), *(earlier[i] for i in others)]
                spliced = mosaic([tiles[i] for i in rng.permutation(len(tiles))], rows, columns, sample)
            if sample.accepted:
                earlier.append(replace(sample, depth=None, encoded=None))
            yield spliced
            del sample, spliced


def mosaic(tiles: Sequence[Sample], rows: int, columns: int, like: Sample) -> Sample:
    """One sample of several of one vocabulary, in reading order.

    Args:
        tiles: `rows` * `columns` of them; each is scaled, and cropped in the middle where its aspect is another one.
        like: gives size, key, prompt and quality.
    """
    h, w = (max(1, round(side / max(rows, columns))) for side in like.size)
    places = [(h * (i // columns), w * (i % columns)) for i in range(len(tiles))]
    small = [resized(tile, (h, w)) for tile in tiles]
    size = (h * rows, w * columns)
    image = np.zeros((*size, 3), np.uint8)
    ids, confidence = np.full(size, IGNORE, np.uint16), np.zeros(size, np.float16)
    for tile, (top, left) in zip(small, places, strict=True):
        where = (slice(top, top + h), slice(left, left + w))
        image[where] = tile.image
        if tile.semantic is not None:
            ids[where] = tile.semantic.ids
            confidence[where] = 1 if tile.semantic.confidence is None else tile.semantic.confidence
    certain = any(t.semantic is not None and t.semantic.confidence is not None for t in small)
    semantic = SemanticMap(ids, confidence if certain else None)
    objects = [t.instances for t in small if t.instances is not None]
    points = [t.keypoints for t in small if t.keypoints is not None]
    return replace(
        like,
        image=image,
        encoded=None,
        depth=None,
        semantic=semantic if all(t.semantic is not None for t in small) else None,
        instances=_joined_objects(objects, places, size) if len(objects) == len(small) else None,
        keypoints=_joined_points(points, places) if len(points) == len(small) else None,
        prompt=_joined_prompt(tiles, like),
        provenance=_naming(like.provenance, "spliced", [t.key for t in tiles if t.key != like.key]),
    )


def resized(sample: Sample, size: tuple[int, int]) -> Sample:
    """The middle of a sample at another (height, width), without depth: images by area, labels by nearest neighbour; objects
    without a pixel are gone, points outside are absent."""
    (h, w), (new_h, new_w) = sample.size, size
    scale = max(new_h / h, new_w / w)
    inner_h, inner_w = min(h, max(1, round(new_h / scale))), min(w, max(1, round(new_w / scale)))
    top, left = (h - inner_h) // 2, (w - inner_w) // 2
    box = (left, top, left + inner_w, top + inner_h)
    rows = top + ((np.arange(new_h) + 0.5) * inner_h / new_h).astype(int)
    columns = left + ((np.arange(new_w) + 0.5) * inner_w / new_w).astype(int)
    grid = np.ix_(rows, columns)
    image = np.asarray(Image.fromarray(sample.image).resize((new_w, new_h), Image.Resampling.BOX, box))
    semantic, objects, points = sample.semantic, sample.instances, sample.keypoints
    if semantic is not None:
        semantic = SemanticMap(semantic.ids[grid], None if semantic.confidence is None else semantic.confidence[grid])
    if objects is not None:
        masks = np.array([m[grid] for m in objects.masks], bool).reshape(len(objects), new_h, new_w)
        stay = masks.any((1, 2))
        crowd = objects.crowd[stay]
        objects = Instances.from_masks(
            masks[stay], objects.label_ids[stay], objects.scores[stay], crowd=crowd, boxed=objects.boxed
        )
        points = None if points is None else points.take(stay)
    if points is not None:
        xy = (points.xy - [left, top]) * [new_w / inner_w, new_h / inner_h]
        points = with_places(points, xy, size)
    return replace(
        sample, image=image, semantic=semantic, instances=objects, keypoints=points, depth=None, encoded=None
    )


def with_places(points: Keypoints, xy: Float[np.ndarray, "n k 2"], size: tuple[int, int]) -> Keypoints:
    """The points at other places; those outside an image of this (height, width) are absent."""
    inside = np.asarray(((xy >= 0) & (xy <= [size[1], size[0]])).all(-1))
    return replace(points, xy=np.where(inside[..., None], xy, 0), visibility=np.where(inside, points.visibility, 0))


def _joined_objects(
    objects: Sequence[Instances], places: Sequence[tuple[int, int]], size: tuple[int, int]
) -> Instances:
    masks = np.zeros((sum(map(len, objects)), *size), bool)
    row = 0
    for own, (top, left) in zip(objects, places, strict=True):
        h, w = own.size
        for mask in own.masks:
            masks[row, top : top + h, left : left + w] = mask
            row += 1
    joined = {name: np.concatenate([getattr(o, name) for o in objects]) for name in ("label_ids", "scores", "crowd")}
    return Instances.from_masks(masks, **joined, boxed=any(o.boxed for o in objects))


def _joined_points(points: Sequence[Keypoints], places: Sequence[tuple[int, int]]) -> Keypoints:
    moved = [
        replace(p, xy=p.xy + np.array([left, top], np.float32)) for p, (top, left) in zip(points, places, strict=True)
    ]
    return join_points(moved)


def join_points(points: Sequence[Keypoints]) -> Keypoints:
    """The rows of several records, padded to the longest; scores where one has some, 1 in the others."""
    width = max(p.xy.shape[1] for p in points)

    def padded(values: np.ndarray) -> np.ndarray:
        return np.pad(values, [(0, 0), (0, width - values.shape[1])] + [(0, 0)] * (values.ndim - 2))

    scored = any(p.scores is not None for p in points)
    scores = [padded(np.ones(p.visibility.shape) if p.scores is None else p.scores) for p in points]
    return Keypoints(
        np.concatenate([padded(p.xy) for p in points]),
        np.concatenate([padded(p.visibility) for p in points]),
        tuple(n for p in points for n in p.names),
        np.concatenate(scores) if scored else None,
    )


def _joined_prompt(tiles: Sequence[Sample], like: Sample) -> Prompt | None:
    """Distinct captions one after the other, and all labels that they ask for."""
    prompts = [t.prompt for t in tiles if t.prompt is not None]
    if like.prompt is None or not prompts:
        return like.prompt
    asked = {name for p in prompts for name in p.labels}
    text = "; ".join(dict.fromkeys(p.text for p in prompts))
    return replace(like.prompt, text=text, labels=tuple(n for n in like.labels.names if n in asked))


def _naming(provenance: Provenance, what: str, keys: Sequence[str]) -> Provenance:
    """With the keys of the other samples that an image was made from."""
    return replace(provenance, details={**provenance.details, what: list(keys)})
