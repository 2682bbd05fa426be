from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as reference

from datasetdm.errors import DataError
from datasetdm.io.codecs import rle_counts
from datasetdm.readers import read
from datasetdm.readers.coco_shapes import outlines_good
from datasetdm.records import IGNORE
from factory import known
from labelled import coco_folder, lvis_folder, noise_image, panoptic_folder, save, write

REAL = os.environ.get("DATASETDM_REAL")


def test_coco_paints_small_on_large(tmp_path: Path) -> None:
    first, second = list(read(f"coco:{coco_folder(tmp_path)}"))
    names = first.labels.names
    ids = first.semantic.ids
    assert names == ("background", "dog", "cat")
    assert (ids[4:10, 4:10] == 1).all() and ids[15, 15] == 2 and ids[0, 0] == 0
    assert (ids == 1).sum() == 36 and (ids == 2).sum() == 18 * 16 - 36
    assert first.instances.label_ids.tolist() == [1, 2]
    crowd = second.semantic.ids
    assert (crowd == IGNORE).sum() == 40 and second.instances.crowd.tolist() == [True]
    assert second.instances.masks.areas.tolist() == [40] and second.annotations.labels_in() == {0}
    assert second.key == "b b" and first.prompt is not None and first.prompt.text == "a photo of a dog and a cat"


def test_coco_finds_images_elsewhere(tmp_path: Path) -> None:
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
    "outside": (edit("annotations", 0, segmentation=[[4, 4, 99, 4, 99, 10]]), "outside the image"),
    "two points": (edit("annotations", 0, segmentation=[[4, 4, 9, 4]]), "no polygon has three points"),
    "nan": (edit("annotations", 0, segmentation=[[4, 4, float("nan"), 4, 9, 9]]), "finite"),
    "empty shape": (edit("annotations", 0, segmentation=[]), "empty"),
    "other size": (edit("annotations", 2, segmentation={"size": [9, 9], "counts": [81]}), r"size \[9, 9\]"),
    "twice": (edit("images", 1, id=5), "occurs twice"),
    "leaves": (edit("images", 0, file_name="../../etc/passwd"), "leaves its folder"),
    "absolute": (edit("images", 0, file_name="/etc/passwd"), "leaves its folder"),
    "wrong size": (edit("images", 0, width=31), "30x20 pixels"),
    "no image": (edit("images", 1, file_name="none.png"), "missing"),
    "no labels": (lambda c: c.update(categories=[], annotations=[]), "label set is empty"),
    "no annotation": (lambda c: c.update(annotations=[]), "none of the 2 images has an annotation"),
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
    "annotation twice": (edit("annotations", 2, id=1), "annotation id 1 occurs twice"),
    "no area": (edit("annotations", 0, segmentation=[[4, 4, 9, 4, 14, 4]]), "cover no pixel"),
    "no run": (edit("annotations", 2, segmentation={"size": [20, 30], "counts": [600]}), "no pixel of the object"),
    "number as text": (edit("annotations", 0, segmentation=[[4, 4, "9", 4, 9, 9]]), "finite"),
    "infinite": (edit("annotations", 0, segmentation=[[4, 4, float("-inf"), 4, 9, 9]]), "finite"),
    "no name": (edit("images", 0, file_name=""), "leaves its folder"),
    "huge image": (edit("images", 0, width=10**9), "size 1000000000x20"),
    "list of lists": (lambda c: c["annotations"].append([1]), "no image_id"),
    "no key": (lambda c: c["annotations"][0].pop("segmentation"), "no segmentation"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_coco_is_refused_when_it_is_opened(case: str, tmp_path: Path) -> None:
    change, what = BAD[case]
    path = coco_folder(tmp_path, change)
    with pytest.raises(DataError, match=what):
        read(f"coco:{path}")


def test_same_stem_keeps_both_images(tmp_path: Path) -> None:
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
    points = first.keypoints
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


@pytest.mark.parametrize(
    ("edges", "expected", "noted"),
    [
        ([[1, 2]], ((0, 1),), False),
        ([[0, 1]], ((0, 1),), False),
        ([[1, 2], [2, 9]], ((0, 1),), True),
        ([[2, 2], "x", [1], [1.5, 2]], (), True),
        (7, (), True),
    ],
)
def test_coco_skeletons_keep_their_points(edges: Any, expected: Any, noted: bool, tmp_path: Path) -> None:
    """Counted from 1 or from 0; an edge that joins no two points is left out with a note."""

    def change(content: dict[str, Any]) -> None:
        with_points(content)
        content["categories"][0]["skeleton"] = edges

    reader = read(f"coco:{coco_folder(tmp_path, change)}")
    skeleton = reader.labels.skeletons["dog"]
    assert (skeleton.points, skeleton.edges) == (("nose", "tail"), expected)
    assert bool(reader.source.notes) == noted and len(list(reader)) == 2


# ---------------------------------------------------------------------- files as other tools write them
def rle_list(content: dict[str, Any]) -> None:
    halves = [{"size": [20, 30], "counts": [0, 20, 580]}, {"size": [20, 30], "counts": [20, 20, 560]}]
    content["annotations"][2]["segmentation"] = halves


def texts_as_ids(content: dict[str, Any]) -> None:
    content["images"][0]["id"], content["annotations"][0]["category_id"] = "5", 3.0
    content["annotations"][1]["image_id"] = 5.0


def without_sizes(content: dict[str, Any]) -> None:
    for image in content["images"]:
        del image["width"], image["height"]


def decimal_sizes(content: dict[str, Any]) -> None:
    content["images"][0] |= {"width": 30.0, "height": 20.0}
    content["images"][1] |= {"width": 0, "height": None}


SAME = {
    "decimal sizes": decimal_sizes,
    "a path on another disk": edit("images", 0, file_name="C:\\data\\a.png"),
    "a path of a web server": edit("images", 0, file_name="../../label-studio/upload/a.png"),
    "a path with a dot": edit("images", 1, file_name="./b b.png"),
    "no crowd": edit("annotations", 0, iscrowd=None),
    "a polygon without a list": edit("annotations", 0, segmentation=[4, 4, 10, 4, 10, 10, 4, 10]),
    "decimal run lengths": edit("annotations", 2, segmentation={"size": [20, 30], "counts": [0.0, 40.0, 560.0]}),
    "a list of run lengths": rle_list,
    "a flat part": edit("annotations", 0, segmentation=[[4, 4, 10, 4, 10, 10, 4, 10], [15, 4, 20, 4], []]),
    "ids of other types": texts_as_ids,
    "no sizes": without_sizes,
    "an unused heading": lambda c: (
        c["categories"].insert(0, dict(id=0, name="pets", supercategory="none")),
        [k.update(supercategory="pets") for k in c["categories"][1:]],
    ),
}


@pytest.mark.parametrize("case", sorted(SAME))
def test_other_spellings_of_the_same_labels(case: str, tmp_path: Path) -> None:
    """The samples are equal to the plain file's to the last pixel."""
    plain = [s.digest() for s in read(f"coco:{coco_folder(tmp_path / 'plain')}")]
    reader = read(f"coco:{coco_folder(tmp_path / 'other', SAME[case])}")
    assert reader.labels.names == ("background", "dog", "cat") and [s.digest() for s in reader] == plain
    assert bool(reader.source.notes) == (case in ("a flat part", "an unused heading"))


ODD = {
    "an image beyond every size": (edit("images", 0, width=10**20, height=30), "size 100000000000x30"),
    "category 0 twice": (lambda c: [k.update(id=0) for k in c["categories"]], "category id 0 occurs twice"),
    "annotation 0 twice": (lambda c: [a.update(id=0) for a in c["annotations"]], "annotation id 0 occurs twice"),
    "broken run lengths": (edit("annotations", 2, segmentation={"size": [20, 30], "counts": [0, 40.5, 559.5]}), "fill"),
    "huge run lengths": (
        edit("annotations", 2, segmentation={"size": [20, 30], "counts": [2**62] * 4 + [600]}),
        "fill",
    ),
    "nested run lengths": (edit("annotations", 2, segmentation={"size": [20, 30], "counts": [[0, 40, 560]]}), "fill"),
    "true as id": (edit("annotations", 0, image_id=True), "wrong kind"),
    "a half id": (edit("annotations", 0, category_id=3.5), "wrong kind"),
    "long name": (edit("images", 0, file_name="x" * 300 + ".png"), "too long"),
    "surrogate": (edit("images", 0, file_name="\ud800.png"), "cannot be a file's"),
    "flat parts only": (edit("annotations", 0, segmentation=[[4, 4, 9, 4], []]), "no polygon has three points"),
}


@pytest.mark.parametrize("case", sorted(ODD))
def test_odd_entries_are_errors_of_our_own(case: str, tmp_path: Path) -> None:
    change, what = ODD[case]
    path = coco_folder(tmp_path, change)
    with pytest.raises(DataError, match=what):
        list(read(f"coco:{path}"))


def test_a_heading_that_is_called_as_a_class_is_no_clash(tmp_path: Path) -> None:
    """Roboflow's category 0 is the project, here of the same name as a class."""

    def change(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["supercategory"] = "dog"
        content["categories"].insert(0, dict(id=0, name="dog", supercategory="none"))

    assert read(f"coco:{coco_folder(tmp_path, change)}").labels.names == ("background", "dog", "cat")


def test_backslashes_and_names_that_clash(tmp_path: Path) -> None:
    noise_image(tmp_path / "sub" / "a.png")
    path = coco_folder(tmp_path, edit("images", 0, file_name="sub\\a.png"))
    assert [s.key for s in read(f"coco:{path}")] == ["sub/a", "b b"]
    path = coco_folder(tmp_path, edit("categories", 0, name="Cat"))
    with pytest.raises(DataError, match="clash: cat") as caught:
        read(f"coco:{path}")
    assert "annotations.json" in str(caught.value) and "rename" in str(caught.value)


def test_a_class_called_background_is_the_background(tmp_path: Path) -> None:
    path = coco_folder(tmp_path, edit("categories", 0, name="Background"))
    first, _ = read(f"coco:{path}")
    assert first.labels.names == ("background", "cat") and (first.semantic.ids[4:10, 4:10] == 0).all()


def test_captions_of_a_list_as_id(tmp_path: Path) -> None:
    path = coco_folder(tmp_path).rename(tmp_path / "instances_x.json")
    write(tmp_path / "captions_x.json", {"annotations": [{"image_id": [5], "caption": "first"}]})
    with pytest.raises(DataError, match="no image_id or text"):
        read(f"coco:{path}")


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
    assert sum(int((s.keypoints.visibility > 0).sum()) for s in people) == counted


@pytest.mark.parametrize("case", sorted(set(BAD) - {"absent image", "list as id"}))  # which belong to no image
def test_bad_coco_is_skipped_and_counted_or_refused(case: str, tmp_path: Path) -> None:
    """What remains is what the good file says about it."""
    whole = {s.key: s.digest() for s in read(f"coco:{coco_folder(tmp_path / 'good')}")}
    path = coco_folder(tmp_path / "bad", BAD[case][0])
    try:
        reader = read(f"coco:{path}", on_error="skip")
    except DataError:
        return  # the whole file is unreadable, or nothing is left
    left = {s.key: s.digest() for s in reader}
    assert reader.skipped and left.items() <= whole.items()


def test_boxes_alone(tmp_path: Path) -> None:
    """An image with one box only counts as one of boxes; the other keeps its masks."""
    box = edit("annotations", 0, bbox=[4, 4, 6.2, 6], segmentation=[])
    first, second = read(f"coco:{coco_folder(tmp_path, box)}")
    objects = first.instances
    assert objects.boxed and objects.boxes.tolist() == [[4, 4, 6.2, 6], [2, 2, 18, 16]]
    assert objects.masks.boxes.tolist() == [[4, 4, 6, 6], [2, 2, 18, 16]]
    assert known(first) == ["instances"] and not second.instances.boxed
    assert second.semantic is not None


def test_a_file_of_boxes_knows_no_background(tmp_path: Path) -> None:
    """Nor in an image without objects."""

    def change(content: dict[str, Any]) -> None:
        content["annotations"] = [dict(id=1, image_id=5, category_id=7, bbox=[0, 0, 9, 9])]

    reader = read(f"coco:{coco_folder(tmp_path, change)}")
    assert [(known(s), len(s.instances)) for s in reader] == [(["instances"], 1), (["instances"], 0)]


@pytest.mark.parametrize("box", [[4, 4, 0, 6], [4, 4, 99, 6], [4, 4, float("nan"), 6], [4, 4], "4"])
def test_bad_boxes_are_refused(box: Any, tmp_path: Path) -> None:
    change = edit("annotations", 0, bbox=box, segmentation=[])
    with pytest.raises(DataError, match="bbox|outside"):
        read(f"coco:{coco_folder(tmp_path, change)}")


def test_outlines_that_cross_themselves_are_no_error(tmp_path: Path) -> None:
    """A bow tie: its signed area is 0, its pixels are not."""
    bow = [[2, 2, 18, 18, 18, 2, 2, 18]]
    first, _ = read(f"coco:{coco_folder(tmp_path, edit('annotations', 0, segmentation=bow))}")
    assert first.instances.masks[0].sum() > 50


def test_one_flat_part_of_an_object_is_no_error(tmp_path: Path) -> None:
    parts = [[4, 4, 10, 4, 10, 10, 4, 10], [15, 4, 20, 4, 25, 4]]
    first, _ = read(f"coco:{coco_folder(tmp_path, edit('annotations', 0, segmentation=parts))}")
    assert first.instances.masks[0].sum() == 36


@settings(max_examples=40, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_run_lengths_are_counted_as_pycocotools_reads_them(mask: np.ndarray) -> None:
    rle = reference.encode(np.asfortranarray(mask, np.uint8))
    counts = rle_counts(rle["counts"])
    assert counts.sum() == mask.size and (counts >= 0).all()
    back = np.repeat(np.arange(len(counts)) % 2, counts).reshape(mask.shape[::-1]).T
    assert np.array_equal(back, mask)
    assert np.array_equal(counts, rle_counts(counts.tolist()))


@settings(deadline=None)
@given(st.binary(max_size=30))
def test_any_bytes_are_run_lengths_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert rle_counts(data).ndim == 1


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_polygons_are_checked_at_once_as_one_by_one(data: st.DataObject) -> None:
    """The check in NumPy passes only what the scalar check passes."""
    number = st.floats(-3, 40, width=32) | st.integers(-3, 40) | st.sampled_from([float("nan"), float("inf")])
    outline = st.lists(number, min_size=6, max_size=12).filter(lambda p: len(p) % 2 == 0)
    polygons = data.draw(st.lists(outline, min_size=1, max_size=6))
    limits = np.tile([20, 30], (len(polygons), 1))
    for good, polygon in zip(outlines_good(polygons, limits), polygons, strict=True):
        if good:
            assert all(np.isfinite(polygon))
            x, y = np.array(polygon[::2]), np.array(polygon[1::2])
            assert x.min() >= -1 and x.max() <= 31 and y.min() >= -1 and y.max() <= 21


@pytest.mark.slow
def test_reading_is_not_much_slower_than_the_target() -> None:
    """A small version of `benchmarks/coco_reading.py`, whose target is 1.5: a bound for a busy machine."""
    code = "from benchmarks.coco_reading import coco_read_ratio; print(coco_read_ratio(images=500, repeats=5))"
    root = Path(__file__).parent.parent.parent  # a process of its own: here every call is checked against its types
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert 0.1 < float(done.stdout) < 2


# ---------------------------------------------------------------------- panoptic
def test_panoptic_segments(tmp_path: Path) -> None:
    (sample,) = read(f"coco-panoptic:{panoptic_folder(tmp_path)}")
    assert sample.labels.names == ("dog", "sky", "grass-merged") and sample.labels.stuff == ("sky", "grass-merged")
    ids, objects = sample.semantic.ids, sample.instances
    assert ids[0, 0] == 1 and ids[18, 0] == 2 and (ids[2:6, 2:8] == 0).all()
    assert (ids[12:16, 20:26] == IGNORE).all() and (ids[19] == IGNORE).all()
    assert objects.label_ids.tolist() == [0, 0] and objects.boxes.tolist() == [[2, 2, 6, 4], [20, 12, 6, 4]]
    assert objects.crowd.tolist() == [False, True]


def segment(index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda c: c["annotations"][0]["segments_info"][index].update(values)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (segment(0, category_id=9), "names category 9"),
        (segment(0, id=5), "id 5 occurs twice"),
        (segment(0, id=-1), "cannot be read"),
        (segment(0, id=77), r"segments \[1000\] that the file lacks"),
        (
            lambda c: c["annotations"][0]["segments_info"].append(dict(id=9, category_id=1)),
            r"no pixel of segments \[9\]",
        ),
        (lambda c: c["annotations"][0].pop("segments_info"), "no segments_info"),
        (lambda c: c["annotations"][0].update(file_name="../panoptic/a.png"), "leaves its folder"),
        (lambda c: c["annotations"][0].update(file_name="b.png"), "missing"),
        (lambda c: c["annotations"].clear(), "has an annotation"),
        (lambda c: c["images"][0].update(width=20), "30x20 pixels"),
    ],
)
def test_panoptic_refuses(change: Callable[[dict[str, Any]], None], what: str, tmp_path: Path) -> None:
    path = panoptic_folder(tmp_path, change)
    with pytest.raises(DataError, match=what):
        list(read(f"coco-panoptic:{path}"))


def test_panoptic_of_another_size_or_without_colours(tmp_path: Path) -> None:
    path = panoptic_folder(tmp_path)
    for array, what in ((np.zeros((9, 9, 3), np.uint8), "9x9 pixels"), (np.ones((20, 30), np.uint8), "no colours")):
        save(tmp_path / "panoptic" / "a.png", array)
        with pytest.raises(DataError, match=what):
            list(read(f"coco-panoptic:{path}"))


@pytest.mark.skipif(not REAL, reason="DATASETDM_REAL names no folder of real files")
def test_real_panoptic_files() -> None:
    """17 photographs: every segment's area is what the file says."""
    path = Path(str(REAL)) / "coco_panoptic" / "panoptic.json"
    content = json.loads(path.read_text())
    areas = {a["image_id"]: a["segments_info"] for a in content["annotations"]}
    things = {c["id"] for c in content["categories"] if c["isthing"]}
    for sample in read(f"coco-panoptic:{path}"):
        segments = areas[sample.provenance.details["coco_image_id"]]
        assert int((sample.semantic.ids != IGNORE).sum()) == sum(s["area"] for s in segments if not s["iscrowd"])
        own = zip(sample.instances.masks.areas.tolist(), sample.instances.crowd.tolist(), strict=True)
        assert list(own) == [(s["area"], bool(s["iscrowd"])) for s in segments if s["category_id"] in things]


# ---------------------------------------------------------------------- LVIS
def test_lvis_knows_what_it_does_not_know(tmp_path: Path) -> None:
    path = lvis_folder(tmp_path)
    (sample,) = read(f"lvis:{path}", tmp_path)
    assert sample.labels.names == ("car (automobile)", "aerosol can", "acorn")
    assert sample.labels.synonyms[0] == ("car",) and sample.labels.named_in("two cars") == ("car (automobile)",)
    assert sample.provenance.details["negative"] == ["acorn"]
    assert sample.provenance.details["not_exhaustive"] == ["car (automobile)"]
    ids = sample.semantic.ids
    assert ids[5, 5] == 0 and ids[5, 17] == 1 and (ids == IGNORE).sum() == 600 - 36 - 30
    assert sample.instances.label_ids.tolist() == [0, 1]


def test_lvis_by_frequency(tmp_path: Path) -> None:
    path = lvis_folder(tmp_path)
    (sample,) = read(f"lvis:{path}@rare+common", tmp_path)
    assert sample.labels.names == ("aerosol can", "acorn")
    assert sample.instances.label_ids.tolist() == [0]
    assert sample.semantic.ids[5, 5] == IGNORE
    with pytest.raises(DataError, match="no frequency 'often'"):
        read(f"lvis:{path}@often", tmp_path)


@pytest.mark.skipif(not REAL, reason="DATASETDM_REAL names no folder of real files")
def test_real_lvis_annotations(tmp_path: Path) -> None:
    """The 12 smallest of 100 images' annotations, with blank images; areas as LVIS counted them."""
    content = json.loads((Path(str(REAL)) / "lvis" / "lvis_val_100.json").read_text())
    content["images"] = sorted(content["images"], key=lambda i: i["width"] * i["height"])[:12]
    kept = {i["id"] for i in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    for image in content["images"]:
        noise_image(tmp_path / image["file_name"], (image["height"], image["width"]))
    reader = read(f"lvis:{write(tmp_path / 'lvis.json', content)}")
    told = {i: [a["area"] for a in content["annotations"] if a["image_id"] == i] for i in kept}
    for sample in reader:
        areas = sample.instances.masks.areas.tolist()
        assert np.allclose(areas, told[sample.provenance.details["coco_image_id"]], rtol=0.2, atol=30)
    assert len(reader.labels) == 1230


def test_objects_that_leave_their_image_a_little_are_clipped_and_counted(tmp_path: Path) -> None:
    """Up to 5 % of a side; further is another image's annotation."""
    change = edit("annotations", 1, segmentation=[[-1.4, 2, 31.4, 2, 31.4, 18, -1.4, 18]])
    reader = read(f"coco:{coco_folder(tmp_path, change)}")
    first, _ = reader
    assert first.instances.masks.boxes.tolist()[1] == [0, 2, 30, 16]
    assert reader.source.notes == ["outlines and boxes that leave their image by up to 5%, clipped: 1"]
    box = edit("annotations", 0, bbox=[4, 4, 27.4, 6], segmentation=[])
    first, _ = read(f"coco:{coco_folder(tmp_path, box)}")
    assert first.instances.boxes.tolist()[0] == [4, 4, 26, 6]


def test_points_outside_the_image_are_absent_and_counted(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        with_points(content)
        content["annotations"][0]["keypoints"] = [50, 6, 2, 30.5, 9, 1]

    reader = read(f"coco:{coco_folder(tmp_path, change)}")
    first, _ = reader
    assert first.keypoints.visibility[0].tolist() == [0, 1] and first.keypoints.xy[0].tolist() == [[0, 0], [30, 9]]
    assert "outside their image" in reader.source.notes[0]


def test_points_without_names_get_numbers(tmp_path: Path) -> None:
    reader = read(f"coco:{coco_folder(tmp_path, edit('annotations', 0, keypoints=[5, 6, 2, 7, 8, 1]))}")
    first, _ = reader
    assert first.keypoints.names == (("point0", "point1"), ()) and "names no keypoints" in reader.source.notes[0]


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    """The only annotation file is found; of several, each is named."""
    path = coco_folder(tmp_path)
    write(tmp_path / "captions_x.json", {"annotations": []})
    with pytest.raises(DataError, match=r"2 such files: annotations\.json, captions_x\.json"):
        read(f"coco:{tmp_path}")
    path.rename(tmp_path / "instances_x.json")
    assert len(list(read(f"coco:{tmp_path}"))) == 2
    with pytest.raises(DataError, match="nothing in it looks like"):
        read(f"coco-panoptic:{noise_image(tmp_path / 'z' / 'a.png').parent}")


def test_a_number_as_a_class(tmp_path: Path) -> None:
    assert read(f"coco:{coco_folder(tmp_path, edit('categories', 0, name=7))}").labels.names == (
        "background",
        "7",
        "cat",
    )
    for name in (True, 1.5, None, []):
        with pytest.raises(DataError, match="no id or name"):
            read(f"coco:{coco_folder(tmp_path, edit('categories', 0, name=name))}")


def test_a_pipe_as_a_file_or_an_image(tmp_path: Path) -> None:
    path = coco_folder(tmp_path)
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="device or a pipe"):
        read(f"coco:{path}")
    for name in (tmp_path / "a.png", Path("/dev/zero")):
        with pytest.raises(DataError, match="device or a pipe"):
            read(f"coco:{name}")
