"""Shapes as label tools write them, in pixels: what is exported to Label Studio and CVAT, and what comes back from there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from datasetdm.errors import DataError
from datasetdm.exporters.formats.cvat import SKELETON, decode_row_runs
from datasetdm.exporters.formats.labelstudio import decode_brush
from datasetdm.io.codecs import polygon_runs
from datasetdm.records.objects import encode_runs

TOLERANCE = 0.1
"""Pixels by which tools round coordinates, at most."""

UNKNOWN = -1
"""Visibility of a point in a tool that has no such thing."""

Number = float | int
Size = tuple[int, int]
"""(height, width) of an image."""


class Shape(NamedTuple):
    """A shape of a tool.

    label: what it shows; empty if nobody said. kind: what the numbers are. numbers: run lengths of a mask, column by column;
    left, top, right, bottom of a box; x, y and visibility of a point; none of another shape, which is called by its `point`.
    group: shapes of one object share it, but for an empty one. point: its name.
    """

    label: str
    kind: Literal["mask", "box", "point", "other"]
    numbers: tuple[Number, ...] = ()
    group: str = ""
    point: str = ""

    @property
    def region(self) -> bool:
        """Whether it is an object by itself."""
        return self.kind in ("mask", "box")

    def same_place(self, other: Shape) -> bool:
        """Whether both have the same geometry."""
        if self.kind != other.kind or len(self.numbers) != len(other.numbers):
            return False
        if self.kind == "mask":
            return self.numbers == other.numbers
        if self.kind == "point" and self.numbers[2] == other.numbers[2] == 0:  # absent: wherever it is
            return True
        return not self.numbers or bool(np.abs(np.subtract(self.numbers, other.numbers)).max() <= TOLERANCE)


# ---------------------------------------------------------------------- Label Studio
_TOOLS = ("brush", "rectangle", "polygon", "keypoint", "ellipse", "bitmask", "vector", "cube", "magicwand")
"""What Label Studio calls kinds of regions; with labels their names end with `labels`."""


def label_studio_shapes(results: Iterable[Mapping[str, Any]], size: Size) -> Iterator[Shape]:
    """The shapes of the results of a task on an image of this size; choices, texts and relations are none."""
    for result in results:
        kind = str(result["type"])
        tool = kind.removesuffix("labels")
        if tool in _TOOLS:
            yield _label_studio_shape(tool, result["value"], result["value"].get(kind) or [""], result, size)


def _label_studio_shape(
    tool: str, value: Mapping[str, Any], labels: Sequence[str], result: Mapping[str, Any], size: Size
) -> Shape:
    h, w = size
    label, group = labels[0], str(result.get("id", ""))
    x, y = value.get("x", 0) / 100 * w, value.get("y", 0) / 100 * h
    if tool == "keypoint":
        name, _, point = label.partition(": ")
        return Shape(name, "point", (x, y, UNKNOWN), str(result.get("parentID") or ""), point)
    if tool == "brush" and "rle" in value:
        return Shape(label, "mask", _numbers(decode_brush(value["rle"], size)), group)
    if tool == "polygon":
        corners = np.array(value["points"], float) / 100 * (w, h)
        return Shape(label, "mask", _outlined(corners, size), group)
    if tool == "rectangle":
        bw, bh = value["width"] / 100 * w, value["height"] / 100 * h
        return _box(label, (x, y, x + bw, y + bh), value.get("rotation", 0), (x, y), group, size)
    return Shape(label, "other", (), group, tool)


# ---------------------------------------------------------------------- CVAT
def cvat_shapes(image: Element, size: Size) -> Iterator[Shape]:
    """The shapes of an `image` of "CVAT for images 1.1"; tags are none."""
    for node in image:
        given = node.attrib
        label, group = given.get("label", ""), given.get("group_id", "")
        if node.tag == "polygon":
            yield Shape(label, "mask", _outlined(_pairs(given["points"]), size), group)
        elif node.tag == "mask":
            left, top, width, height = (int(float(given[name])) for name in ("left", "top", "width", "height"))
            inside = decode_row_runs([int(n) for n in given["rle"].split(",")], (height, width))
            yield Shape(label, "mask", _numbers(_placed(inside, left, top, size)), group)
        elif node.tag == "box":
            edges = tuple(float(given[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
            centre = ((edges[0] + edges[2]) / 2, (edges[1] + edges[3]) / 2)
            yield _box(label, edges, float(given.get("rotation", 0)), centre, group, size)
        elif node.tag == "skeleton":
            for point in node.iter("points"):
                x, y = _pairs(point.attrib["points"])[0].tolist()
                seen = 0 if point.get("outside") == "1" else 1 if point.get("occluded") == "1" else 2
                yield Shape(label.removesuffix(SKELETON), "point", (x, y, seen), group, point.attrib["label"])
        elif node.tag != "tag":
            yield Shape(label, "other", (), group, node.tag)


def _pairs(text: str) -> np.ndarray:
    """`x,y;x,y` as an array."""
    return np.array([[float(v) for v in pair.split(",")] for pair in text.split(";")])


def _placed(mask: np.ndarray, left: int, top: int, size: Size) -> np.ndarray:
    """A mask at its place in the image."""
    whole = np.zeros(size, bool)
    h, w = mask.shape
    if left < 0 or top < 0 or left + w > size[1] or top + h > size[0]:
        raise DataError("a mask reaches beyond its image", where=f"left {left}, top {top}, {w}x{h}", expected=f"{size}")
    whole[top : top + h, left : left + w] = mask
    return whole


# ---------------------------------------------------------------------- both
def _numbers(mask: np.ndarray) -> tuple[Number, ...]:
    return tuple(encode_runs(mask).tolist())


def _outlined(corners: np.ndarray, size: Size) -> tuple[Number, ...]:
    """Run lengths of the inside of a polygon, as far as it lies in the image."""
    h, w = size
    if len(corners) < 3:
        return (float(h * w),)
    clipped = np.clip(corners, 0, (w, h))
    return tuple(polygon_runs([clipped.ravel().tolist()], size).tolist())


def _box(
    label: str, edges: Sequence[Number], degrees: Number, pivot: tuple[Number, Number], group: str, size: Size
) -> Shape:
    """A box; turned around a point it is an outline."""
    h, w = size
    left, top, right, bottom = edges
    if not degrees % 360:
        clipped = (max(left, 0.0), max(top, 0.0), min(right, float(w)), min(bottom, float(h)))
        return Shape(label, "box", clipped, group)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - pivot
    return Shape(label, "mask", _outlined(corners @ np.array([[c, s], [-s, c]]) + pivot, size), group)
