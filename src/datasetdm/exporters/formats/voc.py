"""Pascal VOC 2012: `JPEGImages/NAME.png` (or the source's own JPEG), `SegmentationClass/NAME.png`,
`SegmentationObject/NAME.png`, `Annotations/NAME.xml`, `ImageSets/{Segmentation,Main}/train.txt`, `labelmap.txt`.

Index 0 is `background`, 255 is void; the other labels follow in their order. `labelmap.txt` has every class and its colour
in the form that CVAT and Datumaro use. Where a sample has objects and a semantic map, an object is shown where the map has
its label, as VOC has one class per object. Samples whose objects are boxes only have no object masks, and
a split without any masks no list in `Segmentation`. At most 254 classes and
254 objects per image. Boxes are whole pixels. Crowds have no box, and their pixels are void in
`SegmentationObject`. Scores, confidences, points and depth have no place in VOC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8

from datasetdm.errors import DataError
from datasetdm.exporters.maps import IGNORED, encode_palette_png, look_up, voc_palette
from datasetdm.exporters.objects import paint, without_crowds
from datasetdm.exporters.target import ByPart, Target, xml_text
from datasetdm.io.files import write_bytes, write_text
from datasetdm.records import BACKGROUND, IGNORE, Sample


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write images, masks and boxes, and list them."""
    names = [BACKGROUND, *(n for n in target.labels.names if n != BACKGROUND)]
    _check(names)
    place = {n: i for i, n in enumerate(names)}
    index = np.full(IGNORE + 1, IGNORED, np.uint8)
    index[: len(target.labels)] = [place[n] for n in target.labels.names]
    with ExitStack() as files:

        def opened(kind: str, part: str) -> IO[str]:
            path = target.folder / "ImageSets" / kind / f"{part}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            return files.enter_context(path.open("w", encoding="utf-8"))

        main, segmentation = ByPart(partial(opened, "Main"), target.parts), ByPart(partial(opened, "Segmentation"), ())
        for sample in samples:
            file, part = Path(target.write_image(sample, "JPEGImages")), sample.split or "train"
            has_masks = _write_masks(sample, index, target.folder, file.with_suffix(".png").name)
            xml = ElementTree.tostring(_annotation(sample, file.name, has_masks), encoding="unicode")
            write_bytes(target.folder / "Annotations" / f"{file.stem}.xml", xml.encode())
            main[part].write(f"{file.stem}\n")
            if has_masks:
                segmentation[part].write(f"{file.stem}\n")
            yield
        main.at_least("train")
    colours = (",".join(map(str, c)) for c in voc_palette().tolist())
    rows = "".join(f"{n}:{c}::\n" for n, c in zip(names, colours, strict=False))
    write_text(target.folder / "labelmap.txt", f"# label:color_rgb:parts:actions\n{rows}")


def _check(names: list[str]) -> None:
    if len(names) > IGNORED:
        raise DataError(f"{len(names) - 1} labels", expected="at most 254, as VOC's masks have 8 bits")
    if bad := [n for n in names if ":" in n or n.startswith("#") or "\n" in n or n != xml_text(n)]:
        raise DataError(
            f"VOC's labelmap.txt cannot hold the label {bad[0]!r}", expected="no colon, leading # or control character",
            remedy="rename it with --remap",
        )  # fmt: skip


def _write_masks(sample: Sample, index: UInt8[np.ndarray, "65536"], folder: Path, name: str) -> bool:
    """Whether the sample has a class mask. index: VOC's index of every label id, `IGNORE` included."""
    semantic, objects = sample.semantic, sample.instances
    numbers = own = None
    if objects is not None and not objects.boxed:
        count = int((~objects.crowd).sum())
        if count >= IGNORED:
            raise DataError(f"{count} objects", where=f"sample {sample.key!r}", expected="at most 254")
        values = np.where(objects.crowd, IGNORED, np.cumsum(~objects.crowd)).astype(np.uint8)
        numbers = paint(objects.masks, values)
        table = np.zeros(256, np.uint8)
        table[values] = np.where(objects.crowd, IGNORED, index[objects.label_ids])
        own = table[numbers]
    if semantic is not None:
        classes = look_up(index, semantic.ids)
    elif own is not None:
        classes = own
    else:
        return False
    write_bytes(folder / "SegmentationClass" / name, encode_palette_png(classes))
    if numbers is not None:
        numbers[(own != classes) & (numbers != IGNORED)] = 0
        numbers[classes == IGNORED] = IGNORED
        write_bytes(folder / "SegmentationObject" / name, encode_palette_png(numbers))
    return True


def _annotation(sample: Sample, file: str, segmented: bool) -> ElementTree.Element:
    """VOC counts pixels from 1 and both edges belong to the box, which has one pixel at least."""
    root = ElementTree.Element("annotation")
    h, w = sample.size
    _texts(root, folder="JPEGImages", filename=file)
    _texts(ElementTree.SubElement(root, "source"), database="datasetdm")
    _texts(ElementTree.SubElement(root, "size"), width=w, height=h, depth=3)
    _texts(root, segmented=int(segmented))
    objects = without_crowds(sample).instances
    if objects is not None:
        for label, (x, y, bw, bh) in zip(objects.label_ids.tolist(), objects.boxes.tolist(), strict=True):
            if sample.labels.names[label] == BACKGROUND:
                continue
            node = ElementTree.SubElement(root, "object")
            (left, right), (top, bottom) = _whole_pixels(x, x + bw, w), _whole_pixels(y, y + bh, h)
            cut = left == 0 or top == 0 or right == w or bottom == h
            _texts(node, name=sample.labels.names[label], pose="Unspecified", truncated=int(cut), difficult=0)
            box = ElementTree.SubElement(node, "bndbox")
            _texts(box, xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
    ElementTree.indent(root)
    return root


def _whole_pixels(start: float, stop: float, size: int) -> tuple[int, int]:
    """The nearest edges of pixels, or those of the pixel in which both lie."""
    first, last = round(start), round(stop)
    if last > first:
        return first, last
    first = min(int(start), size - 1)
    return first, first + 1


def _texts(node: ElementTree.Element, **values: object) -> None:
    for name, value in values.items():
        ElementTree.SubElement(node, name).text = str(value)
