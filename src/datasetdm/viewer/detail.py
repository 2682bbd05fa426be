"""One sample as the page wants it: outlines and points as lines, its layers as images."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from jaxtyping import Bool
from PIL import Image

from datasetdm.errors import DataError
from datasetdm.exporters.outline import loops
from datasetdm.io.codecs import decode_png, encode_png
from datasetdm.records import IGNORE, Keypoints, Labels, Sample
from datasetdm.viewer import paint
from datasetdm.viewer.payloads import DepthScale, Edge, LayerName, Outline, Point, Region, Shapes
from datasetdm.viewer.rows import LARGE

IMAGE_LAYERS = (LayerName.SEMANTIC, LayerName.UNCERTAINTY, LayerName.DEPTH, LayerName.DEPTH_UNCERTAINTY)
"""Layers that are sent as images. Instances and keypoints are sent as outlines and points."""

TICKS = 5
JPEG_QUALITY = 88


def shapes(stored: Sample, fixed: Sample, side: int = 0) -> Shapes:
    """Outlines of objects, keypoints and skeletons.

    Args:
        stored: the sample before any review.
        fixed: the sample with the labels that its review corrected.
        side: outlines are exact on an image whose longer edge has so many pixels; 0: on this one.
    """
    step = max(1, round(max(stored.size) / side)) if side else 1
    objects, keypoints = fixed.instances, fixed.keypoints
    outlines = []
    if objects is not None and stored.instances is not None:
        for i in range(len(objects)):
            mask, corner = objects.masks.crop(i)
            outline = Outline(
                label=fixed.labels.names[objects.label_ids[i]],
                stored=stored.labels.names[stored.instances.label_ids[i]],
                score=round(float(objects.scores[i]), 3),
                box=tuple(objects.boxes[i].tolist()),
                outline=_path(mask, corner, step),
                crowd=bool(objects.crowd[i]),
            )
            outlines.append(outline)
    points, edges = [], []
    if keypoints is not None:
        for i in range(len(keypoints)):
            points += _points(keypoints, i)
            edges += _edges(fixed.labels, keypoints, i)
    return Shapes(fixed.size[0], fixed.size[1], outlines, points, edges)


def _path(mask: Bool[np.ndarray, "h w"], corner: tuple[int, int], step: int) -> str:
    """The outline of a mask whose box begins at `corner`, by every `step`-th pixel unless it is too small for that."""
    left, top = corner
    coarse = mask[step // 2 :: step, step // 2 :: step]
    if not coarse.any():
        coarse, step = mask, 1
    found = loops(coarse)
    return "".join("M" + "L".join(f"{x * step + left} {y * step + top}" for x, y in loop) + "Z" for loop in found)


def _points(keypoints: Keypoints, i: int) -> Iterator[Point]:
    rows = zip(keypoints.names[i], keypoints.xy[i].tolist(), keypoints.visibility[i].tolist(), strict=False)
    return (Point(i, name, x, y, hidden=visibility == 1) for name, (x, y), visibility in rows if visibility)


def _edges(labels: Labels, keypoints: Keypoints, i: int) -> Iterator[Edge]:
    """The joined pairs of object `i`, by the skeleton that has exactly its points."""
    xy, there = keypoints.xy[i].tolist(), keypoints.visibility[i] > 0
    known = labels.skeletons.values()
    edges = next((s.edges for s in known if s.points == keypoints.names[i]), ())
    return (Edge(i, *xy[a], *xy[b]) for a, b in edges if there[a] and there[b])


def regions(sample: Sample) -> list[Region]:
    """The labels of the semantic map, largest first."""
    semantic = sample.semantic
    if semantic is None:
        return []
    ids, counts = np.unique(semantic.ids, return_counts=True)
    rows = [
        (sample.labels.names[i], n / semantic.ids.size)
        for i, n in zip(ids.tolist(), counts, strict=True)
        if i != IGNORE
    ]
    return [Region(name, round(float(fraction), 4)) for name, fraction in sorted(rows, key=lambda r: -r[1])]


def depth_scale(sample: Sample) -> DepthScale | None:
    """What the colours of the depth layer mean."""
    if sample.depth is None:
        return None
    near, far = paint.depth_range(sample.depth)
    ticks = np.exp(np.linspace(np.log(near + paint.NEAREST), np.log(far + paint.NEAREST), TICKS)) - paint.NEAREST
    return DepthScale(sample.depth.unit, [float(f"{t:.3g}") for t in ticks])


def layer(sample: Sample, name: LayerName, side: int) -> bytes:
    """One of `IMAGE_LAYERS` as PNG, at most about `side` pixels wide and high (0: as it is); clear where nothing is known."""
    overlay = None
    if name is LayerName.SEMANTIC and sample.semantic is not None:
        overlay = paint.paint_semantic(
            paint.reduced_semantic(sample.semantic, side), paint.label_colours(sample.labels)
        )
    elif name is LayerName.UNCERTAINTY and sample.semantic is not None:
        overlay = paint.paint_uncertainty(paint.reduced_semantic(sample.semantic, side))
    elif name is LayerName.DEPTH and sample.depth is not None:
        overlay = paint.paint_depth(paint.reduced_depth(sample.depth, side), paint.depth_range(sample.depth))
    elif name is LayerName.DEPTH_UNCERTAINTY and sample.depth is not None:
        overlay = paint.paint_uncertainty(paint.reduced_depth(sample.depth, side))
    return encode_png(np.zeros((1, 1, 4), np.uint8) if overlay is None else overlay)


def thumbnail(encoded: pa.Buffer | bytes, side: int) -> tuple[bytes, str]:
    """(bytes, media type) of a stored image: itself if it is hardly larger than `side` (or that is 0), else a small JPEG.

    Raises:
        DataError: bytes that are no image.
    """
    try:
        with Image.open(pa.BufferReader(encoded)) as image:
            small = paint.reduced_size(image.size, side)
            if small == image.size:
                return bytes(memoryview(encoded)), Image.MIME[image.format or "PNG"]
            if image.format == "PNG" and image.mode == "RGB" and image.width * image.height <= LARGE:
                image = Image.fromarray(decode_png(bytes(memoryview(encoded)), np.uint8))  # in half of Pillow's time
            reduced = image.resize(small, Image.Resampling.BILINEAR, reducing_gap=1.0).convert("RGB")
    except (OSError, ValueError, SyntaxError) as e:
        raise DataError(f"the image cannot be read: {e}", expected="a whole PNG") from e
    out = io.BytesIO()
    reduced.save(out, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")  # shown pixel by pixel, so colours stay sharp
    return out.getvalue(), "image/jpeg"
