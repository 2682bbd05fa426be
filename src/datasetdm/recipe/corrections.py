"""What people corrected in Label Studio or CVAT, as reviews of the store that was exported there.

Shapes are found again by their geometry, so a tool may renumber them. Of an object with another label the label is fixed; an
image that was skipped or deleted is rejected. A review holds no shapes: where shapes were redrawn, added or deleted, the image is
rejected with that reason, so that nothing wrong is used.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from datasetdm.errors import DataError, unknown_name
from datasetdm.exporters.formats import cvat, labelstudio
from datasetdm.exporters.objects import without_crowds
from datasetdm.io.files import parse_json, safe_name
from datasetdm.records import BACKGROUND, Sample
from datasetdm.store.reviews import Review, read_reviews
from datasetdm.store.store import Store

TOLERANCE = 0.02
"""Pixels, or percent of the image, by which tools round coordinates."""


POINTS = ("point", "keypointlabels")
"""Kinds of shapes that are points of an object."""


class Shape(NamedTuple):
    """A shape: what it shows, its kind, and its numbers."""

    label: str
    kind: str
    numbers: tuple[float, ...]

    def same_place(self, other: Shape) -> bool:
        """Whether both have the same geometry."""
        if self.kind != other.kind or len(self.numbers) != len(other.numbers):
            return False
        return not self.numbers or bool(np.abs(np.subtract(self.numbers, other.numbers)).max() <= TOLERANCE)


def read_corrections(store: Store, export: Path) -> Iterator[Review]:
    """Reviews of the samples that people saw, each with what was said of it before.

    Args:
        store: the one that was exported, by `--format label-studio` or `cvat` and without thresholds.
        export: Label Studio's JSON file, or CVAT's `annotations.xml` ("CVAT for images 1.1") or the zip with it.

    Raises:
        DataError: no such export, or one of other images.
    """
    rows, earlier = {key: row for row, key in enumerate(store.keys())}, read_reviews(store.folder)
    try:
        found = _label_studio(export) if export.suffix == ".json" else _cvat(export, rows)
        for key, reason, shapes in found:
            if key not in rows:
                raise DataError(
                    f"the store has no sample {key!r}", where=export, expected="an export of the store that is reviewed"
                )
            before = earlier.get(key, Review(key))
            if reason:
                yield replace(before, verdict="reject", reason=reason)
            elif review := _compared(store[rows[key]], before, shapes, labels_only=export.suffix != ".json"):
                yield review
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, ParseError, DefusedXmlException) as e:
        raise DataError(
            f"this is no export of Label Studio or CVAT: {str(e) or repr(e)}", where=export,
            expected="Label Studio's JSON, or CVAT for images 1.1 (.xml or .zip)",
        ) from e  # fmt: skip
    except zipfile.BadZipFile as e:
        raise DataError("the zip cannot be read", where=export, remedy="download it again") from e


def _compared(sample: Sample, earlier: Review, shapes: Iterable[Shape], labels_only: bool) -> Review | None:
    """The review that turns what was exported into what came back; None where CVAT gives back the same."""
    exported = without_crowds(earlier.apply(sample))
    if labels_only:
        given = list(_cvat_shapes(cvat.image_element(exported, 0, "")))
    else:
        given = [_label_studio_shape(r) for r in labelstudio.results_of(exported)]
    left, fixes = list(shapes), dict[int, str]()
    for number, own in enumerate(given):
        places = [s for s in left if own.same_place(s)]
        if not places:
            return replace(earlier, verdict="reject", reason="shapes were redrawn or deleted")
        match = next((s for s in places if s.label == own.label), places[0])
        if match.label != own.label and own.kind in POINTS:
            return replace(earlier, verdict="reject", reason="points were renamed")
        left.remove(match)
        if match.label != own.label:
            fixes[number] = match.label
    if left:
        return replace(earlier, verdict="reject", reason="shapes were added")
    if not fixes:
        return None if labels_only else replace(earlier, verdict="accept", reason="")
    for name in fixes.values():
        if name not in sample.labels.index:
            raise unknown_name("label", name, sample.labels.names)
    numbers = [n for n, own in enumerate(given) if own.kind not in POINTS]
    if sample.instances is None:  # regions of the semantic map
        labels = {given[n].label: name for n, name in fixes.items()}
        return replace(earlier, verdict="accept", reason="", labels={**earlier.labels, **labels})
    ids, crowd = sample.instances.label_ids.tolist(), sample.instances.crowd.tolist()
    kept = [n for n, label in enumerate(ids) if not crowd[n] and sample.labels.names[label] != BACKGROUND]
    objects = {kept[numbers.index(n)]: name for n, name in fixes.items()}
    return replace(earlier, verdict="accept", reason="", objects={**earlier.objects, **objects})


Found = Iterator[tuple[str, str, list[Shape]]]
"""(key, reason of a rejection, shapes) of every image that people saw."""


def _label_studio(export: Path) -> Found:
    for task in parse_json(export.read_bytes()):
        annotations = [a for a in task["annotations"] if isinstance(a, Mapping)]
        if annotations:
            last = annotations[-1]
            reason = "skipped in Label Studio" if last.get("was_cancelled") else ""
            yield task["data"]["key"], reason, [_label_studio_shape(r) for r in last["result"] if "value" in r]


def _label_studio_shape(result: Mapping[str, Any]) -> Shape:
    kind, value = result["type"], result["value"]
    names = ("x", "y") if kind == "keypointlabels" else ("x", "y", "width", "height")
    numbers = value["rle"] if kind == "brushlabels" else [value[name] for name in names]
    return Shape(value[kind][0], kind, tuple(map(float, numbers)))


def _cvat(export: Path, keys: Iterable[str]) -> Found:
    if zipfile.is_zipfile(export):
        with zipfile.ZipFile(export) as archive:
            root = ElementTree.fromstring(archive.read("annotations.xml"))
    else:
        root = ElementTree.fromstring(export.read_bytes())
    named = {safe_name(key): key for key in keys}
    named = {Path(name).stem: key for name, key in named.items()} | named  # keys may end as an image's name does
    images = {Path(node.attrib["name"]).stem: node for node in root.iter("image")}
    for name, node in images.items():
        yield named.get(name, name), "", list(_cvat_shapes(node))


def _cvat_shapes(image: Element) -> Iterator[Shape]:
    for node in image:
        given = node.attrib
        if node.tag in ("polygon", "mask", "box"):
            texts = [given[name] for name in _NUMBERS[node.tag]]
            yield Shape(given["label"], node.tag, _numbers(";".join(texts)))
        elif node.tag == "skeleton":
            for point in node.iter("points"):
                yield Shape(f"{given['label']}: {point.attrib['label']}", "point", _numbers(point.attrib["points"]))
        elif node.tag != "tag":
            yield Shape(given.get("label", ""), node.tag, ())


_NUMBERS = {
    "polygon": ("points",), "mask": ("rle", "left", "top", "width", "height"), "box": ("xtl", "ytl", "xbr", "ybr"),
}  # fmt: skip


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(n) for n in text.replace(";", ",").split(","))
