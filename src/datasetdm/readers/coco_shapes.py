"""What COCO's outlines, run lengths, boxes and points must be. Errors come without a place, which the file adds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from datasetdm.errors import DataError
from datasetdm.io.codecs import polygon_runs, rle_counts
from datasetdm.records.objects import decode_runs, encode_runs

Size = tuple[int, int]
"""(height, width) in pixels."""


MARGIN = 0.05
"""The fraction of an image's side by which objects may leave it: tools round, augment and move outlines. They are clipped."""


def leaves(edges: Sequence[float | int], size: Size) -> bool:
    """Whether left, top, right and bottom lie outside the image by more than a pixel.

    Raises:
        DataError: by more than `MARGIN`.
    """
    left, top, right, bottom = edges
    outside = max(-left, right - size[1]), max(-top, bottom - size[0])  # across, down
    if any(o > max(1, MARGIN * side) for o, side in zip(outside, (size[1], size[0]), strict=True)):
        raise DataError(
            f"an object lies outside the image: x {left:g}..{right:g}, y {top:g}..{bottom:g}",
            expected=f"x 0..{size[1]}, y 0..{size[0]}",
            remedy="clip it, or check that the annotation belongs to this image",
        )
    return max(outside) > 1


def check_points(points: Any, wanted: int, size: Size) -> int:
    """Keypoints are so many numbers: x, y and visibility of every point; how many that are visible leave the image."""
    if not isinstance(points, list) or len(points) != wanted:
        count = len(points) if isinstance(points, list) else "no"
        raise DataError(f"{count} numbers of keypoints", expected=f"{wanted}: x, y, v of every point")
    if not _finite(points):
        raise DataError("a keypoint holds something that is no finite number", expected="pixels")
    if not {*points[2::3]} <= {0, 1, 2}:
        raise DataError("a keypoint's visibility is not 0, 1 or 2", expected="0, 1 or 2")
    h, w = size
    return sum(
        bool(v) and not (0 <= x <= w and 0 <= y <= h)
        for x, y, v in zip(points[::3], points[1::3], points[2::3], strict=True)
    )


def check_rle(shape: dict[str, Any], size: Size) -> None:
    """Run lengths fill an image of this size, and hold a pixel."""
    h, w = size
    counts = shape.get("counts")
    if shape.get("size") != [h, w] or not isinstance(counts, (list, str)):
        raise DataError(f"run lengths of size {shape.get('size')}", expected=f"size [{h}, {w}] and counts")
    try:
        runs = rle_counts(counts)
        fills = bool(((runs >= 0) & (runs <= h * w)).all()) and int(runs.sum()) == h * w
    except (TypeError, ValueError, OverflowError):
        fills = False
    if not fills:
        raise DataError("the run lengths do not fill the image", expected=f"{h * w} pixels in all")
    if not runs[1::2].any():
        raise DataError("the run lengths hold no pixel of the object", expected="at least one, or no annotation")


def check_polygons(shape: Any) -> None:
    """A segmentation is a list of lists of points, one of them at least of three; flat parts are for the caller to drop."""
    if not isinstance(shape, list) or not shape or not all(isinstance(p, list) for p in shape):
        raise DataError("the segmentation is empty or no list of polygons", expected="polygons or run lengths")
    for polygon in shape:
        if len(polygon) % 2:
            raise DataError(f"a polygon has {len(polygon)} numbers", expected="x, y of at least 3 points")
    if all(len(p) < 6 for p in shape):
        raise DataError("no polygon has three points", expected="an area, or no annotation")


def united_rle(shapes: list[Any], size: Size) -> dict[str, Any]:
    """The union of several run lengths, checked."""
    union = np.zeros(size, bool)
    for shape in shapes:
        if not isinstance(shape, dict):
            raise DataError("run lengths and polygons are mixed", expected="one kind")
        check_rle(shape, size)
        union |= decode_runs(rle_counts(shape["counts"]), size)
    return {"size": list(size), "counts": encode_runs(union)}


def outlines_good(polygons: Sequence[list[Any]], limits: np.ndarray) -> np.ndarray:
    """Which polygons surely are as `_check_outline` wants them; limits: (height, width) of each one's image."""
    try:
        flat = np.array(list(chain.from_iterable(polygons)))
    except ValueError:  # a list among the numbers
        return np.zeros(len(polygons), bool)
    if flat.dtype.kind not in "if":
        return np.zeros(len(polygons), bool)
    x, y = flat[0::2].astype(np.float64), flat[1::2].astype(np.float64)
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons)) // 2
    ends = np.cumsum(lengths)
    starts = ends - lengths
    following = np.arange(1, len(x) + 1)
    following[ends - 1] = starts
    with np.errstate(all="ignore"):
        area = np.add.reduceat(x * y[following] - x[following] * y, starts) / 2
        low = np.minimum(np.minimum.reduceat(x, starts), np.minimum.reduceat(y, starts))
        right, bottom = np.maximum.reduceat(x, starts), np.maximum.reduceat(y, starts)
        return (low >= -1) & (right <= limits[:, 1] + 1) & (bottom <= limits[:, 0] + 1) & (np.abs(area) > 1e-3)


def check_box(box: Any, size: Size) -> bool:
    """A box [x, y, width, height] has an area and lies inside the image; whether it leaves it a little."""
    if not isinstance(box, list) or len(box) != 4 or not _finite(box):
        raise DataError(f"bbox is {str(box)[:60]}", expected="[x, y, width, height]")
    x, y, w, h = box
    if not (w > 0 and h > 0 and x < size[1] and y < size[0] and x + w > 0 and y + h > 0):
        raise DataError(f"bbox {box} has no area or lies outside", expected=f"inside {size[1]}x{size[0]} pixels")
    return leaves((x, y, x + w, y + h), size)


def check_outline(polygon: list[Any], whole: list[list[Any]], size: Size) -> bool:
    """One polygon of an object, which covers a pixel; whether it leaves the image a little."""
    if not _finite(polygon):
        raise DataError("a polygon holds something that is no finite number", expected="pixels")
    x, y = polygon[::2], polygon[1::2]
    left = leaves((min(x), min(y), max(x), max(y)), size)
    if all(_finite(p) for p in whole) and not polygon_runs(whole, size)[1::2].any():
        raise DataError("the polygons cover no pixel", expected="an area, or no annotation")
    return left


def _finite(values: list[Any]) -> bool:
    return all(type(v) in (int, float) and abs(v) < 1e9 for v in values)  # nor NaN
