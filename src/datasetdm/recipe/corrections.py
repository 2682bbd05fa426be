"""What people corrected in Label Studio or CVAT, for the store that was exported there.

Shapes are found again by their geometry, so a tool may renumber them. Of an object with another label the label is fixed, by a
review; an image that was skipped or deleted is rejected. Where shapes were redrawn, added or deleted, the sample itself changes
(`redrawn`). An image with a shape that annotations cannot hold is rejected with that reason, so that nothing wrong is used.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException, ElementTree

from datasetdm.errors import DataError, unknown_name
from datasetdm.exporters.formats import cvat, labelstudio
from datasetdm.exporters.objects import without_crowds
from datasetdm.io.files import parse_json, safe_name
from datasetdm.recipe.redrawn import NotHeld, Redrawn
from datasetdm.recipe.shapes import Shape, Size, cvat_shapes, label_studio_shapes
from datasetdm.records import BACKGROUND, Sample
from datasetdm.store.reviews import Review, read_reviews
from datasetdm.store.store import Store

LABEL_STUDIO, CVAT = "Label Studio", "CVAT"


class Correction(NamedTuple):
    """What was said of a sample: its review, and where shapes were redrawn the change of the sample before it is reviewed."""

    review: Review
    change: Redrawn | None = None


def read_corrections(store: Store, export: Path) -> Iterator[Correction]:
    """What was said of the samples that people saw, each with what was said of it before.

    Args:
        store: the one that was exported, by `--format label-studio` or `cvat` and without thresholds.
        export: Label Studio's JSON file, or CVAT's `annotations.xml` ("CVAT for images 1.1") or the zip with it.

    Raises:
        DataError: no such export, or one of other images. ConfigError: an unknown label or point.
    """
    rows, earlier = {key: row for row, key in enumerate(store.keys())}, read_reviews(store.folder)
    tool = LABEL_STUDIO if export.suffix == ".json" else CVAT
    try:
        for key, reason, shapes in _label_studio(export) if tool == LABEL_STUDIO else _cvat(export, rows):
            if key not in rows:
                raise DataError(
                    f"the store has no sample {key!r}", where=export, expected="an export of the store that is reviewed"
                )
            before = earlier.get(key, Review(key))
            if reason:
                yield Correction(replace(before, verdict="reject", reason=reason))
            else:
                sample = store[rows[key]]
                yield from _compared(sample, before, tool, list(shapes(sample.size)))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, ParseError, DefusedXmlException) as e:
        raise DataError(
            f"this is no export of Label Studio or CVAT: {str(e) or repr(e)}", where=export,
            expected="Label Studio's JSON, or CVAT for images 1.1 (.xml or .zip)",
        ) from e  # fmt: skip
    except zipfile.BadZipFile as e:
        raise DataError("the zip cannot be read", where=export, remedy="download it again") from e


def _compared(sample: Sample, earlier: Review, tool: str, shapes: Sequence[Shape]) -> Iterator[Correction]:
    """What turns the shapes that were exported into those that came back; nothing where CVAT gives back the same."""
    exported = without_crowds(earlier.apply(sample))
    if tool == CVAT:
        given = list(cvat_shapes(cvat.image_element(exported, 0, ""), sample.size))
    else:
        given = list(label_studio_shapes(labelstudio.results_of(exported), sample.size))
    accepted = replace(earlier, verdict="accept", reason="")
    fixes = _fixed_labels(given, shapes)
    if fixes is None:
        change = Redrawn(earlier, given, shapes, tool)
        try:
            change(sample)
        except NotHeld as e:
            yield Correction(replace(earlier, verdict="reject", reason=e.what))
        else:
            yield Correction(replace(accepted, labels={}, objects={}), change)
    elif fixes:
        yield Correction(_with_labels(accepted, sample, given, fixes))
    elif tool == LABEL_STUDIO:
        yield Correction(accepted)


def _fixed_labels(given: Sequence[Shape], shapes: Sequence[Shape]) -> dict[int, str] | None:
    """Number of a given shape -> its new label, where nothing but labels of objects has changed; else None."""
    left, fixes = list(shapes), dict[int, str]()
    for number, own in enumerate(given):
        places = [s for s in left if own.same_place(s)]
        equal = [s for s in places if (s.label, s.point) == (own.label, own.point)]
        match = next(iter(equal + places), None)
        if match is None or match.point != own.point or not match.label:
            return None
        left.remove(match)
        if match.label != own.label:
            fixes[number] = match.label
    points_moved = any(not given[number].region for number in fixes)
    return None if left or points_moved else fixes


def _with_labels(review: Review, sample: Sample, given: Sequence[Shape], fixes: Mapping[int, str]) -> Review:
    """The review with fixed labels. Raises ConfigError for unknown ones."""
    for name in fixes.values():
        if name not in sample.labels.index:
            raise unknown_name("label", name, sample.labels.names)
    if sample.instances is None:  # regions of the semantic map
        labels = {given[n].label: name for n, name in fixes.items()}
        return replace(review, labels={**review.labels, **labels})
    numbers = [n for n, own in enumerate(given) if own.region]
    ids, crowd = sample.instances.label_ids.tolist(), sample.instances.crowd.tolist()
    kept = [n for n, label in enumerate(ids) if not crowd[n] and sample.labels.names[label] != BACKGROUND]
    objects = {kept[numbers.index(n)]: name for n, name in fixes.items()}
    return replace(review, objects={**review.objects, **objects})


Found = Iterator[tuple[str, str, Callable[[Size], Iterator[Shape]]]]
"""(key, reason of a rejection, shapes by the image's size) of every image that people saw."""


def _label_studio(export: Path) -> Found:
    for task in parse_json(export.read_bytes()):
        annotations = [a for a in task["annotations"] if isinstance(a, Mapping)]
        if annotations:
            last = annotations[-1]
            reason = "skipped in Label Studio" if last.get("was_cancelled") else ""
            yield task["data"]["key"], reason, partial(label_studio_shapes, last["result"])


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
        yield named.get(name, name), "", partial(cvat_shapes, node)
