"""Formats of label images: COCO panoptic, Pascal VOC, masks, depth; read back by code that shares nothing with ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import hypothesis
import numpy as np
import OpenEXR  # ty: ignore[import-not-found]  (compiled, without stubs)
import pytest
from hypothesis import strategies as st
from PIL import Image

from datasetdm.errors import DataError
from datasetdm.exporters import iter_export
from datasetdm.exporters.formats.panoptic import id_to_rgb, segments_of
from datasetdm.exporters.maps import voc_palette
from datasetdm.records import BACKGROUND, IGNORE, DepthMap, Instances, Labels, Sample, SemanticMap
from datasetdm.transforms import Transform
from datasetdm.transforms.split import Split
from factory import LABELS

SPLIT = Labels(LABELS.names, LABELS.synonyms, ("sky", "grass"))
COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
"""Some of the colours that the VOC development kit documents."""


def run(samples: list[Sample], format: str, out: Path, *transforms: Transform) -> Path:
    for _ in iter_export(samples, samples[0].labels, format, out, transforms):
        pass
    return out


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# ---------------------------------------------------------------------- panoptic
def panoptic_faults(folder: Path, part: str = "") -> list[str]:
    """What panopticapi's evaluation refuses: a segment in one of PNG and JSON only, a double id, an unknown category, an
    area, box or crowd flag that is not the pixels'; an image without exactly one annotation."""
    name = f"panoptic_{part}" if part else "panoptic"
    content = json.loads((folder / "annotations" / f"{name}.json").read_text())
    categories = {c["id"]: c for c in content["categories"]}
    faults = [] if all(c["isthing"] in (0, 1) for c in categories.values()) else ["isthing"]
    images = {i["id"]: i for i in content["images"]}
    if sorted(a["image_id"] for a in content["annotations"]) != sorted(images):
        faults.append("not one annotation per image")
    for a in content["annotations"]:
        rgb = pixels(folder / "annotations" / name / a["file_name"]).astype(np.uint32)
        ids = rgb[..., 0] + rgb[..., 1] * 256 + rgb[..., 2] * 256 * 256
        image = images[a["image_id"]]
        if ids.shape != (image["height"], image["width"]):
            faults.append("size")
        told = {s["id"]: s for s in a["segments_info"]}
        if len(told) != len(a["segments_info"]) or set(np.unique(ids)) - {0} != set(told) or 0 in told:
            faults.append("segments of PNG and JSON differ")
        for number, s in told.items():
            y, x = np.nonzero(ids == number)
            box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
            if s["area"] != len(y) or s["bbox"] != box or s["iscrowd"] != 0 or s["category_id"] not in categories:
                faults.append(f"segment {s}")
    return faults


def test_panoptic_keeps_the_rules(samples: list[Sample], tmp_path: Path) -> None:
    given = [replace(s, labels=SPLIT) for s in samples]
    assert not panoptic_faults(run(given, "coco-panoptic", tmp_path / "p"))
    run(given, "coco-panoptic", tmp_path / "s", Split(parts={"train": 0.5, "val": 0.5}))
    assert not panoptic_faults(tmp_path / "s", "train") and not panoptic_faults(tmp_path / "s", "val")


def test_panoptic_things_are_instances_and_stuff_is_regions() -> None:
    labels = Labels((BACKGROUND, "sky", "dog", "cat"), stuff=("sky",))
    ids = np.array([[1, 1, 2, 2, 2, 3, 0, IGNORE]], np.uint16)
    masks = np.zeros((3, 1, 8), bool)
    masks[0, 0, 2:5] = masks[1, 0, 3] = masks[2, 0, 3] = True  # the third lies behind the second, which is as large
    objects = Instances.from_masks(masks, np.array([2, 2, 2]))
    sample = Sample("k", np.zeros((1, 8, 3), np.uint8), labels, semantic=SemanticMap(ids), instances=objects)
    segments, rows = segments_of(sample, {1: 11, 2: 12, 3: 13})
    by_id = {r["id"]: r["category_id"] for r in rows}
    drawn = [by_id.get(i) for i in segments[0].tolist()]
    assert drawn == [11, 11, 12, 12, 12, 13, None, None], "a cat without instances is its region, background is void"
    assert segments[0, 2] == segments[0, 4] != segments[0, 3] and len(rows) == 4
    without_cat = replace(sample, semantic=SemanticMap(np.full_like(ids, 2)))
    assert [r["area"] for r in segments_of(without_cat, {2: 1})[1]] == [2, 1], "dogs outside instances are void"


@hypothesis.given(st.integers(0, 2**24 - 1))
def test_panoptic_colours_are_ids(number: int) -> None:
    r, g, b = id_to_rgb(np.array([[number]]))[0, 0].tolist()
    assert r + 256 * g + 65536 * b == number


# ---------------------------------------------------------------------- VOC
def voc_boxes(path: Path) -> list[tuple[str, list[int]]]:
    root = ElementTree.parse(path).getroot()
    return [
        (str(o.findtext("name")), [int(str(o.findtext(f"bndbox/{k}"))) for k in ("xmin", "ymin", "xmax", "ymax")])
        for o in root.iter("object")
    ]


def test_voc(samples: list[Sample], tmp_path: Path) -> None:
    folder = run(samples, "voc", tmp_path / "v")
    listed = (folder / "ImageSets/Segmentation/train.txt").read_text().split()
    assert listed == [s.key for s in samples] == (folder / "ImageSets/Main/train.txt").read_text().split()
    lines = (folder / "labelmap.txt").read_text().splitlines()[1:]
    assert lines == ["background:0,0,0::", "sky:128,0,0::", "dog:0,128,0::", "grass:128,128,0::"]
    for s in samples:
        assert np.array_equal(pixels(folder / "JPEGImages" / f"{s.key}.png"), s.image)
        classes, objects = (pixels(folder / f"Segmentation{k}" / f"{s.key}.png") for k in ("Class", "Object"))
        assert np.array_equal(classes, s.semantic.ids + 1)
        assert np.array_equal(objects == 1, s.instances.masks[0]) and set(np.unique(objects)) == {0, 1}
        y, x = np.nonzero(s.instances.masks[0])
        box = [x.min() + 1, y.min() + 1, x.max() + 1, y.max() + 1]
        assert voc_boxes(folder / "Annotations" / f"{s.key}.xml") == [("dog", box)]
        with Image.open(folder / "SegmentationClass" / f"{s.key}.png") as image:
            palette = np.array(image.getpalette()).reshape(-1, 3)
        assert image.mode == "P" and all(
            tuple(palette[i].tolist()) == c for i, c in COLOURS.items() if i < len(palette)
        )


def test_voc_palette() -> None:
    assert {i: tuple(voc_palette()[i].tolist()) for i in COLOURS} == COLOURS
    assert len({*map(tuple, voc_palette().tolist())}) == 256


def test_voc_puts_background_first_and_void_last(tmp_path: Path) -> None:
    labels = Labels(("dog", BACKGROUND))
    masks = np.array([[[True, True, False, True]]])
    semantic, objects = SemanticMap(np.array([[0, 1, 1, IGNORE]])), Instances.from_masks(masks, np.array([0]))
    sample = Sample("k", np.zeros((1, 4, 3), np.uint8), labels, semantic=semantic, instances=objects)
    folder = run([sample], "voc", tmp_path / "v")
    assert pixels(folder / "SegmentationClass/k.png").tolist() == [[1, 0, 0, 255]]
    assert pixels(folder / "SegmentationObject/k.png").tolist() == [[1, 0, 0, 255]], "one class per object"


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [(tuple(f"l{i}" for i in range(255)), 1, "255 labels"), (("a:b",), 1, "'a:b'"), (("dog",), 255, "255 objects")],
)
def test_what_voc_cannot_hold(labels: tuple[str, ...], count: int, message: str, tmp_path: Path) -> None:
    objects = Instances.from_masks(np.ones((count, 1, 1), bool), np.zeros(count))
    with pytest.raises(DataError, match=message):
        run([Sample("k", np.zeros((1, 1, 3), np.uint8), Labels(labels), instances=objects)], "voc", tmp_path / "v")


def test_voc_draws_no_boxes_as_masks(tmp_path: Path) -> None:
    objects = Instances.from_masks(np.ones((1, 2, 2), bool), np.array([1]), boxed=True)
    folder = run([Sample("k", np.zeros((2, 2, 3), np.uint8), LABELS, instances=objects)], "voc", tmp_path / "v")
    assert not (folder / "SegmentationObject").exists() and not (folder / "SegmentationClass").exists()
    assert voc_boxes(folder / "Annotations/k.xml") == [("dog", [1, 1, 2, 2])]
    assert (folder / "ImageSets/Main/train.txt").read_text() == "k\n"
    assert not (folder / "ImageSets/Segmentation/train.txt").exists(), "a list without images is no list"


# ---------------------------------------------------------------------- masks
def test_masks(samples: list[Sample], tmp_path: Path) -> None:
    folder = run(samples, "masks", tmp_path / "m")
    assert json.loads((folder / "classes.json").read_text()) == {"sky": 0, "dog": 1, "grass": 2, "ignore": 255}
    for s in samples:
        assert np.array_equal(pixels(folder / "masks" / f"{s.key}.png"), s.semantic.ids)
        depth = pixels(folder / "depth" / f"{s.key}.png")
        assert depth.dtype == np.uint16 and np.allclose(depth / 1000, s.depth.depth, atol=5.1e-4)
        assert np.array_equal(pixels(folder / "instances" / f"{s.key}.png"), s.instances.masks[0])


@pytest.mark.parametrize("count", [255, 256, 300])
def test_masks_with_many_labels(count: int, tmp_path: Path) -> None:
    labels = Labels(tuple(f"l{i}" for i in range(count)))
    ids = np.array([[0, count - 1, IGNORE]], np.uint16)
    sample = Sample("k", np.zeros((1, 3, 3), np.uint8), labels, semantic=SemanticMap(ids))
    folder = run([sample], "masks", tmp_path / "m")
    values = json.loads((folder / "classes.json").read_text())
    back = {v: n for n, v in values.items()}
    drawn = [back[v] for v in pixels(folder / "masks/k.png")[0].tolist()]
    assert drawn == ["l0", f"l{count - 1}", "ignore"] and len(back) == count + 1
    with pytest.raises(DataError, match="keeps the name 'ignore'"):
        run([replace(sample, labels=Labels(("ignore", *labels.names[1:])))], "masks", tmp_path / "n")


# ---------------------------------------------------------------------- depth
def read_depth(path: Path) -> np.ndarray:
    match path.suffix:
        case ".npy":
            return np.load(path, allow_pickle=False)
        case ".exr":
            with OpenEXR.File(str(path)) as file:
                return file.channels()["Z"].pixels
    return pixels(path) / 256


@pytest.mark.parametrize(("format", "suffix"), [("depth-kitti", ".png"), ("depth-npy", ".npy"), ("depth-exr", ".exr")])
def test_depth(format: str, suffix: str, samples: list[Sample], tmp_path: Path) -> None:
    folder = run(samples, format, tmp_path / "d")
    for s in samples:
        depth = read_depth(folder / "depth" / f"{s.key}{suffix}")
        assert np.allclose(depth, s.depth.depth, atol=1e-6)
        assert np.array_equal(depth > 0, s.depth.valid)


def depth_only(values: Any, unit: Any = "metre") -> Sample:
    array = np.array([values], np.float32)
    depth = DepthMap(array, array > 0, unit)
    return Sample(unit, np.zeros((1, len(values), 3), np.uint8), LABELS, depth=depth)


def test_depth_too_large_for_16_bits_is_unknown(tmp_path: Path) -> None:
    far = depth_only([0.0001, 255.0, 300.0, 0.0])
    assert pixels(run([far], "depth-kitti", tmp_path / "k") / "depth/metre.png").tolist() == [[1, 65280, 0, 0]]
    assert pixels(run([far], "masks", tmp_path / "m") / "depth/metre.png").tolist() == [[1, 0, 0, 0]]
    assert np.load(run([far], "depth-npy", tmp_path / "n") / "depth/metre.npy").max() == 300


def test_depth_units_are_never_mixed(tmp_path: Path) -> None:
    relative = depth_only([0.5], "relative")
    with pytest.raises(DataError, match="the depth is relative"):
        run([relative], "depth-kitti", tmp_path / "k")
    folder = run([relative], "depth-npy", tmp_path / "n")
    assert json.loads((folder / "depth.json").read_text())["unit"] == "relative"
    with pytest.raises(DataError, match="the depth is relative"):
        run([depth_only([1.0]), relative], "depth-npy", tmp_path / "x")
    assert not (tmp_path / "x").exists()
