"""CVAT for images 1.1: `annotations.xml` and `images/NAME.png`; zip the folder and upload it to a project or a task.

An object of one part without holes is a `polygon` along the edges of its pixels, another one a `mask` (CVAT's row-wise run
lengths inside the box), objects known as boxes only are `box`; an object's points are a `skeleton` in the same group. With
splits the images have a `subset`, which CVAT's projects know. Scores, crowds, semantic maps beside objects, and depth have no
place.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from jaxtyping import Bool

from datasetdm.errors import DataError
from datasetdm.exporters.objects import objects_of, points_of, without_crowds
from datasetdm.exporters.outline import loops
from datasetdm.exporters.target import Target, decimal, xml_text
from datasetdm.records import BACKGROUND, Instances, Labels, Sample

DIGITS = 6
"""Of a pixel, after the point."""

SKELETON = " points"
"""What the label of a skeleton has behind that of its object."""


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write images and their elements as they come; the head, which counts them, is put before them at the end."""
    labels, path = _labels(target.labels), target.folder / "annotations.xml"
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=target.folder) as body:
        count, parts = 0, dict.fromkeys(target.parts)
        for sample in map(without_crowds, samples):
            name = target.write_image(sample, "images", sample.split)
            node = image_element(sample, count, f"{sample.split}/{name}" if sample.split else name)
            body.write(ElementTree.tostring(node, encoding="unicode") + "\n")
            count += 1
            parts |= {sample.split: None} if sample.split else {}
            yield
        with path.open("w", encoding="utf-8") as out:
            _assemble(out, labels, count, tuple(parts), body)


def _assemble(out: IO[str], labels: Element, count: int, parts: tuple[str, ...], body: IO[str]) -> None:
    """Write head and body: of a task, or of a project with one task for each part."""
    meta = Element("meta")
    whole = SubElement(meta, "project" if parts else "task")
    for name, text in (("name", "datasetdm"), ("size", str(count)), ("mode", "annotation"), ("overlap", "0")):
        SubElement(whole, name).text = text
    whole.append(labels)
    tasks = SubElement(whole, "tasks") if parts else whole
    for part in parts:
        task = SubElement(tasks, "task")
        SubElement(task, "name").text = SubElement(task, "subset").text = part
    ElementTree.indent(meta)
    out.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
    out.write(ElementTree.tostring(meta, encoding="unicode") + "\n")
    body.seek(0)
    shutil.copyfileobj(body, out)
    out.write("</annotations>\n")


def _labels(labels: Labels) -> Element:
    texts = [*labels.names, *(p for s in labels.skeletons.values() for p in s.points)]
    if bad := [t for t in texts if t != xml_text(t)]:
        raise DataError(f"the label {bad[0]!r} has a control character", expected="text that XML can hold")
    root = Element("labels")

    def add(name: str, kind: str, parent: str = "") -> None:
        node = SubElement(root, "label")
        for tag, text in (("name", name), ("type", kind), *((("parent", parent),) if parent else ())):
            SubElement(node, tag).text = text
        SubElement(node, "attributes")

    for name in labels.names:
        if name != BACKGROUND:
            add(name, "any")
    for name, skeleton in labels.skeletons.items():
        add(skeleton_label(name), "skeleton")
        for point in skeleton.points:
            add(point, "points", skeleton_label(name))
    return root


def skeleton_label(name: str) -> str:
    """CVAT has labels of shapes and labels of skeletons; the points of a label have their own."""
    return name + SKELETON


def image_element(sample: Sample, number: int, name: str) -> Element:
    """The element of a sample's image with its shapes."""
    h, w = sample.size
    node = Element("image", id=str(number), name=name, width=str(w), height=str(h))
    if sample.split:
        node.set("subset", sample.split)
    objects = objects_of(sample)
    for n, label in enumerate(objects.label_ids.tolist()):
        text = sample.labels.names[label]
        if text == BACKGROUND:
            continue
        common = {"label": text, "occluded": "0", "source": "auto", "z_order": "0", "group_id": str(n + 1)}
        _shape(node, objects, n, common)
        if (points := points_of(sample, n)) is not None:
            skeleton = SubElement(node, "skeleton", common | {"label": skeleton_label(text)})
            for point, (x, y, seen) in zip(sample.labels.skeletons[text].points, points.tolist(), strict=True):
                state = {"outside": str(int(seen == 0)), "occluded": str(int(seen == 1))}
                place = {"points": f"{decimal(x, DIGITS)},{decimal(y, DIGITS)}"}
                SubElement(skeleton, "points", {"label": point, "source": "auto"} | state | place)
    return node


def _shape(node: Element, objects: Instances, n: int, common: dict[str, str]) -> None:
    if objects.boxed:
        x, y, w, h = objects.boxes[n].tolist()
        edges = {"xtl": x, "ytl": y, "xbr": x + w, "ybr": y + h}
        SubElement(node, "box", common | {k: decimal(v, DIGITS) for k, v in edges.items()})
        return
    mask, (left, top) = objects.masks.crop(n)
    outlines = loops(mask)
    if len(outlines) == 1:
        points = ";".join(f"{left + px:.2f},{top + py:.2f}" for px, py in outlines[0])
        SubElement(node, "polygon", common | {"points": points})
        return
    runs = ", ".join(map(str, row_runs(mask)))
    box = {"left": str(left), "top": str(top), "width": str(mask.shape[1]), "height": str(mask.shape[0])}
    SubElement(node, "mask", common | {"rle": runs} | box)


def row_runs(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """The lengths of runs, off and on in turn, row by row."""
    flat = np.concatenate([[False], mask.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


def decode_row_runs(runs: Sequence[int], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of such lengths. Raises ValueError if they do not fill a mask of this (height, width)."""
    on = np.arange(len(runs)) % 2 == 1
    return np.repeat(on, runs).reshape(size)
