from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import hypothesis
import numpy as np
import pytest
import yaml
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools.coco import COCO

from datasetdm.errors import ConfigError, DataError, OutputError
from datasetdm.exporters import export, iter_export
from datasetdm.exporters.outline import polygon
from datasetdm.io.codecs import polygon_runs
from datasetdm.readers import read
from datasetdm.records import BACKGROUND, IGNORE, Instances, Labels, Sample, SemanticMap, Skeleton
from datasetdm.records.objects import decode_runs
from datasetdm.store import Store, write_store
from factory import LABELS, make_sample


def without_instances(sample: Sample) -> Sample:
    return Sample(sample.key, sample.image, sample.labels, sample.prompt, semantic=sample.semantic, depth=sample.depth)


@pytest.fixture
def regions(samples: list[Sample], tmp_path: Path) -> Store:
    """A store without instances, as the generator writes it."""
    write_store(map(without_instances, samples), tmp_path / "store", LABELS)
    return Store(tmp_path / "store")


def test_pycocotools_reads_the_same_pixels(regions: Store, tmp_path: Path) -> None:
    assert export(regions, "coco", tmp_path / "coco") == len(regions)
    coco = COCO(str(tmp_path / "coco" / "annotations" / "instances.json"))
    names = {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
    for image, sample in zip(coco.loadImgs(coco.getImgIds()), regions, strict=True):
        ids = np.full(sample.size, IGNORE, np.uint16)
        for a in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask = coco.annToMask(a).astype(bool)
            assert a["iscrowd"] == 0 and a["area"] == mask.sum()
            assert (ids[mask] == IGNORE).all()
            ids[mask] = LABELS.names.index(names[a["category_id"]])
        assert np.array_equal(ids, sample.semantic.ids)
        pixels = np.asarray(Image.open(tmp_path / "coco" / "images" / image["file_name"]))
        assert np.array_equal(pixels, sample.image)


def test_depth_keeps_16_bits(regions: Store, tmp_path: Path) -> None:
    export(regions, "coco", tmp_path / "coco")
    for sample in regions:
        steps = np.asarray(Image.open(tmp_path / "coco" / "depth" / f"{sample.key}.png"))
        assert steps.dtype == np.uint16
        assert np.allclose(steps / 256, sample.depth.depth)


def test_instances_come_back_as_they_were(samples: list[Sample], tmp_path: Path) -> None:
    for _ in iter_export(samples, LABELS, "coco", tmp_path / "coco"):
        pass
    again = list(read(f"coco:{tmp_path / 'coco' / 'annotations' / 'instances.json'}"))
    for given, back in zip(samples, again, strict=True):
        assert back.key == given.key and np.array_equal(back.image, given.image)
        assert back.instances.masks == given.instances.masks
        assert back.prompt is not None and given.prompt is not None and back.prompt.text == given.prompt.text


def test_background_and_ignored_pixels_are_no_category(tmp_path: Path) -> None:
    labels = Labels((BACKGROUND, "dog"))
    ids = np.array([[0, 1], [IGNORE, 0]], np.uint16)
    sample = Sample("k", np.zeros((2, 2, 3), np.uint8), labels, semantic=SemanticMap(ids))
    for _ in iter_export([sample], labels, "coco", tmp_path / "coco"):
        pass
    content = json.loads((tmp_path / "coco" / "annotations" / "instances.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["dog"]
    assert [a["area"] for a in content["annotations"]] == [1.0]


def test_nothing_is_half_written(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield make_sample()
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        list(iter_export(broken(), LABELS, "coco", tmp_path / "coco"))
    assert not list(tmp_path.iterdir())


def test_keys_stay_inside_the_folder(tmp_path: Path) -> None:
    for _ in iter_export([make_sample("../../evil"), make_sample("a/b")], LABELS, "coco", tmp_path / "coco"):
        pass
    written = [p for p in tmp_path.rglob("*.png") if p.parent.name == "images"]
    assert len(written) == 2 and all(tmp_path / "coco" in p.parents for p in written)


def test_refusals(regions: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format 'cocos'"):
        export(regions, "cocos", tmp_path / "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        export(regions, "coco", tmp_path / "full")


POSED = Labels(LABELS.names, LABELS.synonyms, ("sky", "grass"), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})


# ---------------------------------------------------------------------- YOLO
def yolo(samples: list[Sample], kind: str, folder: Path) -> list[Sample]:
    """Written and read again."""
    for _ in iter_export(samples, samples[0].labels, f"yolo-{kind}", folder):
        pass
    return list(read(f"yolo:{folder / 'data.yaml'}"))


def named(sample: Sample) -> list[str]:
    return [sample.labels.names[i] for i in sample.instances.label_ids]


def test_yolo_outlines_come_back_to_the_pixel(samples: list[Sample], tmp_path: Path) -> None:
    holes = make_sample("holes", (40, 40))
    mask = np.zeros((2, 40, 40), bool)
    mask[0, 5:30, 5:30] = True
    mask[0, 10:20, 10:20] = False
    mask[0, 35:38, 2:9] = True
    mask[1] = np.random.default_rng(0).random((40, 40)) < 0.4
    objects = Instances.from_masks(mask, np.array([0, 1]))
    given = sorted([*samples, Sample("zz", holes.image, LABELS, instances=objects)], key=lambda s: s.key)
    for before, after in zip(given, yolo(given, "seg", tmp_path / "y"), strict=True):
        assert np.array_equal(after.image, before.image) and named(after) == named(before)
        assert after.instances.masks == before.instances.masks


def test_yolo_boxes_come_back(samples: list[Sample], tmp_path: Path) -> None:
    given = sorted(samples, key=lambda s: s.key)
    back = yolo(given, "detect", tmp_path / "y")
    for before, after in zip(given, back, strict=True):
        assert after.instances.boxed and named(after) == named(before)
        assert np.array_equal(after.instances.masks.boxes, before.instances.boxes)
        assert np.allclose(after.instances.boxes, before.instances.boxes, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="boxes, not outlines"):
        yolo(back, "seg", tmp_path / "z")


def test_yolo_points_come_back(tmp_path: Path) -> None:
    given = [make_sample(f"s{i}", seed=i, labels=POSED) for i in range(4)]
    for before, after in zip(given, yolo(given, "pose", tmp_path / "y"), strict=True):
        a, b = (s.keypoints for s in (after, before))
        assert np.allclose(a.xy, b.xy, atol=1e-4) and np.array_equal(a.visibility, b.visibility)
        assert a.names == b.names
    mixed = Labels(("dog", "bird"), skeletons={"dog": Skeleton(("nose",)), "bird": Skeleton(("beak", "tail"))})
    with pytest.raises(DataError, match="one list of points"):
        list(iter_export([], mixed, "yolo-pose", tmp_path / "z"))


def test_yolo_knows_the_mirrored_point(tmp_path: Path) -> None:
    labels = Labels(("dog",), skeletons={"dog": Skeleton(("nose", "left ear", "right ear", "l_paw", "r_paw"))})
    for _ in iter_export([], labels, "yolo-pose", tmp_path / "y"):
        pass
    content = yaml.safe_load((tmp_path / "y" / "data.yaml").read_text())
    assert content["flip_idx"] == [0, 2, 1, 4, 3] and content["kpt_shape"] == [5, 3]


@hypothesis.given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_outlines_are_exact(mask: np.ndarray) -> None:
    """Filled again by COCO's own rule, also with holes, parts and pixels that touch at a corner."""
    hypothesis.assume(mask.any())
    corners = polygon(mask).astype(float).ravel().tolist()
    assert np.array_equal(decode_runs(polygon_runs([corners], mask.shape), mask.shape), mask)


# ---------------------------------------------------------------------- COCO's keypoints
def test_coco_has_boxes_without_outlines(samples: list[Sample], tmp_path: Path) -> None:
    objects = Instances.from_masks(np.ones((1, 24, 32), bool), np.array([1]), boxed=True)
    given = Sample("b", samples[0].image, LABELS, instances=objects)
    for _ in iter_export([given], LABELS, "coco", tmp_path / "c"):
        pass
    path = tmp_path / "c" / "annotations" / "instances.json"
    (row,) = COCO(str(path)).dataset["annotations"]
    assert row["segmentation"] == [] and row["bbox"] == [0, 0, 32, 24] and row["iscrowd"] == 0
    (back,) = read(f"coco:{path}")
    assert back.instances.boxed and back.semantic is None
    with pytest.raises(DataError, match="boxes, not outlines"):
        list(iter_export([given], LABELS, "coco-panoptic", tmp_path / "p"))


def test_coco_points_come_back(tmp_path: Path) -> None:
    given = [make_sample(f"s{i}", seed=i, labels=POSED) for i in range(4)]
    for _ in iter_export(given, POSED, "coco", tmp_path / "c"):
        pass
    path = tmp_path / "c" / "annotations" / "instances.json"
    coco = COCO(str(path))
    dog = coco.loadCats(coco.getCatIds(["dog"]))[0]
    assert dog["keypoints"] == ["nose", "tail"] and dog["skeleton"] == [[1, 2]]
    assert all(a["num_keypoints"] == 1 for a in coco.loadAnns(coco.getAnnIds()))
    for before, after in zip(given, read(f"coco:{path}"), strict=True):
        a, b = (s.keypoints for s in (after, before))
        assert np.allclose(a.xy, b.xy) and np.array_equal(a.visibility, b.visibility) and a.names == b.names


# ---------------------------------------------------------------------- groups, and fractions of a pixel
def test_crowds_survive_coco_and_panoptic(samples: list[Sample], tmp_path: Path) -> None:
    masks = np.zeros((2, 24, 32), bool)
    masks[0, 2:8, 2:9] = masks[1, 12:20, 3:30] = True
    objects = Instances.from_masks(masks, np.array([1, 1]), crowd=np.array([False, True]))
    given = Sample("k", samples[0].image, LABELS, instances=objects)
    for format, path in (("coco", "annotations/instances.json"), ("coco-panoptic", "annotations/panoptic.json")):
        for _ in iter_export([given], LABELS, format, tmp_path / format):
            pass
        (back,) = read(f"{format}:{tmp_path / format / path}")
        found = dict(zip(back.instances.crowd.tolist(), back.instances.masks, strict=True))
        assert np.array_equal(found[True], masks[1]) and np.array_equal(found[False], masks[0])
    coco = COCO(str(tmp_path / "coco" / "annotations" / "instances.json"))
    (group,) = coco.loadAnns(coco.getAnnIds(iscrowd=True))
    assert np.array_equal(coco.annToMask(group).astype(bool), masks[1]) and group["bbox"] == [3, 12, 27, 8]


def boxed(values: np.ndarray, size: tuple[int, int]) -> Sample:
    """Objects known as boxes (x, y, width, height) only."""
    masks = np.zeros((len(values), *size), bool)
    for mask, (x, y, w, h) in zip(masks, values.tolist(), strict=True):
        mask[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1] = True
    objects = Instances.from_masks(masks, np.zeros(len(values)), boxes=values, boxed=True)
    return Sample("k", np.zeros((*size, 3), np.uint8), LABELS, instances=objects)


def test_yolo_boxes_keep_their_fractions(tmp_path: Path) -> None:
    """To a millionth of a box, and from then on exactly."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform((0, 0), (250, 180), (200, 2)), rng.uniform(1.1, 20, (200, 2))], 1)
    (first,) = yolo([boxed(values, (201, 301))], "detect", tmp_path / "a")
    (second,) = yolo([first], "detect", tmp_path / "b")
    assert np.allclose(first.instances.boxes, values, rtol=1e-6, atol=0)
    assert np.allclose(second.instances.boxes, first.instances.boxes, rtol=1e-9, atol=1e-9)


BOXES = st.tuples(st.floats(0, 31.9), st.floats(0, 23.9), st.floats(0.01, 32), st.floats(0.01, 24))


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(BOXES)
def test_voc_boxes_are_the_nearest_pixels(box: tuple[float, float, float, float]) -> None:
    """And never none."""
    x, y, w, h = box
    w, h = min(w, 32 - x), min(h, 24 - y)
    given = boxed(np.array([[x, y, w, h]]), (24, 32))
    with tempfile.TemporaryDirectory() as folder:
        for _ in iter_export([given], LABELS, "voc", Path(folder) / "v"):
            pass
        (node,) = ElementTree.parse(Path(folder) / "v" / "Annotations" / "k.xml").getroot().iter("bndbox")
    left, top, right, bottom = (int(str(node.findtext(k))) for k in ("xmin", "ymin", "xmax", "ymax"))
    assert 1 <= left <= right <= 32 and 1 <= top <= bottom <= 24
    assert np.allclose([left - 1, top - 1, right, bottom], [x, y, x + w, y + h], rtol=0, atol=1)
