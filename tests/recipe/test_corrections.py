"""Corrections of Label Studio and CVAT come back: as reviews, and where shapes were redrawn as changed samples."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from commands import run
from datasetdm.errors import ConfigError, DataError
from datasetdm.exporters import export
from datasetdm.exporters.formats.cvat import row_runs
from datasetdm.exporters.formats.labelstudio import encode_brush
from datasetdm.recipe.corrections import Correction, read_corrections
from datasetdm.recipe.redrawn import CORRECTED
from datasetdm.records import IGNORE, Instances, Keypoints, Labels, Sample, Skeleton
from datasetdm.store import Review, Store, append_review, read_reviews, write_store
from factory import make_sample

POSED = Labels(("sky", "dog", "grass"), (), ("sky", "grass"), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})
SIZE = (24, 32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return stored(tmp_path, [make_sample(f"s{i}.x", seed=i, labels=POSED) for i in range(5)])


def stored(folder: Path, samples: list[Sample]) -> Store:
    write_store(samples, folder / "store", POSED, shard_size=2)
    return Store(folder / "store")


def tasks(store: Store, out: Path) -> list[dict[str, Any]]:
    """What Label Studio gives back of tasks whose predictions nobody changed."""
    export(store, "label-studio", out)
    found = json.loads((out / "tasks.json").read_text())
    return [t | {"id": n, "annotations": [{"result": t["predictions"][0]["result"]}]} for n, t in enumerate(found)]


def in_label_studio(store: Store, change: Callable[[list[dict[str, Any]]], None]) -> Correction:
    """What comes back of the first task after its regions were changed."""
    folder = store.folder.parent
    found = tasks(store, folder / "ls")[:1]
    change(found[0]["annotations"][0]["result"])
    (folder / "back.json").write_text(json.dumps(found))
    return next(read_corrections(store, folder / "back.json"))


def in_cvat(store: Store, change: Callable[[Element], None]) -> Correction:
    """What comes back of the first image after its shapes were changed."""
    folder = store.folder.parent
    export(store, "cvat", folder / "cvat")
    tree = ElementTree.parse(folder / "cvat" / "annotations.xml")
    change(next(tree.iter("image")))
    tree.write(folder / "annotations.xml")
    return next(read_corrections(store, folder / "annotations.xml"))


def changed(store: Store, correction: Correction) -> Sample:
    assert correction.change is not None and correction.review == Review("s0.x", "accept")
    return correction.change(store[0])


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def brush(mask: np.ndarray) -> dict[str, Any]:
    h, w = SIZE
    value = {"format": "rle", "rle": encode_brush(mask, (0, 0), SIZE), "brushlabels": ["dog"]}
    return {"id": "x", "type": "brushlabels", "value": value, "original_width": w, "original_height": h}


# ---------------------------------------------------------------------- labels and verdicts
def test_label_studio(store: Store, tmp_path: Path) -> None:
    """Nothing, a label, a deleted shape, a skipped task, a task that nobody saw; ids and roundings are the tool's own."""
    found = tasks(store, tmp_path / "ls")
    assert {r["type"] for r in found[1]["annotations"][0]["result"]} == {"brushlabels", "keypointlabels"}
    for region in found[1]["annotations"][0]["result"]:
        region["id"] = "Xy1"
        if region["type"] == "brushlabels":
            region["value"]["brushlabels"] = ["grass"]
        else:
            region["value"]["x"] += 0.004
    found[2]["annotations"][0]["result"].append({"type": "polyline", "value": {}})
    found[2]["annotations"][0]["result"].append(
        {"type": "ellipselabels", "value": {"ellipselabels": ["dog"], "x": 4, "y": 4, "radiusX": 2, "radiusY": 3}}
    )
    found[3]["annotations"] = [{"was_cancelled": True, "result": []}]
    found[4]["annotations"] = []
    (tmp_path / "back.json").write_text(json.dumps(found))
    assert list(read_corrections(store, tmp_path / "back.json")) == [
        Correction(Review("s0.x", "accept")),
        Correction(Review("s1.x", "accept", objects={0: "grass"})),
        Correction(Review("s2.x", "reject", "a shape of the kind ellipse")),
        Correction(Review("s3.x", "reject", "skipped in Label Studio")),
    ]


def test_cvat(store: Store, tmp_path: Path) -> None:
    """A label that was fixed after an earlier fix, a box among outlines; of the others nobody says whether they were seen."""
    append_review(store.folder, Review("s1.x", objects={0: "sky"}))
    export(store, "cvat", tmp_path / "cvat")
    tree = ElementTree.parse(tmp_path / "cvat" / "annotations.xml")
    images = {node.attrib["name"]: node for node in tree.iter("image")}
    images["s1.x.png"][0].set("label", "grass")
    added = ElementTree.SubElement(images["s2.x.png"], "box", label="dog", xtl="1", ytl="1", xbr="3", ybr="4")
    added.set("source", "manual")
    tree.write(tmp_path / "annotations.xml")
    with zipfile.ZipFile(tmp_path / "back.zip", "w") as archive:
        archive.write(tmp_path / "annotations.xml", "annotations.xml")
    for name in ("annotations.xml", "back.zip"):
        assert list(read_corrections(store, tmp_path / name)) == [
            Correction(Review("s1.x", "accept", objects={0: "grass"})),
            Correction(Review("s2.x", "reject", "a box among outlines")),
        ]


# ---------------------------------------------------------------------- shapes
@pytest.mark.parametrize("box", [(2, 3, 10, 9), (0, 0, 32, 24), (31, 23, 32, 24), (5, 1, 20, 3)])
@pytest.mark.parametrize("hole", [False, True])
def test_a_mask_that_was_redrawn_comes_back(tmp_path: Path, box: tuple[int, int, int, int], hole: bool) -> None:
    """Pixel by pixel, by either tool, with a hole and without; all else of the sample stays, and the semantic map follows."""
    store = stored(tmp_path, [make_sample("s0.x", seed=3, labels=POSED)])
    left, top, right, bottom = box
    given, mask = store[0], rectangle(*box)
    mask[top + 1 : bottom - 1, left + 1 : right - 1] &= not hole

    def draw(image: Element) -> None:
        group = image[0].attrib["group_id"]
        image.remove(image[0])
        runs = ", ".join(map(str, row_runs(mask)))
        h, w = map(str, SIZE)
        image.append(Element("mask", label="dog", group_id=group, rle=runs, left="0", top="0", width=w, height=h))

    def redraw(results: list[dict[str, Any]]) -> None:
        results[0] |= brush(mask) | {"id": results[0]["id"]}

    for found in (changed(store, in_cvat(store, draw)), changed(store, in_label_studio(store, redraw))):
        assert np.array_equal(found.instances.masks[0], mask) and len(found.instances) == 1
        assert found.instances.scores.tolist() == [1] and found.instances.label_ids.tolist() == [1]
        assert np.array_equal(found.keypoints.xy, given.keypoints.xy) and found.prompt == given.prompt
        gone = given.instances.masks[0] & ~mask
        ids = np.where(mask, 1, np.where(gone, IGNORE, given.semantic.ids))
        assert np.array_equal(found.semantic.ids, ids) and np.array_equal(found.depth.depth, given.depth.depth)
        assert found.provenance.details[CORRECTED] in ("CVAT", "Label Studio")


def test_polygons_come_back(store: Store) -> None:
    """A corner that was moved in CVAT, and a polygon in Label Studio instead of the brush."""
    corners = "2,3;10,3;10,9;2,9"

    def move(image: Element) -> None:
        assert image[0].tag == "polygon"
        image[0].set("points", corners)

    def replace_brush(results: list[dict[str, Any]]) -> None:
        points = [[x / 32 * 100, y / 24 * 100] for x, y in ((2, 3), (10, 3), (10, 9), (2, 9))]
        results[0] |= {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["dog"]}}

    for correction in (in_cvat(store, move), in_label_studio(store, replace_brush)):
        assert np.array_equal(changed(store, correction).instances.masks[0], rectangle(2, 3, 10, 9))


def test_objects_are_added_and_deleted(store: Store) -> None:
    def add(results: list[dict[str, Any]]) -> None:
        results.append(brush(rectangle(20, 2, 24, 5)) | {"id": "new"})

    more = changed(store, in_label_studio(store, add))
    assert np.array_equal(more.instances.masks[1], rectangle(20, 2, 24, 5)) and len(more.instances) == 2
    assert more.instances.scores.tolist() == [0.75, 1] and more.keypoints.names[1] == ()
    assert np.array_equal(more.keypoints.xy[0], store[0].keypoints.xy[0])

    def delete(image: Element) -> None:
        for node in list(image):
            image.remove(node)

    none = changed(store, in_cvat(store, delete))
    assert len(none.instances) == len(none.keypoints) == 0
    assert set(none.semantic.ids[store[0].instances.masks[0]].tolist()) == {IGNORE}


def test_points_come_back(store: Store) -> None:
    """Moved, added, hidden and deleted ones; the object itself stays as it was."""

    def move(results: list[dict[str, Any]]) -> None:
        results[1]["value"] |= {"x": 50, "y": 25}
        tail = {"x": 75, "y": 50, "width": 1, "keypointlabels": ["dog: tail"]}
        results.append({"id": "t", "type": "keypointlabels", "value": tail})

    found = changed(store, in_label_studio(store, move))
    assert found.keypoints.xy.tolist() == [[[16, 6], [24, 12]]] and found.keypoints.visibility.tolist() == [[2, 2]]
    assert found.instances.scores.tolist() == [0.75] and found.instances.masks == store[0].instances.masks
    assert np.array_equal(found.semantic.ids, store[0].semantic.ids)

    def hide(image: Element) -> None:
        nose, tail = image[1]
        nose.set("outside", "1")
        for name, value in (("outside", "0"), ("occluded", "1"), ("points", "5.50,7.25")):
            tail.set(name, value)

    found = changed(store, in_cvat(store, hide))
    assert found.keypoints.xy[0, 1].tolist() == [5.5, 7.25] and found.keypoints.visibility.tolist() == [[0, 1]]


def test_boxes_come_back(tmp_path: Path) -> None:
    """Of objects that are known as boxes, with fractions of a pixel; an outline among them counts as its box."""
    sample = replace(make_sample("s0.x", labels=POSED), semantic=None, keypoints=None)
    store = stored(tmp_path, [replace(sample, instances=replace(sample.instances, boxed=True))])

    def draw(image: Element) -> None:
        for name, value in zip(("xtl", "ytl", "xbr", "ybr"), ("1.25", "2.5", "9.75", "30"), strict=True):
            image[0].set(name, value)
        image.append(Element("polygon", label="sky", points="20,2;24,2;24,6;20,6"))

    found = changed(store, in_cvat(store, draw)).instances
    assert found.boxed and found.boxes.tolist() == [[1.25, 2.5, 8.5, 21.5], [20, 2, 4, 4]]
    assert found.masks.areas.tolist()[1] == 16 and found.label_ids.tolist() == [1, 0]

    def resize(results: list[dict[str, Any]]) -> None:
        results[0]["value"] |= {"x": 25, "y": 50, "width": 25, "height": 25}

    assert changed(store, in_label_studio(store, resize)).instances.boxes.tolist() == [[8, 12, 8, 6]]


def test_regions_of_a_semantic_map_come_back(tmp_path: Path) -> None:
    """A smaller region lies on a larger one that was redrawn below it; what nothing covers any more is unknown."""
    store = stored(tmp_path, [replace(make_sample("s0.x", labels=POSED), instances=None, keypoints=None)])
    given = store[0].semantic.ids

    def draw(results: list[dict[str, Any]]) -> None:
        sky = next(r for r in results if r["value"]["brushlabels"] == ["sky"])
        sky["value"]["rle"] = encode_brush(rectangle(0, 0, 32, 6) | (given == 1), (0, 0), SIZE)

    found = changed(store, in_label_studio(store, draw))
    expected = np.where(given == 0, IGNORE, given)
    expected[:6] = np.where(given[:6] == 1, 1, 0)
    assert found.instances is None and np.array_equal(found.semantic.ids, expected)
    confidence = found.semantic.confidence
    assert confidence is not None and set(confidence[expected == 0].tolist()) == {1}


def test_objects_that_were_not_exported_stay(tmp_path: Path) -> None:
    masks = np.stack([rectangle(1, 1, 5, 5), rectangle(8, 8, 14, 14), rectangle(20, 10, 30, 20)])
    objects = Instances.from_masks(masks, np.array([1, 1, 1]), crowd=np.array([False, True, False]))
    points = Keypoints(np.full((3, 2, 2), 4.0), np.full((3, 2), 2), (("nose", "tail"),) * 3)
    sample = replace(make_sample("s0.x", labels=POSED), instances=objects, keypoints=points)
    store = stored(tmp_path, [sample])

    def redraw(image: Element) -> None:
        first = next(n for n in image if n.tag == "polygon")
        first.set("points", "1,1;6,1;6,6;1,6")

    found = changed(store, in_cvat(store, redraw))
    assert found.instances.crowd.tolist() == [False, True, False]
    assert (
        found.instances.masks
        == Instances.from_masks(np.stack([rectangle(1, 1, 6, 6), *masks[1:]]), objects.label_ids).masks
    )
    assert np.array_equal(found.keypoints.xy, points.xy)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Element("polygon", points="1,1;5,1;5,5"), "a shape without a label"),
        (Element("polyline", label="dog", points="1,1;5,1;5,5"), "a shape of the kind polyline"),
    ],
)
def test_what_annotations_cannot_hold(store: Store, shape: Element, reason: str) -> None:
    assert in_cvat(store, lambda image: image.append(shape)) == Correction(Review("s0.x", "reject", reason))


# ---------------------------------------------------------------------- the command
def test_the_command(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The store that comes out has the new shapes and labels; shards without any are the same files."""
    found = tasks(store, tmp_path / "ls")
    found[0]["annotations"][0]["result"][0]["value"]["brushlabels"] = ["grass"]
    found[3]["annotations"][0]["result"][0] |= brush(rectangle(2, 3, 10, 9))
    (tmp_path / "back.json").write_text(json.dumps(found))
    words = ["merge", str(store.folder), "--reviews", str(tmp_path / "back.json"), "--out", str(tmp_path / "out")]
    assert run(*words) == 0
    assert "5 reviews: 0 reject, 1 fix labels; 1 images have new shapes" in capsys.readouterr().err
    assert read_reviews(tmp_path / "out")["s0.x"].objects == {0: "grass"} and not read_reviews(store.folder)
    out = Store(tmp_path / "out")
    assert list(out.keys()) == list(store.keys())
    assert [a.digest() == b.digest() for a, b in zip(out, store, strict=True)] == [True, True, True, False, True]
    assert np.array_equal(out[3].instances.masks[0], rectangle(2, 3, 10, 9))
    assert out[3].provenance.details[CORRECTED] == "Label Studio"
    linked = [a.path.samefile(b.path) for a, b in zip(out.shards, store.shards, strict=True)]
    assert linked == [True, False, True]
    assert run(*words) == 0 and len(Store(tmp_path / "out")) == 5
    found[3]["annotations"][0]["result"][0] |= brush(rectangle(2, 3, 10, 10))
    (tmp_path / "back.json").write_text(json.dumps(found))
    assert run(*words) == 2 and "belongs to another stream: changes differs" in capsys.readouterr().err
    assert run("merge", str(store.folder), *words[1:]) == 2


def test_what_is_refused(store: Store, tmp_path: Path) -> None:
    found = tasks(store, tmp_path / "ls")
    bad = tmp_path / "bad.json"
    for change, error in (("key", "no sample 'other'"), ("label", "unknown label"), ("none", "no export of")):
        altered = json.loads(json.dumps(found))
        if change == "key":
            altered[0]["data"]["key"] = "other"
        elif change == "label":
            altered[0]["annotations"][0]["result"][0]["value"]["brushlabels"] = ["cow"]
        else:
            altered = [{"data": 3}]
        bad.write_text(json.dumps(altered))
        with pytest.raises((DataError, ConfigError), match=error):
            list(read_corrections(store, bad))
    found[0]["annotations"][0]["result"][0]["value"]["rle"] = [1, 2, 3]
    bad.write_text(json.dumps(found))
    with pytest.raises(DataError, match="end too early"):
        list(read_corrections(store, bad))
    (tmp_path / "bad.xml").write_text("<annotations>")
    with pytest.raises(DataError, match="no export of"):
        list(read_corrections(store, tmp_path / "bad.xml"))
