from __future__ import annotations

import os
import shutil
import time
from itertools import pairwise
from pathlib import Path

import pytest

from datasetdm.errors import DataError
from datasetdm.readers import read
from labelled import write, yolo_folder


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
        ("nan 0.5 0.5 0.5 0.5", {}, "class nan"),
        ("inf 0.5 0.5 0.5 0.5", {}, "class inf"),
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


def test_yolo_objects_smaller_than_a_pixel(tmp_path: Path) -> None:
    """They keep the pixel in their middle; one without any area is an error."""
    first, _ = read(f"yolo:{yolo_folder(tmp_path, '0 0.51 0.51 0.001 0.001')}")
    assert first.instances.masks.boxes.tolist() == [[20, 10, 1, 1]]
    assert first.instances.boxes.tolist() == [[20.38, 10.19, 0.04, 0.02]]
    with pytest.raises(DataError, match="covers no pixel"):
        list(read(f"yolo:{yolo_folder(tmp_path, '0 0.5 0.5 0 0.5')}"))


# ---------------------------------------------------------------------- files as other tools leave them
BOX = "0 0.5 0.5 0.5 0.5"


@pytest.mark.parametrize("labels", ["images/train", "labels/train", "Labels/train", "beside"])
def test_label_files_are_found_in_any_usual_place(labels: str, tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX)
    if labels == "beside":  # a folder that is not called images
        shutil.rmtree(tmp_path / "labels")
        (tmp_path / "images").rename(tmp_path / "Photos")
        write(tmp_path / "Photos" / "train" / "a.txt", BOX)
        path.write_text(path.read_text().replace("images/train", "Photos/train"))
    else:
        moved = tmp_path / labels / "a.txt"
        moved.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / "train" / "a.txt").rename(moved)
    assert [len(s.instances) for s in read(f"yolo:{path}")] == [1, 0]


def test_no_label_file_at_all_is_an_error(tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX)
    (tmp_path / "labels" / "train" / "a.txt").rename(tmp_path / "a.txt")
    with pytest.raises(DataError, match="none of the 2 images has a label file") as caught:
        read(f"yolo:{path}")
    assert "remedy" in str(caught.value)


@pytest.mark.parametrize("name", ["c.txt", "b b.json"])
def test_a_label_file_of_no_image_is_an_error(name: str, tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX)
    write(tmp_path / "labels" / "train" / "classes.txt", "dog\n")
    assert len(read(f"yolo:{path}")) == 2
    write(tmp_path / "labels" / "train" / name, "{}")
    with pytest.raises(DataError, match="belongs to no image"):
        read(f"yolo:{path}")
    reader = read(f"yolo:{path}", on_error="skip")
    assert len(reader) == 2 and len(reader.skipped) == 1


def test_a_list_of_some_images_leaves_the_others_alone(tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX, train="train.txt")
    write(tmp_path / "train.txt", "images/train/b b.png\nimages/train/a.png\n")
    write(tmp_path / "labels" / "train" / "b b.txt", BOX)
    write(tmp_path / "train.txt", "images/train/b b.png\n")
    assert [s.key for s in read(f"yolo:{path}")] == ["b b"]


@pytest.mark.parametrize(
    "names", ["[no, on]", "{0: no, 1: on}", "{'0': no, 1: on}", "[2024-01-01, 0x1F]", "[1e3, 99999999999999999999]"]
)
def test_class_names_are_texts(names: str, tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX)
    path.write_text(f"train: images/train\nnames: {names}\n")
    expected = [n.split(":")[-1].strip(" '") for n in names.strip("[]{}").split(",")]
    assert list(read(f"yolo:{path}").labels.names) == ["background", *expected]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("names: [a]\ntrain: images/train\nkpt_shape: [1000000000, 3]", "kpt_shape cannot be read"),
        ("names: [a]\ntrain: images/train\nkpt_shape: [1.5, 3]", "kpt_shape cannot be read"),
        ("names: [a]\ntrain: images/train\nkpt_shape: no", "kpt_shape cannot be read"),
        ("names: [a]\ntrain: images/train\nkpt_shape: [2, 3]\nkpt_names: 5", "kpt_names cannot be read"),
        ("names: {a: 0}\ntrain: images/train", "names cannot be read"),
        ("names: [[a]]\ntrain: images/train", "names cannot be read"),
        ("names: [a]\ntrain: {b: c}", "train cannot be read"),
        ("names: [a]\ntrain: " + "[" * 5000, "no YAML"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))
         + "names: [x]\ntrain: *i\n", "train cannot be read"),
    ],
)  # fmt: skip
def test_odd_settings_are_refused_at_once(text: str, what: str, tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX)
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(DataError, match=what):
        read(f"yolo:{path}")
    assert time.process_time() - start < 5


def test_roboflow_writes_one_folder_too_high(tmp_path: Path) -> None:
    """`../images/train`, which is read beside data.yaml, unless it leads out of the folder for good."""
    path = yolo_folder(tmp_path, BOX, train="../images/train")
    assert [len(s.instances) for s in read(f"yolo:{path}")] == [1, 0]
    path.write_text(path.read_text().replace("../images/train", "../../images/train"))
    with pytest.raises(DataError, match="leaves its folder"):
        read(f"yolo:{path}")


# ---------------------------------------------------------------------- what Ultralytics reads, too
def test_boxes_and_outlines_in_one_file_are_boxes(tmp_path: Path) -> None:
    outline = "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
    reader = read(f"yolo:{yolo_folder(tmp_path, BOX, outline)}")
    first, _ = reader
    assert first.instances.boxed and first.instances.boxes.tolist() == [[10, 5, 20, 10]] * 2 and first.semantic is None
    assert "label files of boxes and outlines" in reader.source.notes[0]


def test_a_path_that_is_not_there_and_a_folder_instead_of_data_yaml(tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX, path="../datasets/coco8")
    reader = read(f"yolo:{tmp_path}")
    assert len(list(reader)) == 2 and "coco8 is not there" in reader.source.notes[0]
    path.rename(tmp_path / "a.yaml")
    assert len(read(f"yolo:{tmp_path}@train")) == 2
    shutil.copy(tmp_path / "a.yaml", tmp_path / "b.yaml")
    with pytest.raises(DataError, match=r"holds 2 such files: a\.yaml, b\.yaml") as caught:
        read(f"yolo:{tmp_path}")
    assert "name one" in str(caught.value)
    with pytest.raises(DataError, match="nothing in it looks like"):
        read(f"yolo:{tmp_path / 'images'}")


def test_names_and_their_number(tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX)
    path.write_text("train: images/train\nnc: 2\n")
    assert read(f"yolo:{path}").labels.names == ("background", "class_0", "class_1")
    path.write_text("train: images/train\nnc: 3\nnames: [dog, cat]\n")
    with pytest.raises(DataError, match="nc is 3, and there are 2 names"):
        read(f"yolo:{path}")


def test_points_and_boxes_a_little_outside(tmp_path: Path) -> None:
    pose = yolo_folder(tmp_path, "0 0.5 0.5 1.005 1 1.004 0.5 2 0.5 0.5 1", kpt_shape=[2, 3])
    first, _ = read(f"yolo:{pose}")
    assert first.keypoints.xy[0].tolist() == [[40, 10], [20, 10]] and first.instances.boxes.tolist() == [[0, 0, 40, 20]]


def test_hidden_and_capital_label_files(tmp_path: Path) -> None:
    path = yolo_folder(tmp_path, BOX)
    labels = tmp_path / "labels" / "train"
    write(labels / "._a.txt", "\0")
    (labels / "a.txt").rename(labels / "a.TXT")
    assert [len(s.instances) for s in read(f"yolo:{path}")] == [1, 0]
    os.mkfifo(labels / "b b.txt")
    with pytest.raises(DataError, match="device or a pipe"):
        read(f"yolo:{path}")
