"""Label Studio: `tasks.json` with pre-annotations to correct, `config.xml` for the project, `images/NAME.png`.

Objects are brush strokes (run lengths of RGBA pixels, as Label Studio packs them), objects known as boxes only rectangles,
points are keypoints; positions are percent of the picture. With splits: `tasks_train.json`, `images/train/` and so on.
Pictures are addressed as local files: start Label Studio with LOCAL_FILES_SERVING_ENABLED=true and
LOCAL_FILES_DOCUMENT_ROOT set to this folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool

from datasetdm.errors import DataError
from datasetdm.exporters.objects import objects_of, points_of
from datasetdm.exporters.streams import JsonLists
from datasetdm.exporters.target import Target, xml_text
from datasetdm.io.files import write_text
from datasetdm.records import BACKGROUND, Labels, Sample

POINT_WIDTH = 0.5
"""Of a keypoint, percent of the picture."""


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write pictures and tasks as they come."""
    write_text(target.folder / "config.xml", _config(target.labels))
    with ExitStack() as files:
        tasks = {
            p: files.enter_context(JsonLists(target.folder / (f"tasks_{p}.json" if p else "tasks.json"), ""))
            for p in target.parts
        }
        for sample in samples:
            part = target.part(sample)
            name = target.picture(sample, "images", part)
            place = "/".join(["images", *([part] if part else []), name])
            tasks[part].add("", _task(sample, place))
            yield


def _task(sample: Sample, place: str) -> dict[str, Any]:
    data = {"image": f"/data/local-files/?d={quote(place)}", "key": sample.key}
    if sample.prompt:
        data["caption"] = sample.prompt.text
    results = list(_results(sample))
    scores = [r["score"] for r in results if "score" in r]
    prediction = {"model_version": "datasetdm", "score": round(sum(scores) / len(scores), 4) if scores else 0}
    return {"data": data, "predictions": [prediction | {"result": results}]}


def _results(sample: Sample) -> Iterator[dict[str, Any]]:
    objects = objects_of(sample)
    h, w = sample.size
    frame = {"to_name": "image", "original_width": w, "original_height": h, "image_rotation": 0}
    for n, (mask, label) in enumerate(zip(objects.masks, objects.label_ids.tolist(), strict=True)):
        name = sample.labels.names[label]
        if name == BACKGROUND:
            continue
        kind = "rectanglelabels" if objects.boxed else "brushlabels"
        if objects.boxed:
            x, y, bw, bh = (objects.boxes[n] / (w, h, w, h) * 100).tolist()
            value: dict[str, Any] = {"x": x, "y": y, "width": bw, "height": bh, "rotation": 0}
        else:
            value = {"format": "rle", "rle": encode_brush(mask)}
        own = {"id": f"object{n}", "type": kind, "from_name": kind.removesuffix("labels")}
        yield frame | own | {"score": round(float(objects.scores[n]), 4), "value": value | {kind: [name]}}
        yield from _keypoints(sample, n, name, frame)


def _keypoints(sample: Sample, n: int, name: str, frame: dict[str, Any]) -> Iterator[dict[str, Any]]:
    points = points_of(sample, n)
    if points is None:
        return
    h, w = sample.size
    for k, (point, (x, y, seen)) in enumerate(zip(sample.labels.skeletons[name].points, points.tolist(), strict=True)):
        if seen:
            value = {"x": x / w * 100, "y": y / h * 100, "width": POINT_WIDTH, "keypointlabels": [f"{name}: {point}"]}
            own = {
                "id": f"object{n}point{k}",
                "type": "keypointlabels",
                "from_name": "keypoint",
                "parentID": f"object{n}",
            }
            yield frame | own | {"value": value}


def _config(labels: Labels) -> str:
    names = [n for n in labels.names if n != BACKGROUND]
    points = [f"{n}: {p}" for n, s in labels.skeletons.items() for p in s.points]
    if bad := [n for n in names + points if n != xml_text(n)]:
        raise DataError(f"the label {bad[0]!r} has a control character", expected="text that XML can hold")
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    for tag, name, values in (
        ("Brush", "brush", names),
        ("Rectangle", "rectangle", names),
        ("KeyPoint", "keypoint", points),
    ):
        if values:
            node = ElementTree.SubElement(view, f"{tag}Labels", name=name, toName="image")
            for value in values:
                ElementTree.SubElement(node, "Label", value=value)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


# ---------------------------------------------------------------------- run lengths
def encode_brush(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """A mask as Label Studio's run lengths, bytes 0..255, of RGBA pixels of 255 (on) and 0.

    The format is thi.ng's rle-pack: a stream of bits with the number of words (32 bits), their size less 1 (5), four sizes
    of run lengths less 1 (4 each); then for every run a 1, the size's number (2), the length less 1, and the word. (Runs
    of words that differ begin with a 0; we write none.)
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))
    lengths = np.diff(np.append(starts, flat.size)) * 4
    bits = [f"{flat.size * 4:032b}{7:05b}" + "".join(f"{s - 1:04b}" for s in _RUN_BITS)]
    for length, on in zip(lengths.tolist(), flat[starts].tolist(), strict=True):
        while length:
            run = min(length, 1 << _RUN_BITS[-1])
            size = next(i for i, s in enumerate(_RUN_BITS) if run <= 1 << s)
            bits.append(f"1{size:02b}{run - 1:0{_RUN_BITS[size]}b}{'11111111' if on else '00000000'}")
            length -= run
    stream = "".join(bits)
    return list(int(stream + "0" * (-len(stream) % 8), 2).to_bytes((len(stream) + 7) // 8, "big"))


_RUN_BITS = (4, 7, 10, 16)
