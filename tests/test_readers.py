from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from conftest import LABELS
from datasetdm.codecs import decode_png
from datasetdm.errors import ConfigError, DataError
from datasetdm.readers import READERS, Reader, read
from datasetdm.readers.images import ImagesSource
from datasetdm.readers.mini import CLASSES, PACKAGED
from datasetdm.readers.overview import part, summarise
from datasetdm.store import write_store
from datasetdm.types import IGNORE, Sample


def coco_folder(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    """Two pictures, a dog on a cat, a crowd; `change` edits the annotations before they are written."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b b.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    images = [dict(id=n, file_name=f, width=30, height=20) for n, f in ((5, "a.png"), (9, "b b.png"))]
    box = [[2, 2, 20, 2, 20, 18, 2, 18]]
    annotations = [
        dict(id=1, image_id=5, category_id=3, segmentation=[[4, 4, 10, 4, 10, 10, 4, 10]], iscrowd=0),
        dict(id=2, image_id=5, category_id=7, segmentation=box, iscrowd=0),
        dict(id=3, image_id=9, category_id=7, segmentation={"size": [20, 30], "counts": [0, 40, 560]}, iscrowd=1),
    ]
    content = dict(images=images, annotations=annotations, categories=[dict(id=3, name="dog"), dict(id=7, name="cat")])
    change(content)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def yolo_folder(folder: Path, *lines: str, **settings: object) -> Path:
    """Two pictures, the first with these lines, the second without a label file."""
    for name in ("a.png", "b b.png"):
        (folder / "images" / "train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(folder / "images" / "train" / name)
    (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "labels" / "train" / "a.txt").write_text("\n".join(lines))
    content = {"train": "images/train", "names": {0: "dog", 1: "hot dog"}} | settings
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder / "data.yaml"


@pytest.fixture(params=sorted(READERS))
def any_reader(request: pytest.FixtureRequest, samples: list[Sample], tmp_path: Path) -> Reader:
    """Every reader, on data of its own."""
    match request.param:
        case "store":
            write_store(samples, tmp_path / "s", LABELS)
            return read(f"store:{tmp_path / 's'}")
        case "coco":
            return read(f"coco:{coco_folder(tmp_path)}")
        case "yolo":
            return read(f"yolo:{yolo_folder(tmp_path, '0 0.25 0.5 0.5 1', '1 0.75 0.5 0.25 0.5')}")
        case "images":
            return read(f"images:{yolo_folder(tmp_path).parent}")
        case "mini":
            return read("mini:test")
    raise AssertionError(f"write data for {request.param} here")


def test_contract(any_reader: Reader) -> None:
    """What every reader promises; a new one is in the table and so in this test."""
    assert isinstance(any_reader, Reader)
    first, second = list(any_reader), list(any_reader)
    assert len(first) == len(any_reader) > 0
    assert [a.digest() for a in first] == [b.digest() for b in second]
    assert len({s.key for s in first}) == len(first)
    for sample in first:
        assert sample.labels == any_reader.labels
        assert sample.annotations or isinstance(any_reader.source, ImagesSource)
    summary = summarise(first, any_reader.labels)
    assert summary.samples == len(first) == sum(summary.sizes.values())
    few = part(any_reader, 1, balance=True)
    assert len(list(few)) == len(few) == 1 and isinstance(few, Reader)


def test_mini_matches_its_files() -> None:
    rows = pq.read_table(PACKAGED / "train-000000.parquet").to_pylist()
    samples = list(read("mini:train"))
    assert len(samples) == len(rows) == 100
    by_name = {v: k for k, v in CLASSES.items()}
    for row, sample in zip(rows[:20], samples, strict=False):
        truth = decode_png(row["classes"], np.uint8)
        ids = sample.annotations["semantic"].ids
        known = ids != IGNORE
        back = np.array([by_name[n] for n in sample.labels.names])[np.where(known, ids, 0)]
        assert np.array_equal(back[known], truth[known])
        assert not np.isin(truth[~known], list(CLASSES)).any()
        depth = decode_png(row["depth"], np.uint16)
        assert np.allclose(sample.annotations["depth"].depth, depth / 256)
        assert len(sample.annotations["instance"]) == len(np.unique(decode_png(row["instances"], np.uint8))) - 1
        assert sample.prompt is not None and sample.prompt.text == row["caption"]


def test_the_two_packaged_sets_differ() -> None:
    keys = [{s.key for s in read(f"mini:{n}")} for n in ("train", "test")]
    assert not keys[0] & keys[1]


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


def test_foreign_parquet_is_no_mini_world(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples[:1], tmp_path / "s", LABELS)
    with pytest.raises(DataError, match="no labelled renders"):
        read(f"mini:{tmp_path / 's' / 'data' / 'shard'}")


def test_no_coco_file_and_no_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    for name, what in (("none.json", "no such file"), ("x.json", "no JSON")):
        with pytest.raises(DataError, match=what):
            read(f"coco:{tmp_path / name}")


def test_formats_are_named() -> None:
    with pytest.raises(ConfigError, match="names no format"):
        read("annotations.json")
    with pytest.raises(ConfigError, match="did you mean 'coco'"):
        read("cocoo:x.json")
    with pytest.raises(DataError, match="no mini-world files"):
        read("mini:nowhere/x")


@pytest.mark.skipif("DATASETDM_REAL" not in os.environ, reason="needs DATASETDM_REAL, a folder with true files")
def test_true_coco_files() -> None:
    root = Path(os.environ["DATASETDM_REAL"]) / "coco"
    path = next(root.glob("annotations/*instances*.json"))
    reader = read(f"coco:{path}", root / "images")
    objects = sum(len(s.annotations["instance"]) for s in reader)
    total = [a for a in json.loads(path.read_text())["annotations"] if not a.get("iscrowd")]
    assert len(reader) > 5 and objects == len(total)


# ---------------------------------------------------------------------- YOLO
def test_yolo_boxes_outlines_and_points(tmp_path: Path) -> None:
    first, second = read(f"yolo:{yolo_folder(tmp_path / 'b', '1 0.25 0.5 0.5 1')}")
    objects = first.annotations["instance"]
    assert objects.boxed and objects.boxes.tolist() == [[0, 0, 20, 20]] and "semantic" not in first.annotations
    assert first.labels.names == ("background", "dog", "hot dog") and objects.label_ids.tolist() == [2]
    assert len(second.annotations["instance"]) == 0 and first.prompt is not None and "hot dog" in first.prompt.text
    outline = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
    first, _ = read(f"yolo:{yolo_folder(tmp_path / 's', outline)}")
    assert not first.annotations["instance"].boxed
    assert (first.annotations["semantic"].ids == 1).sum() == 20 * 10
    pose = yolo_folder(tmp_path / "p", "0 0.5 0.5 0.5 0.5 0.25 0.5 2 0 0 0", kpt_shape=[2, 3])
    first, _ = read(f"yolo:{pose}")
    points = first.annotations["keypoints"]
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


# ---------------------------------------------------------------------- COCO's keypoints and captions
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


# ---------------------------------------------------------------------- overview
def test_a_balanced_part_holds_rare_labels() -> None:
    reader = read("mini:train")
    small = part(reader, 20, balance=True, seed=3)
    assert [s.key for s in small] == [s.key for s in part(reader, 20, balance=True, seed=3)]
    assert [s.key for s in small] != [s.key for s in part(reader, 20, balance=True, seed=4)]
    least = [min(summarise(p, p.labels).pictures[n] for n in p.labels.names) for p in (small, part(reader, 20, seed=3))]
    assert least[0] >= 1 > least[1]


def test_captions_beside_pictures(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path).parent / "images" / "train"
    (folder / "a.txt").write_text("a dark room\n")
    first, second = read(f"images:{folder}")
    assert first.prompt is not None and first.prompt.text == "a dark room" and second.prompt is None
    assert (first.key, second.key) == ("a.png", "b b.png")
    with pytest.raises(DataError, match="no pictures"):
        read(f"images:{tmp_path / 'labels'}")


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
