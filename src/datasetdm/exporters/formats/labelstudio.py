"""Label Studio: `tasks.json` with pre-annotations to correct, `config.xml` for the project, `images/NAME.png`.

Objects are brush strokes (run lengths of RGBA pixels, as Label Studio packs them), objects known as boxes only rectangles,
points are keypoints; positions are percent of the image. With splits: `tasks_train.json`, `images/train/` and so on.
Images are addressed as local files: start Label Studio with LOCAL_FILES_SERVING_ENABLED=true and
LOCAL_FILES_DOCUMENT_ROOT set to this folder. Crowds are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool

from datasetdm.errors import DataError
from datasetdm.exporters.objects import caption_of, objects_of, points_of, without_crowds
from datasetdm.exporters.streams import JsonLists
from datasetdm.exporters.target import ByPart, Target, xml_text
from datasetdm.io.files import write_text
from datasetdm.records import BACKGROUND, Labels, Sample

POINT_WIDTH = 0.5
"""Of a keypoint, percent of the image."""


def export(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Write images and tasks as they come."""
    write_text(target.folder / "config.xml", _config(target.labels))
    with ExitStack() as files:

        def opened(part: str) -> JsonLists:
            return files.enter_context(JsonLists(target.folder / (f"tasks_{part}.json" if part else "tasks.json"), ""))

        tasks = ByPart(opened, target.parts)
        for sample in map(without_crowds, samples):
            name = target.write_image(sample, "images", sample.split)
            place = "/".join(["images", *([sample.split] if sample.split else []), name])
            tasks[sample.split].add("", _task(sample, place))
            yield
        tasks.at_least("")


def _task(sample: Sample, place: str) -> dict[str, Any]:
    data = {"image": f"/data/local-files/?d={quote(place)}", "key": sample.key}
    if (caption := caption_of(sample)) is not None:
        data["caption"] = caption
    results = list(results_of(sample))
    scores = [r["score"] for r in results if "score" in r]
    prediction = {"model_version": "datasetdm", "score": round(sum(scores) / len(scores), 4) if scores else 0}
    return {"data": data, "predictions": [prediction | {"result": results}]}


def results_of(sample: Sample) -> Iterator[dict[str, Any]]:
    """The regions of a sample's task: of its objects, and of their points."""
    objects = objects_of(sample)
    h, w = sample.size
    frame = {"to_name": "image", "original_width": w, "original_height": h, "image_rotation": 0}
    for n, label in enumerate(objects.label_ids.tolist()):
        name = sample.labels.names[label]
        if name == BACKGROUND:
            continue
        kind = "rectanglelabels" if objects.boxed else "brushlabels"
        if objects.boxed:
            x, y, bw, bh = (objects.boxes[n] / (w, h, w, h) * 100).tolist()
            value: dict[str, Any] = {"x": x, "y": y, "width": bw, "height": bh, "rotation": 0}
        else:
            value = {"format": "rle", "rle": encode_brush(*objects.masks.crop(n), sample.size)}
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
            for n, value in enumerate(values):  # Label Studio's own converter orders points by this number
                ElementTree.SubElement(
                    node, "Label", {"value": value} | ({"model_index": str(n)} if tag == "KeyPoint" else {})
                )
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


# ---------------------------------------------------------------------- run lengths
def encode_brush(mask: Bool[np.ndarray, "h w"], corner: tuple[int, int], size: tuple[int, int]) -> list[int]:
    """A mask as Label Studio's run lengths, bytes 0..255, of RGBA pixels of 255 (on) and 0.

    The format is thi.ng's rle-pack: a stream of bits with the number of words (32 bits), their size less 1 (5), four sizes
    of run lengths less 1 (4 each); then for every run a 1, the size's number (2), the length less 1, and the word. (Runs
    of words that differ begin with a 0; we write none.)

    Args:
        mask: a part of the image; all else is off.
        corner: (x, y) of the mask's first pixel in the image.
        size: (height, width) of the image.
    """
    (left, top), (h, w) = corner, size
    turns = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)  # 1 where a row's run begins, -1 behind it
    (y, x), (_, end) = np.nonzero(turns == 1), np.nonzero(turns == -1)
    starts, stops = (top + y) * w + left + x, (top + y) * w + left + end
    edges = np.concatenate([[0], np.stack([starts, stops], 1).ravel(), [h * w]])  # off and on in turn, off first
    lengths, on = np.diff(edges) * 4, np.arange(len(edges) - 1) % 2 == 1
    lengths, on = lengths[lengths > 0], on[lengths > 0]
    first = np.flatnonzero(np.append(True, on[1:] != on[:-1]))  # rows that are full go on in the next
    lengths, on = np.add.reduceat(lengths, first), on[first]
    bits = [f"{h * w * 4:032b}{7:05b}" + "".join(f"{s - 1:04b}" for s in _RUN_BITS)]
    for length, word in zip(lengths.tolist(), np.where(on, "11111111", "00000000").tolist(), strict=True):
        while length:
            run = min(length, 1 << _RUN_BITS[-1])
            kind = next(i for i, s in enumerate(_RUN_BITS) if run <= 1 << s)
            bits.append(f"1{kind:02b}{run - 1:0{_RUN_BITS[kind]}b}{word}")
            length -= run
    stream = "".join(bits)
    return list(int(stream + "0" * (-len(stream) % 8), 2).to_bytes((len(stream) + 7) // 8, "big"))


_RUN_BITS = (4, 7, 10, 16)


def decode_brush(packed: Sequence[int], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of run lengths as `encode_brush` and Label Studio write them: pixels that are at least half on.

    Raises:
        ValueError: bytes that are no run lengths, or of an image of another (height, width).
    """
    stream, at = "".join(f"{n:08b}" for n in packed), 0

    def bits(count: int) -> int:
        nonlocal at
        at += count
        if at > len(stream):
            raise ValueError("the run lengths of a brush end too early")
        return int(stream[at - count : at], 2)

    words, word = bits(32), bits(5) + 1
    sizes = [bits(4) + 1 for _ in _RUN_BITS]
    h, w = size
    if words != h * w * 4:
        raise ValueError(f"the run lengths of a brush are of {words // 4} pixels, the image has {h * w}")
    found: list[int] = []
    while len(found) < words:
        repeated, length = bits(1), bits(sizes[bits(2)]) + 1
        found += [bits(word)] * length if repeated else [bits(word) for _ in range(length)]
    return np.array(found[3:words:4]).reshape(size) >= 1 << word - 1
