"""YOLO's folders, as Ultralytics documents them: `images/train/*.png`, `labels/train/*.txt` and `data.yaml`; with splits one
folder per split. Without a split `val`, Ultralytics validates on the first split.

Three kinds, by format name: `yolo-detect` (boxes), `yolo-seg` (one exact outline per object; holes and parts hang on bridges
of no width) and `yolo-pose` (boxes and points; all objects share one list of points, so a label of other points is an
error). Where a sample has no instances, each label of its semantic map is one object. YOLO holds no scores,
no crowds and no depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import yaml

from datasetdm.errors import DataError
from datasetdm.exporters.objects import objects_of, points_of, require_outlines, without_crowds
from datasetdm.exporters.outline import polygon
from datasetdm.exporters.target import ByPart, Target, decimal
from datasetdm.io.files import write_bytes, write_text
from datasetdm.records import BACKGROUND, Instances, Labels, Sample
from datasetdm.records.point_names import mirror

Lines = Callable[[Sample, Instances, dict[int, int]], list[str]]

DIGITS, BOX_DIGITS = 8, 13
"""After the point, of a fraction of the image: a corner of a pixel comes back exactly, and a box to a millionth of itself."""


def export_detect(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Boxes: `class x y w h`."""
    yield from _export(samples, target, _boxes, {})


def export_seg(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Outlines: `class x1 y1 x2 y2 ...`."""
    yield from _export(samples, target, _outlines, {})


def export_pose(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Boxes and points: `class x y w h x1 y1 v1 ...`; only labels with points are written."""
    points = _shared_points(target.labels)
    settings: dict[str, object] = {
        "kpt_shape": [len(points), 3],
        "kpt_names": {0: list(points)},
        "flip_idx": mirror(points),
    }
    yield from _export(samples, target, _poses, settings)


def _export(samples: Iterable[Sample], target: Target, lines: Lines, settings: dict[str, object]) -> Iterator[None]:
    labels = target.labels
    names = [n for n in labels.names if n != BACKGROUND]
    if settings:
        names = [n for n in names if n in labels.skeletons]
    number = {labels.index[n]: i for i, n in enumerate(names)}

    def opened(part: str) -> str:
        for kind in ("images", "labels"):
            (target.folder / kind / part).mkdir(parents=True)
        return f"images/{part}"

    places = ByPart(opened, target.parts)
    for sample in map(without_crowds, samples):
        part = sample.split or "train"
        rows = lines(sample, objects_of(sample), number)
        name = target.write_image(sample, places[part])
        text = "".join(f"{row}\n" for row in rows)
        write_bytes((target.folder / "labels" / part / name).with_suffix(".txt"), text.encode())
        yield
    places.at_least("train")
    first = next(iter(places.values()))
    content = {"train": first, "val": first, **places, "names": dict(enumerate(names)), **settings}
    write_text(target.folder / "data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


def _boxes(sample: Sample, objects: Instances, number: dict[int, int]) -> list[str]:
    h, w = sample.size
    rows = []
    for label, (x, y, bw, bh) in zip(objects.label_ids.tolist(), objects.boxes.tolist(), strict=True):
        if label in number:
            box = ((x + bw / 2) / w, (y + bh / 2) / h, bw / w, bh / h)
            rows.append(" ".join([str(number[label]), *(decimal(v, BOX_DIGITS) for v in box)]))
    return rows


def _outlines(sample: Sample, objects: Instances, number: dict[int, int]) -> list[str]:
    require_outlines(sample, "yolo-detect")
    rows = []
    h, w = sample.size
    for n, label in enumerate(objects.label_ids.tolist()):
        if label in number:
            mask, corner = objects.masks.crop(n)
            corners = (polygon(mask) + np.array(corner)) / (w, h)
            rows.append(" ".join([str(number[label]), *(decimal(v, DIGITS) for v in corners.ravel().tolist())]))
    return rows


def _poses(sample: Sample, objects: Instances, number: dict[int, int]) -> list[str]:
    h, w = sample.size
    width = len(next(iter(sample.labels.skeletons.values())).points)
    rows = []
    for i, box in enumerate(_boxes(sample, objects, {k: k for k in range(len(sample.labels))})):
        label = int(objects.label_ids[i])
        if label not in number:
            continue
        points = points_of(sample, i)
        values = np.zeros((width, 3)) if points is None else points / (w, h, 1)
        triples = " ".join(f"{decimal(x, DIGITS)} {decimal(y, DIGITS)} {int(v)}" for x, y, v in values.tolist())
        rows.append(f"{number[label]} {box.split(' ', 1)[1]} {triples}")
    return rows


def _shared_points(labels: Labels) -> tuple[str, ...]:
    lists = {s.points for s in labels.skeletons.values()}
    if len(lists) != 1:
        found = "; ".join(f"{n}: {len(s.points)} points" for n, s in labels.skeletons.items()) or "no label has points"
        raise DataError(
            "YOLO's pose format holds one list of points for all labels", where=found, expected="labels that share one",
            remedy="export coco, which holds one list per label",
        )  # fmt: skip
    return lists.pop()
