"""Exports opened by packages of label tools that our own environment cannot hold (they want other versions, or a server).

Each test runs where its package is installed: `pip install datumaro ultralytics cvat-sdk label-studio-sdk fiftyone`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from datasetdm.exporters import export
from datasetdm.exporters.formats.cvat import decode_row_runs, row_runs
from datasetdm.exporters.formats.labelstudio import decode_brush
from datasetdm.recipe.corrections import read_corrections
from datasetdm.records import Labels, Sample, Skeleton
from datasetdm.store import Store, write_store
from datasetdm.transforms.split import Split
from factory import make_sample

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

POSED = Labels(("sky", "dog", "grass"), (), ("sky", "grass"), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})
HALVES = [Split(parts={"train": 0.5, "val": 0.5})]
SIZES = ((24, 32), (40, 30))


def tool(name: str) -> ModuleType:
    """A package's module, or the test is skipped."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        pytest.skip(f"no package of a label tool: {e}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("tools") / "store"
    write_store([make_sample(f"s{i}", SIZES[i % 2], i, POSED) for i in range(6)], folder, POSED)
    return Store(folder)


@pytest.fixture(scope="module")
def given(store: Store) -> dict[str, Sample]:
    return {sample.key: sample for sample in store}


def mask_of(sample: Sample) -> np.ndarray:
    assert sample.instances is not None
    return sample.instances.masks[0]


def box_of(sample: Sample) -> np.ndarray:
    assert sample.instances is not None
    return sample.instances.boxes[0]


# ---------------------------------------------------------------------- Datumaro
def items(folder: Path, format: str) -> Iterator[tuple[str, str, np.ndarray, dict[str, list[Any]]]]:
    """Key, subset, image, and annotations by their kind, of every item that Datumaro finds."""
    for item in tool("datumaro").Dataset.import_from(str(folder), format):
        kinds: dict[str, list[Any]] = {}
        for annotation in item.annotations:
            kinds.setdefault(annotation.type.name, []).append(annotation)
        yield Path(item.id).name, item.subset, item.media.data, kinds


def test_datumaro_reads_coco(store: Store, given: dict[str, Sample], tmp_path: Path) -> None:
    """With splits: it finds files by `instances_SPLIT.json`, and one without by its path."""
    export(store, "coco", tmp_path / "split", HALVES)
    found = {key: (subset, kinds) for key, subset, _, kinds in items(tmp_path / "split", "coco")}
    assert {*found} == {*given} and {subset for subset, _ in found.values()} == {"train", "val"}
    for key, (_, kinds) in found.items():
        assert np.array_equal(kinds["mask"][0].image.astype(bool), mask_of(given[key]))
    export(store, "coco", tmp_path / "whole")
    whole = list(items(tmp_path / "whole" / "annotations" / "instances.json", "coco_instances"))
    assert sorted(key for key, *_ in whole) == sorted(given)


def test_datumaro_reads_coco_panoptic(store: Store, given: dict[str, Sample], tmp_path: Path) -> None:
    export(store, "coco-panoptic", tmp_path / "out", HALVES)
    found = {key: kinds["mask"] for key, _, _, kinds in items(tmp_path / "out", "coco_panoptic")}
    assert {*found} == {*given}
    for key, segments in found.items():
        assert any(np.array_equal(s.image.astype(bool), mask_of(given[key])) for s in segments)


def test_datumaro_reads_voc(store: Store, given: dict[str, Sample], tmp_path: Path) -> None:
    export(store, "voc", tmp_path / "out")
    found = {key: kinds for key, _, _, kinds in items(tmp_path / "out", "voc")}
    assert {*found} == {*given}
    for key, kinds in found.items():
        box = kinds["bbox"][0]
        assert np.abs(np.array([box.x, box.y, box.w, box.h]) - box_of(given[key])).max() <= 1
        assert any(np.array_equal(m.image.astype(bool), mask_of(given[key])) for m in kinds["mask"])


def test_datumaro_reads_yolo(store: Store, given: dict[str, Sample], tmp_path: Path) -> None:
    export(store, "yolo-detect", tmp_path / "out")
    found = {key: kinds["bbox"][0] for key, _, _, kinds in items(tmp_path / "out", "yolo")}
    assert {*found} == {*given}
    for key, box in found.items():
        assert np.allclose([box.x, box.y, box.w, box.h], box_of(given[key]), atol=0.02)


@pytest.mark.parametrize("steps", [[], HALVES])
def test_datumaro_reads_cvat(store: Store, given: dict[str, Sample], steps: list[Split], tmp_path: Path) -> None:
    export(store, "cvat", tmp_path / "out", steps)
    found = {key: (subset, image, kinds) for key, subset, image, kinds in items(tmp_path / "out", "cvat")}
    assert {*found} == {*given} and len({subset for subset, _, _ in found.values()}) == 1 + len(steps)
    for key, (_, image, kinds) in found.items():
        x, y, w, h = box_of(given[key])
        assert image.shape[:2] == given[key].size and len(kinds["points"]) == 2
        assert np.allclose(kinds["polygon"][0].get_bbox(), (x, y, w, h))


# ---------------------------------------------------------------------- Ultralytics
@pytest.mark.parametrize(
    ("format", "task"), [("yolo-detect", "detect"), ("yolo-seg", "segment"), ("yolo-pose", "pose")]
)
def test_ultralytics_checks_yolo(
    store: Store, given: dict[str, Sample], format: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its check of `data.yaml`, and the labels that it would train on; it drops what is wrong with a warning."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    utils, dataset = tool("ultralytics.data.utils"), tool("ultralytics.data.dataset")
    export(store, format, tmp_path / "out")
    data = utils.check_det_dataset(str(tmp_path / "out" / "data.yaml"), autodownload=False)
    assert list(data["names"].values()) == (["dog"] if task == "pose" else list(POSED.names))
    found = dataset.YOLODataset(img_path=data["train"], data=data, task=task, augment=False, imgsz=64).labels
    assert {Path(label["im_file"]).stem for label in found} == {*given}
    for label in found:
        sample = given[Path(label["im_file"]).stem]
        (h, w), (x, y, bw, bh) = sample.size, box_of(sample)
        assert label["shape"] == sample.size and len(label["cls"]) == 1
        assert np.allclose(label["bboxes"], [[(x + bw / 2) / w, (y + bh / 2) / h, bw / w, bh / h]], atol=1e-6)
        if task == "pose":
            assert sample.keypoints is not None
            assert np.allclose(label["keypoints"][0, 0], [*(sample.keypoints.xy[0, 0] / (w, h)), 2])
        assert len(label["segments"]) == (task == "segment")


# ---------------------------------------------------------------------- CVAT
def test_cvat_masks(given: dict[str, Sample]) -> None:
    """What its SDK makes of a mask is what we write of it, and the other way round."""
    masks = tool("cvat_sdk.masks")
    for sample in given.values():
        assert sample.instances is not None
        inside, (left, top) = sample.instances.masks.crop(0)
        h, w = inside.shape
        theirs = [int(v) for v in masks.encode_mask(mask_of(sample))]
        assert theirs == [*row_runs(inside), left, top, left + w - 1, top + h - 1]
        assert np.array_equal(decode_row_runs(theirs[:-4], inside.shape), inside)


def test_a_mask_by_cvat_comes_back(store: Store, tmp_path: Path) -> None:
    masks = tool("cvat_sdk.masks")
    mask = np.zeros(SIZES[0], bool)
    mask[3:9, 4:20] = True
    mask[5, 6:9] = False
    export(store, "cvat", tmp_path / "cvat")
    tree = ElementTree.parse(tmp_path / "cvat" / "annotations.xml")
    image = next(tree.iter("image"))
    *runs, left, top, right, bottom = (int(v) for v in masks.encode_mask(mask))
    box = {"left": left, "top": top, "width": right - left + 1, "height": bottom - top + 1}
    image.remove(image[0])
    place = {k: str(v) for k, v in box.items()}
    image.append(ElementTree.Element("mask", {"label": "dog", "rle": ", ".join(map(str, runs)), **place}))
    tree.write(tmp_path / "annotations.xml")
    found = next(read_corrections(store, tmp_path / "annotations.xml"))
    assert found.change is not None and np.array_equal(mask_of(found.change(store[0])), mask)


# ---------------------------------------------------------------------- Label Studio
def finished(store: Store, folder: Path) -> list[dict[str, Any]]:
    """The tasks as if somebody had submitted the predictions."""
    export(store, "label-studio", folder)
    tasks = json.loads((folder / "tasks.json").read_text())
    for n, task in enumerate(tasks):
        result = task.pop("predictions")[0]["result"]
        task |= {
            "id": n,
            "annotations": [{"id": n, "result": result, "completed_by": {"id": 1}, "was_cancelled": False}],
        }
    return tasks


def test_label_studio_brushes(store: Store, given: dict[str, Sample], tmp_path: Path) -> None:
    brush = tool("label_studio_sdk.converter.brush")
    for task in finished(store, tmp_path / "ls"):
        sample, result = given[task["data"]["key"]], task["annotations"][0]["result"][0]
        theirs = np.reshape(brush.decode_rle(result["value"]["rle"]), (*sample.size, 4))[..., 3] > 0
        assert np.array_equal(theirs, mask_of(sample))


def test_a_brush_by_label_studio_comes_back(store: Store, tmp_path: Path) -> None:
    brush = tool("label_studio_sdk.converter.brush")
    rng = np.random.default_rng(0)
    mask = rng.random(SIZES[0]) < 0.5
    packed = brush.mask2rle(mask.astype(np.uint8) * 255)
    assert np.array_equal(decode_brush(packed, SIZES[0]), mask)
    tasks = finished(store, tmp_path / "ls")
    tasks[0]["annotations"][0]["result"][0]["value"]["rle"] = packed
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    found = next(read_corrections(store, tmp_path / "back.json"))
    assert found.change is not None and np.array_equal(mask_of(found.change(store[0])), mask)


def test_label_studio_converts_it(store: Store, given: dict[str, Sample], tmp_path: Path) -> None:
    """Its own converter to COCO finds the points."""
    converter = tool("label_studio_sdk.converter.converter")
    (tmp_path / "done.json").write_text(json.dumps(finished(store, tmp_path / "ls")))
    config = (tmp_path / "ls" / "config.xml").read_text()
    made = converter.Converter(config, str(tmp_path / "ls"), download_resources=False)
    made.convert_to_coco(str(tmp_path / "done.json"), str(tmp_path / "coco"), is_dir=False)
    found = json.loads((tmp_path / "coco" / "result.json").read_text())
    points = [a["keypoints"] for a in found["annotations"] if "keypoints" in a]
    assert len(points) == len(given)
    for sample, values in zip(given.values(), points, strict=True):
        assert sample.keypoints is not None
        assert np.allclose(values[:2], sample.keypoints.xy[0, 0], atol=0.5) and values[2:] == [2, 0, 0, 0]


def test_label_studio_accepts_config_and_tasks(store: Store, tmp_path: Path) -> None:
    interface = tool("label_studio_sdk.label_interface")
    export(store, "label-studio", tmp_path / "ls")
    found = interface.LabelInterface((tmp_path / "ls" / "config.xml").read_text())
    found.validate()
    for task in json.loads((tmp_path / "ls" / "tasks.json").read_text()):
        assert found.validate_prediction(task["predictions"][0])


# ---------------------------------------------------------------------- FiftyOne
def test_fiftyone_reads_its_samples(store: Store, given: dict[str, Sample], tmp_path: Path) -> None:
    """Sample by sample, as its importer does: the importer itself wants a MongoDB."""
    samples, json_util = tool("fiftyone.core.sample"), tool("bson.json_util")
    export(store, "fiftyone", tmp_path / "out")
    rows = json_util.loads((tmp_path / "out" / "samples.json").read_text())["samples"]
    assert {row["key"] for row in rows} == {*given}
    for row in rows:
        found, sample = samples.Sample.from_dict(row), given[row["key"]]
        dog = found.objects.detections[0]
        assert dog.label == "dog" and np.array_equal(dog.mask, sample.instances.masks.crop(0)[0])
        assert np.array_equal(found.semantic.mask, sample.semantic.ids + 1)
        assert np.array_equal(found.depth.map, sample.depth.depth)
        assert np.allclose(found.keypoints.keypoints[0].points[0], sample.keypoints.xy[0, 0] / sample.size[::-1])
