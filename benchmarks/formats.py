"""Round trips between formats, and how fast they are read, written and looked at.

    python -m benchmarks.formats --json PATH [--images 8] [--samples 400]

`round_trips`: what each reader gives (row) is exported in each format (column), read again and compared. A cell is "equal" if
all that the format can hold came back, "cannot hold" if that is nothing but the image or the exporter refuses, "differs"
if something that it can hold did not come back, and "no reader" where only other tools read the format (the tests read it
with code of their own). `compared` says for every cell what was compared. Images are renders of the mini world with semantic
maps, instances, keypoints and depth; a row's data are written by the format's own exporter.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, stamp
from datasetdm.errors import DataError
from datasetdm.exporters import EXPORTERS, iter_export
from datasetdm.exporters.objects import caption_of
from datasetdm.io.files import write_json
from datasetdm.readers import READERS, read
from datasetdm.records import BACKGROUND, IGNORE, Labels, Sample
from datasetdm.records.edits import keep_objects
from datasetdm.store import Store, write_store

MINI = f"mini:{ROOT / 'data' / 'miniworld' / 'test'}"


@dataclass(frozen=True)
class Way:
    """How an exported folder is read again, and what the format can hold.

    holds: caption, semantic, objects (masks), boxes, points, depth. step: of depth, in metres. pixels: to how many boxes and
    points come back; formats write fractions with few digits.
    """

    reader: str
    path: str
    holds: str
    step: float = 1 / 256
    pixels: float = 0.01


WAYS = {
    "coco": Way("coco", "annotations/instances.json", "caption objects boxes points regions"),
    "coco-panoptic": Way("coco-panoptic", "annotations/panoptic.json", "caption segments"),
    "depth-kitti": Way("kitti", "", "depth"),
    "hf": Way("hf", "", "caption semantic"),
    "masks": Way("masks", "", "semantic"),
    "masks, depth": Way("nyu", "", "depth", 1 / 1000),
    "voc": Way("voc", "", "semantic objects boxes", pixels=1),
    "yolo-detect": Way("yolo", "data.yaml", "boxes"),
    "yolo-pose": Way("yolo", "data.yaml", "boxes points"),
    "yolo-seg": Way("yolo", "data.yaml", "objects regions"),
}


# ---------------------------------------------------------------------- what is compared, and how
def names_of(sample: Sample) -> np.ndarray:
    """The label's name at every pixel; empty where it is ignored."""
    table = np.array([*sample.labels.names, ""], object)
    assert sample.semantic
    ids = sample.semantic.ids
    return table[np.where(ids == IGNORE, len(table) - 1, ids)]


def semantic(a: Sample, b: Sample) -> bool:
    """The same label at every pixel."""
    return np.array_equal(names_of(a), names_of(b))


def regions(a: Sample, b: Sample) -> bool:
    """The same label wherever it is known and not background; elsewhere none of them."""
    given, back = names_of(a), names_of(b)
    known = ~np.isin(given, ["", BACKGROUND])
    return np.array_equal(given[known], back[known]) and bool(np.isin(back[~known], ["", BACKGROUND]).all())


def segments(a: Sample, b: Sample) -> bool:
    """Instances and stuff: panoptic maps have no background and no thing outside its instances."""
    held = names_of(a).copy() if a.semantic is not None else np.full(a.size, "", object)
    objects = a.instances
    if objects is not None:
        counted = {a.labels.names[i] for i in objects.label_ids.tolist()} - set(a.labels.stuff)
        outside = np.isin(held, list(counted)) & ~objects.masks.union()
        held[outside] = ""
        for mask, label in sorted(zip(objects.masks, objects.label_ids, strict=True), key=lambda r: -r[0].sum()):
            held[mask] = a.labels.names[label]
    held[held == BACKGROUND] = ""
    things = objects is None or _objects(a) <= _objects(b)
    return things and np.array_equal(held, names_of(b))


def objects(a: Sample, b: Sample) -> bool:
    """The same masks with the same labels, in any order."""
    return _objects(a) == _objects(b)


def _objects(sample: Sample) -> set[tuple[str, bytes]]:
    record = sample.instances
    assert record is not None
    pairs = zip(record.label_ids.tolist(), record.masks, strict=True)
    return {(sample.labels.names[i], m.tobytes()) for i, m in pairs if sample.labels.names[i] != BACKGROUND}


def boxes(pixels: float) -> Callable[[Sample, Sample], bool]:
    """The same boxes with the same labels, in any order."""
    return lambda a, b: _same_boxes(_rows(a), _rows(b), pixels)


def _same_boxes(given: list[tuple[Any, ...]], back: list[tuple[Any, ...]], pixels: float) -> bool:
    """The same labels, and boxes to so many pixels."""
    same = [r[0] for r in given] == [r[0] for r in back]
    return same and np.allclose([r[1] for r in given], [r[1] for r in back], rtol=0, atol=pixels)


def points(pixels: float) -> Callable[[Sample, Sample], bool]:
    """The same visible points at the objects with the same boxes."""

    def same(a: Sample, b: Sample) -> bool:
        given, back = _rows(a, True), _rows(b, True)
        return _same_boxes(given, back, pixels) and all(
            {*p} == {*q} and all(np.allclose(p[k], q[k], atol=pixels) for k in p)
            for (*_, p), (*_, q) in zip(map(_with_dict, given), map(_with_dict, back), strict=True)
        )

    return same


def _with_dict(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row[:2], dict(row[2]))


def _rows(sample: Sample, with_points: bool = False) -> list[tuple[Any, ...]]:
    """(label, box) of every object, and its visible points, in an order that fractions of a pixel do not change."""
    record, keypoints = sample.instances, sample.keypoints
    assert record is not None
    rows: list[tuple[Any, ...]] = []
    for n, (label, box) in enumerate(zip(record.label_ids.tolist(), record.boxes.tolist(), strict=True)):
        row: tuple[Any, ...] = (sample.labels.names[label], tuple(box))
        if with_points and keypoints is not None:
            seen = zip(keypoints.names[n], keypoints.xy[n].tolist(), keypoints.visibility[n].tolist(), strict=False)
            row += (tuple(sorted((k, (*xy, v)) for k, xy, v in seen if v)),)
        rows.append(row)
    named = (r for r in rows if r[0] != BACKGROUND)
    return sorted(named, key=lambda r: (r[0], [round(v, 1) for v in r[1]], r[2:]))


def caption(a: Sample, b: Sample) -> bool:
    """The same text."""
    return a.prompt is not None and b.prompt is not None and a.prompt.text == b.prompt.text


def depth(step: float) -> Callable[[Sample, Sample], bool]:
    """The same depth to half a step, known at the same pixels as far as 16 bits reach."""

    def same(a: Sample, b: Sample) -> bool:
        before, after = a.depth, b.depth
        assert before is not None and after is not None
        reached = before.valid & (before.depth <= 65535 * step)
        close = np.abs(before.depth - after.depth) <= step * 0.51
        tiny = (before.depth < step) & (after.depth <= step * 1.001)
        return np.array_equal(reached, after.valid) and bool((close | tiny)[reached].all())

    return same


def comparable(samples: list[Sample], way: Way, format: str) -> dict[str, Callable[[Sample, Sample], bool]]:
    """What these samples have and the format holds."""
    known = {name for s in samples for name, record in s.annotations.fields().items() if record is not None}
    holds = set(way.holds.split())
    record = [o for s in samples if (o := s.instances) is not None]
    boxed, overlap = any(o.boxed for o in record), any(o.masks.areas.sum() > o.masks.union().sum() for o in record)
    found: dict[str, Callable[[Sample, Sample], bool]] = {}
    if "caption" in holds and all(caption_of(s) is not None for s in samples):
        found["caption"] = caption
    if "semantic" in holds and "semantic" in known:
        found["semantic"] = semantic
    if "regions" in holds and "semantic" in known and "instances" not in known:
        found["regions"] = regions
    if "segments" in holds and known & {"semantic", "instances"} and not overlap:
        found["segments"] = segments
    if "instances" in known:
        if "objects" in holds and not boxed and not (overlap and format == "voc"):
            found["objects"] = objects
        if "boxes" in holds and (boxed or "objects" not in holds):
            found["boxes"] = boxes(way.pixels)
        if "points" in holds and "keypoints" in known:
            found["points"] = points(way.pixels)
    if "depth" in holds and any((d := s.depth) is not None and d.unit == "metre" for s in samples):
        found["depth"] = depth(way.step)
    return found


# ---------------------------------------------------------------------- round trips
def exported(samples: Iterable[Sample], labels: Labels, format: str, folder: Path) -> None:
    """Write all of them."""
    for _ in iter_export(samples, labels, format.split(",")[0], folder):
        pass


def cell(samples: list[Sample], labels: Labels, format: str, folder: Path) -> tuple[str, str]:
    """The verdict, and what was compared or why not."""
    way = WAYS.get(format)
    if way is None or way.reader not in READERS:
        return "no reader", ""
    if format == "yolo-pose":
        samples = [_only_with_points(s) for s in samples]
    checks = comparable(samples, way, format)
    if not set(checks) - {"caption"}:
        return "cannot hold", "image only"
    try:
        exported(samples, labels, format, folder)
    except DataError as e:
        return "cannot hold", e.what
    back = {s.image.tobytes(): s for s in read(f"{way.reader}:{folder / way.path}")}
    wrong = {n for n, same in checks.items() for s in samples if not _same(same, s, back.get(s.image.tobytes()))}
    return ("differs", ", ".join(sorted(wrong))) if wrong else ("equal", ", ".join(checks))


def _same(check: Callable[[Sample, Sample], bool], a: Sample, b: Sample | None) -> bool:
    try:
        return b is not None and check(a, b)
    except KeyError:
        return False


def _only_with_points(sample: Sample) -> Sample:
    """YOLO's pose format has the objects of labels with points only."""
    if sample.instances is None or sample.keypoints is None:
        return sample
    ids = sample.instances.label_ids.tolist()
    return keep_objects(sample, np.array([sample.labels.skeleton_of(i) is not None for i in ids], bool))


def sources(images: int, folder: Path) -> dict[str, tuple[list[Sample], Labels]]:
    """Row -> samples as its reader gives them."""
    reader = read(MINI)
    first = list(islice(reader, images))
    found = {"mini": (first, reader.labels)}
    write_store(first, folder / "store", reader.labels)
    store = read(f"store:{folder / 'store'}")
    found["store"] = (list(store), store.labels)
    for format, way in WAYS.items():
        if way.reader in READERS:
            place = folder / format.replace(", ", "-")
            one_skeleton = [_person_only(s) for s in first] if format == "yolo-pose" else first
            exported(one_skeleton, one_skeleton[0].labels, format, place)
            opened = read(f"{way.reader}:{place / way.path}")
            found[f"{way.reader} ({format})"] = (list(opened), opened.labels)
    return found


def _person_only(sample: Sample) -> Sample:
    """The same with one skeleton, which is as many as YOLO's pose format holds."""
    skeletons = dict(list(sample.labels.skeletons.items())[:1])
    labels = Labels(sample.labels.names, sample.labels.synonyms, sample.labels.stuff, skeletons)
    return Sample(sample.key, sample.image, labels, sample.prompt, **sample.annotations.fields())


def round_trips(images: int) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """The table of verdicts, and what each rests on."""
    verdicts: dict[str, dict[str, str]] = {}
    compared: dict[str, dict[str, str]] = {}
    columns = sorted({*EXPORTERS, *WAYS})
    with tempfile.TemporaryDirectory() as place:
        for row, (samples, labels) in sources(images, Path(place) / "in").items():
            cells = {c: cell(samples, labels, c, Path(place) / "out" / row / c) for c in columns}
            verdicts[row] = {c: v for c, (v, _) in cells.items()}
            compared[row] = {c: w for c, (_, w) in cells.items()}
            print(
                f"{row:28}",
                *(f"{c}: {v}" + (f" ({w})" if v == "differs" else "") for c, (v, w) in cells.items()),
                sep="  ",
            )
    return verdicts, compared


# ---------------------------------------------------------------------- how fast
def coco_export_per_second(samples: int, repeats: int = 3) -> float:
    """A store of 128x128 images with all annotations to COCO; the median of the runs, the imports not counted."""
    rates = []
    with tempfile.TemporaryDirectory() as place:
        reader = read(MINI)
        write_store(islice(reader, samples), Path(place) / "store", reader.labels)
        store = Store(Path(place) / "store")
        exported(islice(store, 8), store.labels, "coco", Path(place) / "warm")
        for n in range(repeats):
            start = time.perf_counter()
            exported(store, store.labels, "coco", Path(place) / f"coco{n}")
            rates.append(len(store) / (time.perf_counter() - start))
    return statistics.median(rates)


def elsewhere(module: str, function: str) -> Any:
    """What a benchmark beside this one measures; None, and a message, where it is not there."""
    try:
        return getattr(importlib.import_module(f"benchmarks.{module}"), function)()
    except ImportError as e:
        print(f"not measured: {module}.{function} ({e})")
        return None


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--samples", type=int, default=400)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    verdicts, compared = round_trips(options.images)
    viewer = elsewhere("viewer_speed", "viewer_speed") or {}
    figures = {
        "round_trips": verdicts,
        "coco_read_ratio": elsewhere("coco_reading", "coco_read_ratio"),
        "coco_export_per_second": round(coco_export_per_second(options.samples), 1),
        "viewer_first_page_seconds": viewer.get("viewer_first_page_seconds"),
        "viewer_filter_seconds": viewer.get("viewer_filter_seconds"),
        "compared": compared,
        "load_average_before_and_after": [round(before, 1), round(os.getloadavg()[0], 1)],
    }
    write_json(options.json, figures | stamp([0]))
    print({k: v for k, v in figures.items() if k not in ("round_trips", "compared")})


if __name__ == "__main__":
    main()
