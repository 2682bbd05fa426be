"""Cityscapes, and DeepFashion-MultiModal."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from datasetdm.errors import DataError
from datasetdm.readers import read
from datasetdm.readers.formats.cityscapes import CLASSES, GROUPS
from datasetdm.records import IGNORE
from labelled import cityscapes_folder, deepfashion_folder, save

REAL = os.environ.get("DATASETDM_REAL")
LABELS = "gtFine/train/x/x_000001_000002_gtFine_{}.png"


def test_classes_and_objects(tmp_path: Path) -> None:
    (sample,) = read(f"cityscapes:{cityscapes_folder(tmp_path)}@train")
    names, ids = sample.labels.names, sample.semantic.ids
    assert len(names) == 19 and sample.key == "x/x_000001_000002"
    assert (ids[:4] == IGNORE).all() and (ids[19] == IGNORE).all()  # parking, own vehicle
    assert names[ids[5, 5]] == "road" and {names[i] for i in ids[8:12].ravel()} == {"car"}
    objects = sample.instances
    assert [names[i] for i in objects.label_ids] == ["car"] and objects.boxes.tolist() == [[0, 8, 10, 4]]
    assert "road" in sample.labels.stuff and "car" not in sample.labels.stuff


def test_groups(tmp_path: Path) -> None:
    """The 8 groups: parking is flat."""
    (sample,) = read(f"cityscapes:{cityscapes_folder(tmp_path)}@train+groups")
    names, ids = sample.labels.names, sample.semantic.ids
    assert len(names) == 8 and {names[i] for i in ids[:8].ravel()} == {"flat"} and (ids[19] == IGNORE).all()
    assert [names[i] for i in sample.instances.label_ids] == ["vehicle"]
    assert sorted(i for ids in GROUPS.values() for i in ids) == list(range(4, 34))
    assert {*CLASSES} <= {i for ids in GROUPS.values() for i in ids}


def test_every_kind_of_label_file_says_the_same(tmp_path: Path) -> None:
    (first,) = read(f"cityscapes:{cityscapes_folder(tmp_path)}")
    (tmp_path / LABELS.format("labelIds")).unlink()
    (second,) = read(f"cityscapes:{tmp_path}")
    (tmp_path / LABELS.format("instanceIds")).unlink()
    (third,) = read(f"cityscapes:{tmp_path}")
    (tmp_path / LABELS.format("labelTrainIds")).unlink()
    maps = [s.semantic.ids for s in (first, second, third)]
    assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[0], maps[2])
    assert third.instances is None
    with pytest.raises(DataError, match="label file is missing"):
        read(f"cityscapes:{tmp_path}")


def test_cityscapes_refuses(tmp_path: Path) -> None:
    cityscapes_folder(tmp_path)
    for data, what in (("@val", "no such folder"), ("@../x", "leaves its folder"), ("@train+all", "no option 'all'")):
        with pytest.raises(DataError, match=what):
            read(f"cityscapes:{tmp_path}{data}")
    save(tmp_path / LABELS.format("labelIds"), np.full((20, 30), 99, np.uint8))
    with pytest.raises(DataError, match="unknown classes: 99"):
        list(read(f"cityscapes:{tmp_path}"))


@pytest.mark.skipif(not REAL, reason="DATASETDM_REAL names no folder of real files")
def test_real_cityscapes_folder() -> None:
    root = Path(str(REAL)) / "fixtures" / "cityscapes_dataset" / "dataset"
    samples = list(read(f"cityscapes:{root}@test"))
    assert len(samples) == 2 and all(s.semantic is not None for s in samples)


# ---------------------------------------------------------------------- DeepFashion-MultiModal
def test_deepfashion(tmp_path: Path) -> None:
    (sample,) = read(f"deepfashion:{deepfashion_folder(tmp_path)}")
    names, ids = sample.labels.names, sample.semantic.ids
    assert names[24:] == ("person",) and ids[0, 0] == 0 and ids.max() < 24
    assert names[ids[7, 12]] == "top" and names[ids[3, 13]] == "hair"
    points, objects = sample.keypoints, sample.instances
    assert objects.label_ids.tolist() == [24] and np.array_equal(objects.masks[0], ids != 0)
    assert points.xy.shape == (1, 21, 2) and points.xy[0, 0].tolist() == [7, 9]
    assert points.visibility[0].tolist() == [2] * 18 + [1, 0, 0] and points.xy[0, 19].tolist() == [0, 0]
    assert (
        sample.prompt is not None
        and sample.prompt.text == "a man in a top"
        and sample.prompt.labels == ("top", "hair", "person")
    )


@pytest.mark.parametrize(
    ("kind", "line", "what"),
    [
        ("loc", "MEN-a.jpg 1 2 3", "not 21"),
        ("loc", "MEN-a.jpg " + "nan " * 42, "not finite"),
        ("loc", "MEN-a.jpg " + "x " * 42, "no numbers"),
        ("vis", "MEN-a.jpg " + "3 " * 21, "visibility unknown"),
        ("vis", "MEN-a.jpg 1\nMEN-a.jpg 1", "occurs twice"),
    ],
)
def test_deepfashion_points_refused(kind: str, line: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what):
        read(f"deepfashion:{deepfashion_folder(tmp_path, {kind: line})}")


def test_deepfashion_unknown_class(tmp_path: Path) -> None:
    save(deepfashion_folder(tmp_path) / "segm" / "MEN-a_segm.png", np.full((20, 30), 24, np.uint8))
    with pytest.raises(DataError, match="unknown classes: 24"):
        list(read(f"deepfashion:{tmp_path}"))
