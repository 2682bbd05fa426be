from __future__ import annotations

from pathlib import Path

import pytest

from datasetdm.errors import DataError
from datasetdm.readers import read
from labelled import yolo_folder


def test_yolo_boxes_outlines_and_points(tmp_path: Path) -> None:
    first, second = read(f"yolo:{yolo_folder(tmp_path / 'b', '1 0.25 0.5 0.5 1')}")
    objects = first.instances
    assert objects.boxed and objects.boxes.tolist() == [[0, 0, 20, 20]] and first.semantic is None
    assert first.labels.names == ("background", "dog", "hot dog") and objects.label_ids.tolist() == [2]
    assert len(second.instances) == 0 and first.prompt is not None and "hot dog" in first.prompt.text
    outline = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
    first, _ = read(f"yolo:{yolo_folder(tmp_path / 's', outline)}")
    assert not first.instances.boxed
    assert (first.semantic.ids == 1).sum() == 20 * 10
    pose = yolo_folder(tmp_path / "p", "0 0.5 0.5 0.5 0.5 0.25 0.5 2 0 0 0", kpt_shape=[2, 3])
    first, _ = read(f"yolo:{pose}")
    points = first.keypoints
    assert points.xy[0, 0].tolist() == [10, 10] and points.visibility.tolist() == [[2, 0]]


@pytest.mark.parametrize(
    ("line", "settings", "what"),
    [
        ("2 0.5 0.5 0.5 0.5", {}, "class 2"),
        ("0 0.5 0.5 0.5", {}, "3 numbers"),
        ("0 0.5 0.5 nan 0.5", {}, "no share"),
        ("0 20 0.5 0.5 0.5", {}, "no share"),
        ("0 a b c d", {}, "no line of numbers"),
        ("0 0.5 0.5 0.5 0.5 0.1 0.1 0.9 0.1 0.5", {"kpt_shape": [2, 3]}, "9 numbers"),
        ("", {"names": {1: "dog"}}, "not numbered"),
        ("", {"names": []}, "no class names"),
        ("", {"train": "../elsewhere"}, "leaves its folder"),
        ("", {"train": None}, "no split 'train'"),
        ("", {"kpt_shape": [2, 3], "kpt_names": {0: ["nose"]}}, "1 kpt_names for 2 points"),
    ],
)
def test_yolo_refuses(line: str, settings: dict[str, object], what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read(f"yolo:{yolo_folder(tmp_path, line, **settings)}")
    assert str(tmp_path) in str(caught.value)


def test_yolo_object_without_a_pixel(tmp_path: Path) -> None:
    reader = read(f"yolo:{yolo_folder(tmp_path, '0 0.5 0.5 0.001 0.001')}")
    with pytest.raises(DataError, match="covers no pixel"):
        list(reader)
