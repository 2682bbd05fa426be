"""Other people's packages import our exports and see the same shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasetdm.exporters import export
from datasetdm.records import Sample
from datasetdm.store import write_store
from factory import LABELS

supervision = pytest.importorskip("supervision")


@pytest.fixture
def store(samples: list[Sample], tmp_path: Path) -> Path:
    write_store(samples[:4], tmp_path / "store", LABELS)
    return tmp_path / "store"


def masks(dataset: Any) -> dict[str, np.ndarray]:
    """Image's name -> mask of its one object."""
    return {Path(path).stem: found.mask[0] for path, _, found in dataset}


def test_supervision_reads_coco(store: Path, samples: list[Sample], tmp_path: Path) -> None:
    export(store, "coco", tmp_path / "out")
    annotations = str(tmp_path / "out" / "annotations" / "instances.json")
    data = supervision.DetectionDataset.from_coco(str(tmp_path / "out" / "images"), annotations, force_masks=True)
    found = masks(data)
    assert "dog" in data.classes and len(found) == 4
    assert all(np.array_equal(found[s.key], s.instances.masks.dense()[0]) for s in samples[:4])


def test_supervision_reads_yolo(store: Path, samples: list[Sample], tmp_path: Path) -> None:
    """Polygons between the centres of pixels: all but the edge is the same."""
    export(store, "yolo-seg", tmp_path / "out")
    images, labels = (str(tmp_path / "out" / name / "train") for name in ("images", "labels"))
    data = supervision.DetectionDataset.from_yolo(images, labels, str(tmp_path / "out" / "data.yaml"), force_masks=True)
    found = masks(data)
    assert list(data.classes) == list(LABELS.names) and len(found) == 4
    for s in samples[:4]:
        mask = s.instances.masks.dense()[0]
        assert (found[s.key] & mask).sum() > 0.9 * mask.sum()


def test_supervision_reads_voc(store: Path, samples: list[Sample], tmp_path: Path) -> None:
    export(store, "voc", tmp_path / "out")
    folder = tmp_path / "out"
    data = supervision.DetectionDataset.from_pascal_voc(str(folder / "JPEGImages"), str(folder / "Annotations"))
    boxes = {Path(path).stem: found.xyxy[0] for path, _, found in data}
    for s in samples[:4]:
        x, y, w, h = s.instances.boxes[0]
        assert np.abs(boxes[s.key] - (x, y, x + w, y + h)).max() <= 1
