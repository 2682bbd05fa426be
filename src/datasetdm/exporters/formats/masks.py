"""Pictures and label pictures in folders: `images/NAME.png`, `masks/NAME.png`, `depth/NAME.png`, `instances/NAME.png`.

`masks`: palette PNG, a pixel's value is its label's id, 255 is ignored; with more than 255 labels 16 bits and 65535.
`classes.json` says which label a value is. `depth`: 16 bits, millimetres (NYU Depth v2's common convention), 0 where unknown
or beyond 65.5 m. `instances`: 16 bits, the object's number from 1, smaller objects on top, none where only boxes are known.
With splits every folder has a folder a split. Scores, confidences and points have no place here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from datasetdm.errors import DataError
from datasetdm.exporters.formats.depth import NYU, depth_steps, write_map
from datasetdm.exporters.target import Target
from datasetdm.io.files import write_bytes, write_json
from datasetdm.records import IGNORE, Instances, Sample, SemanticMap

IGNORED = 255
"""The value of ignored pixels in pictures of 8 bits."""


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write every kind of label that a sample has."""
    write_legend(target)
    small = len(target.labels) <= IGNORED
    for sample in samples:
        part = target.part(sample)
        name = target.picture(sample, "images", part)
        semantic, objects = sample.semantic, sample.instances
        place = {k: (target.folder / k / part / name).with_suffix(".png") for k in ("masks", "depth", "instances")}
        if semantic is not None and small:
            write_bytes(place["masks"], encode_palette_png(small_ids(semantic)))
        elif semantic is not None:
            write_map(place["masks"], semantic.ids)
        if (steps := depth_steps(sample, NYU)) is not None:
            write_map(place["depth"], steps)
        if objects is not None and not objects.boxed:
            write_map(place["instances"], numbered(objects).astype(np.uint16))
        yield


def write_legend(target: Target) -> None:
    """`classes.json`: the value of every label, and of ignored pixels. Raises DataError where a label has their name."""
    if "ignore" in target.labels.names:
        raise DataError("classes.json keeps the name 'ignore' for unknown pixels", expected="another label name")
    values = {name: i for i, name in enumerate(target.labels.names)}
    ignored = IGNORED if len(values) <= IGNORED else IGNORE
    write_json(target.folder / "classes.json", values | {"ignore": ignored})


def small_ids(semantic: SemanticMap) -> UInt8[np.ndarray, "h w"]:
    """Label ids in 8 bits, 255 where ignored."""
    return np.where(semantic.ids == IGNORE, IGNORED, semantic.ids).astype(np.uint8)


def numbered(objects: Instances) -> np.ndarray:
    """i64[h w]: the number of the object at every pixel, from 1 in the record's order, 0 for none; smaller ones on top."""
    ids = np.zeros(objects.size, np.int64)
    for i in np.argsort(-objects.masks.areas, kind="stable").tolist():
        ids[objects.masks[i]] = i + 1
    return ids


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
