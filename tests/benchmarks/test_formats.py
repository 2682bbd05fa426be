"""The benchmark of the formats judges rightly: what comes back is equal, what is lost or changed is seen."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from datasetdm.records import DepthMap, Instances, Keypoints, Labels, Sample, SemanticMap, Skeleton
from factory import make_sample

POSED = Labels(("sky", "dog", "grass"), (), ("sky", "grass"), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})


@pytest.fixture
def formats() -> ModuleType:
    return importlib.import_module("benchmarks.formats")


@pytest.fixture
def samples() -> list[Sample]:
    return [make_sample(f"s{i}", seed=i, labels=POSED) for i in range(3)]


@pytest.mark.parametrize(
    "format", ["coco", "coco-panoptic", "depth-kitti", "masks", "masks, depth", "voc", "yolo-pose"]
)
def test_what_comes_back_is_equal(format: str, formats: ModuleType, samples: list[Sample], tmp_path: Path) -> None:
    verdict, compared = formats.cell(samples, POSED, format, tmp_path / "out")
    assert verdict == "equal" and compared


def test_what_cannot_be_held(formats: ModuleType, samples: list[Sample], tmp_path: Path) -> None:
    deep = [Sample(s.key, s.image, s.labels, s.prompt, depth=s.depth) for s in samples]
    assert formats.cell(deep, POSED, "voc", tmp_path / "a") == ("cannot hold", "image only")
    boxed = [replace(s, instances=replace(s.instances, boxed=True)) for s in samples]
    assert formats.cell(boxed, POSED, "yolo-seg", tmp_path / "b")[0] == "cannot hold"
    assert formats.cell(samples, POSED, "cvat", tmp_path / "c") == ("no reader", "")


def moved(record: Any) -> Any:
    """The record with something slightly wrong."""
    match record:
        case SemanticMap():
            return SemanticMap(np.where(record.ids == 1, 2, record.ids))
        case DepthMap():
            return DepthMap(record.depth + np.float32(0.01), record.valid)
        case Instances():
            return Instances.from_masks(np.roll(record.masks.dense(), 1, 2), record.label_ids)
        case Keypoints():
            return replace(record, xy=record.xy + 1)


CHANGES: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "label": ("masks", "semantic", moved),
    "depth": ("depth-kitti", "depth", moved),
    "mask": ("coco", "instances", moved),
    "box": ("yolo-detect", "instances", moved),
    "segment": ("coco-panoptic", "instances", moved),
    "point": ("yolo-pose", "keypoints", moved),
}


@pytest.mark.parametrize("case", sorted(CHANGES))
def test_what_changed_differs(
    case: str, formats: ModuleType, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter that writes one sample wrongly is caught."""
    format, name, change = CHANGES[case]
    honest = formats.exported

    def dishonest(given: list[Sample], *rest: Any) -> None:
        last = given[-1]
        honest([*given[:-1], replace(last, **{name: change(getattr(last, name))})], *rest)

    monkeypatch.setattr(formats, "exported", dishonest)
    assert formats.cell(samples, POSED, format, tmp_path / "out")[0] == "differs"


def test_a_lost_picture_differs(
    formats: ModuleType, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = formats.exported
    monkeypatch.setattr(formats, "exported", lambda given, *rest: honest(given[1:], *rest))
    assert formats.cell(samples, POSED, "voc", tmp_path / "out")[0] == "differs"


def test_an_absent_benchmark_is_said(formats: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert formats.elsewhere("no_such_benchmark", "f") is None
    assert "not measured: no_such_benchmark.f" in capsys.readouterr().out
