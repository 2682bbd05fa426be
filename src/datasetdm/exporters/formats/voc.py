"""Pascal VOC 2012: `JPEGImages/NAME.png` (or the source's own JPEG), `SegmentationClass/NAME.png`,
`SegmentationObject/NAME.png`, `Annotations/NAME.xml`, `ImageSets/{Segmentation,Main}/train.txt`, `labelmap.txt`.

Index 0 is `background`, 255 is void; the other labels follow in their order. `labelmap.txt` has every class and its colour
in the form that CVAT and Datumaro use. Where a sample has objects and a semantic map, an object is drawn where the map has
its label, as VOC has one class an object. Samples whose objects are boxes only have no object masks, and
a split without any masks no list in `Segmentation`. At most 254 classes and
254 objects a picture. Scores, confidences, points and depth have no place in VOC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

import numpy as np

from datasetdm.errors import DataError
from datasetdm.exporters.formats.masks import IGNORED, encode_palette_png, numbered, voc_palette
from datasetdm.exporters.target import Target, xml_text
from datasetdm.io.files import write_bytes, write_text, writing
from datasetdm.records import BACKGROUND, IGNORE, Sample


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write pictures, masks and boxes, and list them."""
    names = [BACKGROUND, *(n for n in target.labels.names if n != BACKGROUND)]
    _check(names)
    index = np.array([names.index(n) for n in target.labels.names])
    segmented: set[str] = set()
    with ExitStack() as files:
        lists = {p: [files.enter_context(f) for f in _lists(target, p)] for p in target.parts}
        for sample in samples:
            file = Path(target.picture(sample, "JPEGImages"))
            has_masks = _write_masks(sample, index, target.folder, file.with_suffix(".png").name)
            xml = ElementTree.tostring(_annotation(sample, file.name, has_masks), encoding="unicode")
            write_bytes(target.folder / "Annotations" / f"{file.stem}.xml", xml.encode())
            main, segmentation = lists[target.part(sample)]
            main.write(f"{file.stem}\n")
            if has_masks:
                segmented.add(target.part(sample))
                segmentation.write(f"{file.stem}\n")
            yield
    for part in {*target.parts} - segmented:
        (target.folder / "ImageSets" / "Segmentation" / f"{part or 'train'}.txt").unlink()
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


def _lists(target: Target, part: str) -> list[IO[str]]:
    opened = []
    for kind in ("Main", "Segmentation"):
        path = target.folder / "ImageSets" / kind / f"{part or 'train'}.txt"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            opened.append(path.open("w", encoding="utf-8"))
    return opened


def _write_masks(sample: Sample, index: np.ndarray, folder: Path, name: str) -> bool:
    """Whether the sample has a class mask. index: VOC's index of every label id."""
    semantic, objects = sample.semantic, sample.instances
    numbers = own = None
    if objects is not None and not objects.boxed:
        if len(objects) >= IGNORED:
            raise DataError(f"{len(objects)} objects", where=f"sample {sample.key!r}", expected="at most 254")
        numbers = numbered(objects)
        own = np.append(0, index[objects.label_ids])[numbers]
    if semantic is not None:
        classes = np.append(index, IGNORED)[np.where(semantic.ids == IGNORE, len(index), semantic.ids)]
    elif own is not None:
        classes = own
    else:
        return False
    write_bytes(folder / "SegmentationClass" / name, encode_palette_png(classes.astype(np.uint8)))
    if numbers is not None:
        drawn = np.where(classes == IGNORED, IGNORED, np.where(own == classes, numbers, 0))
        write_bytes(folder / "SegmentationObject" / name, encode_palette_png(drawn.astype(np.uint8)))
    return True


def _annotation(sample: Sample, file: str, segmented: bool) -> ElementTree.Element:
    """VOC counts pixels from 1 and both edges belong to the box."""
    root = ElementTree.Element("annotation")
    h, w = sample.size
    _texts(root, folder="JPEGImages", filename=file)
    _texts(ElementTree.SubElement(root, "source"), database="datasetdm")
    _texts(ElementTree.SubElement(root, "size"), width=w, height=h, depth=3)
    _texts(root, segmented=int(segmented))
    objects = sample.instances
    if objects is not None:
        for label, (x, y, bw, bh) in zip(objects.label_ids.tolist(), objects.boxes.tolist(), strict=True):
            if sample.labels.names[label] == BACKGROUND:
                continue
            node = ElementTree.SubElement(root, "object")
            cut = x == 0 or y == 0 or x + bw == w or y + bh == h
            _texts(node, name=sample.labels.names[label], pose="Unspecified", truncated=int(cut), difficult=0)
            box = ElementTree.SubElement(node, "bndbox")
            edges = {"xmin": x + 1, "ymin": y + 1, "xmax": x + bw, "ymax": y + bh}
            _texts(box, **{k: int(v) if v.is_integer() else v for k, v in edges.items()})
    ElementTree.indent(root)
    return root


def _texts(node: ElementTree.Element, **values: object) -> None:
    for name, value in values.items():
        ElementTree.SubElement(node, name).text = str(value)
