from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasetdm.errors import DataError
from datasetdm.readers import read
from datasetdm.types import IGNORE
from labelled import coco_folder


def test_coco_paints_small_on_large(tmp_path: Path) -> None:
    first, second = list(read(f"coco:{coco_folder(tmp_path)}"))
    names = first.labels.names
    ids = first.annotations["semantic"].ids
    assert names == ("background", "dog", "cat")
    assert (ids[4:10, 4:10] == 1).all() and ids[15, 15] == 2 and ids[0, 0] == 0
    assert (ids == 1).sum() == 36 and (ids == 2).sum() == 18 * 16 - 36
    assert first.annotations["instance"].label_ids.tolist() == [1, 2]
    crowd = second.annotations["semantic"].ids
    assert (crowd == IGNORE).sum() == 40 and len(second.annotations["instance"]) == 0
    assert second.key == "b b" and first.prompt is not None and first.prompt.text == "a photo of a dog and a cat"


def test_coco_finds_pictures_elsewhere(tmp_path: Path) -> None:
    path = coco_folder(tmp_path / "x")
    (tmp_path / "y").mkdir()
    for name in ("a.png", "b b.png"):
        (tmp_path / "x" / name).rename(tmp_path / "y" / name)
    assert len(list(read(f"coco:{path}", tmp_path / "y"))) == 2
    with pytest.raises(DataError, match="missing") as caught:
        read(f"coco:{path}")
    assert "--images" in str(caught.value)


def edit(kind: str, index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda c: c[kind][index].update(values)


BAD = {
    "absent image": (edit("annotations", 0, image_id=77), "names image 77"),
    "absent category": (edit("annotations", 0, category_id=77), "names category 77"),
    "outside": (edit("annotations", 0, segmentation=[[4, 4, 99, 4, 99, 10]]), "outside the picture"),
    "two points": (edit("annotations", 0, segmentation=[[4, 4, 9, 4]]), "4 numbers"),
    "nan": (edit("annotations", 0, segmentation=[[4, 4, float("nan"), 4, 9, 9]]), "finite"),
    "empty shape": (edit("annotations", 0, segmentation=[]), "empty"),
    "other size": (edit("annotations", 2, segmentation={"size": [9, 9], "counts": [81]}), r"size \[9, 9\]"),
    "twice": (edit("images", 1, id=5), "occurs twice"),
    "leaves": (edit("images", 0, file_name="../../etc/passwd"), "leaves its folder"),
    "absolute": (edit("images", 0, file_name="/etc/passwd"), "leaves its folder"),
    "wrong size": (edit("images", 0, width=31), "30x20 pixels"),
    "no picture": (edit("images", 1, file_name="none.png"), "missing"),
    "no labels": (lambda c: c.update(categories=[], annotations=[]), "label set is empty"),
    "clash": (edit("categories", 0, name="Cat"), "clash"),
    "no list": (lambda c: c.pop("images"), "no list images"),
    "list as id": (edit("annotations", 0, image_id=[5]), "wrong kind"),
    "number as name": (edit("images", 0, file_name=7), "wrong kind"),
    "size no list": (edit("annotations", 2, segmentation={"size": 5, "counts": [600]}), "run lengths of size 5"),
    "counts no numbers": (edit("annotations", 2, segmentation={"size": [20, 30], "counts": ["x"]}), "do not fill"),
    "counts too long": (edit("annotations", 2, segmentation={"size": [20, 30], "counts": [601]}), "do not fill"),
    "counts too short": (edit("annotations", 2, segmentation={"size": [20, 30], "counts": [9]}), "do not fill"),
    "huge number": (edit("annotations", 0, segmentation=[[4, 4, 10**400, 4, 9, 9]]), "finite"),
    "crowd of text": (edit("annotations", 0, iscrowd="0"), "iscrowd is '0'"),
    "file twice": (edit("images", 1, file_name="a.png"), "file name 'a.png' occurs twice"),
    "no key": (lambda c: c["annotations"][0].pop("segmentation"), "no segmentation"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_coco_is_refused_when_it_is_opened(case: str, tmp_path: Path) -> None:
    change, what = BAD[case]
    path = coco_folder(tmp_path, change)
    with pytest.raises(DataError, match=what):
        read(f"coco:{path}")


def test_same_stem_keeps_both_pictures(tmp_path: Path) -> None:
    path = coco_folder(tmp_path, edit("images", 1, file_name="a.bmp"))
    Image.open(tmp_path / "a.png").save(tmp_path / "a.bmp")
    assert [s.key for s in read(f"coco:{path}")] == ["a.png", "a.bmp"]


def test_no_coco_file_and_no_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    for name, what in (("none.json", "no such file"), ("x.json", "no JSON")):
        with pytest.raises(DataError, match=what):
            read(f"coco:{tmp_path / name}")


def with_points(content: dict[str, Any]) -> None:
    content["categories"][0] |= {"keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
    content["annotations"][0] |= {"keypoints": [5, 6, 2, 9, 9, 0], "num_keypoints": 1}


def test_coco_points_and_captions(tmp_path: Path) -> None:
    path = coco_folder(tmp_path, with_points).rename(tmp_path / "instances_x.json")
    told = {"annotations": [{"image_id": 5, "caption": "first"}, {"image_id": 5, "caption": "second"}]}
    (tmp_path / "captions_x.json").write_text(json.dumps(told))
    first, second = read(f"coco:{path}")
    points = first.annotations["keypoints"]
    assert points.names == (("nose", "tail"), ()) and points.xy[0].tolist() == [[5, 6], [0, 0]]
    assert first.labels.skeletons["dog"].edges == ((0, 1),)
    assert first.prompt is not None and first.prompt.text == "first" and first.prompt.labels == ("dog", "cat")
    assert second.prompt is not None and second.prompt.text != "first"


@pytest.mark.parametrize(
    ("points", "what"),
    [([1, 2, 2], "3 numbers"), ([1, 2, 2, float("nan"), 1, 2], "no finite"), ([1, 2, 3, 1, 1, 1], "not 0, 1 or 2")],
)
def test_coco_points_refused(points: list[float], what: str, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        with_points(content)
        content["annotations"][0]["keypoints"] = points

    with pytest.raises(DataError, match=what):
        read(f"coco:{coco_folder(tmp_path, change)}")


def test_coco_skeleton_of_other_points(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["categories"][0] |= {"keypoints": ["nose"], "skeleton": [[1, 2]]}

    with pytest.raises(DataError, match="the skeleton cannot be read"):
        read(f"coco:{coco_folder(tmp_path, change)}")


REAL = os.environ.get("DATASETDM_REAL")


@pytest.mark.skipif(not REAL, reason="DATASETDM_REAL names no folder of real files")
def test_real_coco_files() -> None:
    """12 photographs of COCO 2017: what their own JSON says."""
    folder = Path(str(REAL)) / "coco" / "annotations"
    samples = list(read(f"coco:{folder / 'instances.json'}"))
    people = list(read(f"coco:{folder / 'person_keypoints.json'}"))
    assert len(samples) == len(people) == 12
    assert all(s.prompt and s.prompt.text for s in samples)
    told = json.loads((folder / "person_keypoints.json").read_text())["annotations"]
    counted = sum(a["num_keypoints"] for a in told if not a["iscrowd"])
    assert sum(int((s.annotations["keypoints"].visibility > 0).sum()) for s in people) == counted
