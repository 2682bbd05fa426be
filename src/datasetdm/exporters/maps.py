"""Label and depth maps as images: ids in 8 or 16 bits, VOC's colours, depth in whole steps."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from datasetdm.errors import DataError
from datasetdm.exporters.target import Target
from datasetdm.io.codecs import encode_png
from datasetdm.io.files import write_bytes, write_json
from datasetdm.records import IGNORE, Sample, SemanticMap

KITTI, NYU = 256, 1000
"""Steps per metre: KITTI's depth benchmark, and NYU Depth v2 as it is commonly shared (millimetres)."""

IGNORED = 255
"""The value of ignored pixels in images of 8 bits."""


def depth_steps(sample: Sample, per_metre: int = KITTI) -> UInt16[np.ndarray, "h w"] | None:
    """Depth in whole steps, at least 1 where it is known, 0 where it is not or is too large; None without metres."""
    depth = sample.depth
    if depth is None or depth.unit != "metre":
        return None
    steps = depth.depth * np.float32(per_metre)
    np.rint(steps, out=steps)
    np.maximum(steps, depth.valid, out=steps)
    steps[steps > 65535] = 0
    return steps.astype(np.uint16)


def write_map(path: Path, values: np.ndarray) -> None:
    """A label or depth map as PNG."""
    write_bytes(path, encode_png(values, 1))


def write_legend(target: Target) -> None:
    """`classes.json`: the value of every label, and of ignored pixels. Raises DataError where a label has their name."""
    if "ignore" in target.labels.index:
        raise DataError("classes.json keeps the name 'ignore' for unknown pixels", expected="another label name")
    values = {name: i for i, name in enumerate(target.labels.names)}
    ignored = IGNORED if len(values) <= IGNORED else IGNORE
    write_json(target.folder / "classes.json", values | {"ignore": ignored})


def small_ids(semantic: SemanticMap) -> UInt8[np.ndarray, "h w"]:
    """Label ids in 8 bits, 255 where ignored."""
    return np.where(semantic.ids == IGNORE, IGNORED, semantic.ids).astype(np.uint8)


def look_up(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """`table[ids]` of a map `[h w]`, row by row: NumPy turns indices into 64 bits first."""
    found = np.empty(ids.shape, table.dtype)
    for row, values in zip(found, ids, strict=True):
        row[:] = table[values]
    return found


def encode_palette_png(values: UInt8[np.ndarray, "h w"]) -> bytes:
    """Indices with Pascal VOC's colours as PNG."""
    image = Image.fromarray(values, "L")
    image.putpalette(voc_palette().ravel().tolist())
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def voc_palette() -> UInt8[np.ndarray, "256 3"]:
    """VOC's colour of every index: its bits, dealt to red, green and blue in turn, fill each channel from the highest."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours
