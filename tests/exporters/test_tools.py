"""Formats of other tools: Hugging Face datasets, WebDataset, FiftyOne, Label Studio, CVAT."""

from __future__ import annotations

import base64
import io
import json
import sys
import tarfile
import zlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import hypothesis
import numpy as np
import pytest
import yaml
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask

from datasetdm.errors import ConfigError, OutputError
from datasetdm.exporters import iter_export
from datasetdm.exporters.formats import labelstudio
from datasetdm.exporters.formats.cvat import decode_row_runs, row_runs
from datasetdm.exporters.formats.labelstudio import encode_brush
from datasetdm.exporters.hub import push_to_hub
from datasetdm.io.codecs import polygon_runs
from datasetdm.records import Instances, Labels, Provenance, Sample, Skeleton
from datasetdm.records.objects import decode_runs
from datasetdm.transforms import Transform
from datasetdm.transforms.split import Split
from factory import make_sample

POSED = Labels(("sky", "dog", "grass"), (), ("sky", "grass"), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})
HALVES = Split(parts={"train": 0.5, "val": 0.5 - 1e-9, "rest": 1e-9})
MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@pytest.fixture(scope="module")
def given() -> list[Sample]:
    sizes = [(24, 32), (48, 24), (17, 64)]
    return [make_sample(f"s{i}.x", sizes[i % 3], i, POSED) for i in range(6)]


def run(samples: list[Sample], format: str, out: Path, *transforms: Transform) -> Path:
    for _ in iter_export(samples, POSED, format, out, transforms, licence="cc-by-4.0"):
        pass
    return out


def decoded(counts: str, size: tuple[int, int]) -> np.ndarray:
    return coco_mask.decode({"size": list(size), "counts": counts.encode()}).astype(bool)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


# ---------------------------------------------------------------------- Hugging Face
def test_datasets_opens_it(given: list[Sample], tmp_path: Path) -> None:
    from datasets import ClassLabel, load_dataset

    folder = run(given, "hf", tmp_path / "hf", HALVES)
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    rows = {row["key"]: row for part in ("train", "val") for row in loaded[part]}
    assert sorted(rows) == [s.key for s in given] and min(len(loaded["train"]), len(loaded["val"])) > 0
    kinds = loaded["train"].features["objects"]["category"].feature
    assert isinstance(kinds, ClassLabel) and tuple(kinds.names) == POSED.names
    for s in given:
        row, objects, points = rows[s.key], s.instances, s.keypoints
        assert np.array_equal(np.asarray(row["image"]), s.image) and row["caption"] == "a photo of a dog"
        assert np.array_equal(np.asarray(row["semantic"]), s.semantic.ids)
        assert np.allclose(np.asarray(row["depth"]) / 256, s.depth.depth)
        assert row["objects"]["category"] == [1] and row["objects"]["score"] == [0.75]
        assert np.array_equal(row["objects"]["bbox"], objects.boxes)
        assert np.array_equal(decoded(row["objects"]["segmentation"][0], s.size), objects.masks[0])
        assert row["objects"]["keypoints"] == [[*points.xy[0, 0].tolist(), 2, 0, 0, 0]]


def test_the_card(given: list[Sample], tmp_path: Path) -> None:
    evil = replace(given[0], key="evil", provenance=Provenance(details={"source": "<script>|`x`"}))
    text = (run([*given, evil], "hf", tmp_path / "hf", HALVES) / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
    assert "| 1 | dog | 7 | 7 |" in text and "| 0 | sky | 7 | 0 |" in text
    assert "test (6)" in text and "<script>" not in text and "&lt;script&gt;\\|" in text


def test_a_new_export_is_not_taken_for_an_old_one(given: list[Sample], tmp_path: Path) -> None:
    """`datasets` caches what it opened; two exports to folders of one name, with one card, are two."""
    from datasets import load_dataset

    for key in ("first", "second"):
        folder = run([replace(given[0], key=key)], "hf", tmp_path / key / "hf")
        assert load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]["key"] == [key]


def test_shards_are_numbered(given: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasetdm.exporters.formats.hf.GROUP_ROWS", 2)
    monkeypatch.setattr("datasetdm.exporters.formats.hf.SHARD_BYTES", 1)
    folder = run([replace(given[0], key=f"{i}") for i in range(5)], "hf", tmp_path / "hf") / "data"
    assert sorted(p.name for p in folder.iterdir()) == [f"train-0000{i}-of-00003.parquet" for i in range(3)]


def test_pushing_says_what_is_wrong(given: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(given[:1], "hf", tmp_path / "hf")
    with pytest.raises(ConfigError, match="'no-owner'"):
        push_to_hub(folder, "no-owner")
    with pytest.raises(ConfigError, match="no dataset to upload"):
        push_to_hub(tmp_path, "me/data")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError, match="switched off"):
        push_to_hub(folder, "me/data")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with pytest.raises(OutputError, match="upload failed: no route to host"):
        push_to_hub(folder, "me/data")
    sent: dict[str, Any] = {}
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda _, name, **more: sent.update(name=name, **more))
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda _, **more: sent.update(more))
    assert push_to_hub(folder, "me/data") == "https://huggingface.co/datasets/me/data"
    assert sent["private"] and sent["repo_type"] == "dataset" and sent["folder_path"] == folder


# ---------------------------------------------------------------------- WebDataset
def grouped(path: Path) -> dict[str, dict[str, bytes]]:
    """As WebDataset groups: the name up to the first dot, and the rest as the kind."""
    found: dict[str, dict[str, bytes]] = defaultdict(dict)
    with tarfile.open(path) as tar:
        for member in tar:
            base, _, kind = member.name.partition(".")
            file = tar.extractfile(member)
            assert file and kind not in found[base]
            found[base][kind] = file.read()
    return found


def test_webdataset(given: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasetdm.exporters.formats.webdataset.SHARD_SAMPLES", 4)
    clashing = [*given, replace(given[0], key="s0_x"), replace(given[0], key="s0/x")]
    folder = run(clashing, "webdataset", tmp_path / "w")
    shards = [grouped(folder / f"train-00000{i}.tar") for i in (0, 1)]
    assert [len(s) for s in shards] == [4, 4] and not (folder / "train-000002.tar").exists()
    rows = {json.loads(m["json"])["key"]: m for s in shards for m in s.values()}
    assert set(rows) == {s.key for s in clashing}
    assert Labels.from_json(json.loads((folder / "labels.json").read_text())) == POSED
    for s in clashing:
        members, about = rows[s.key], json.loads(rows[s.key]["json"])
        assert np.array_equal(pixels(members["png"]), s.image)
        assert np.array_equal(pixels(members["semantic.png"]), s.semantic.ids)
        assert np.allclose(pixels(members["depth.png"]) / 256, s.depth.depth)
        (found,) = about["objects"]
        assert np.array_equal(decoded(found["segmentation"]["counts"], s.size), s.instances.masks[0])


# ---------------------------------------------------------------------- FiftyOne
def unpacked(value: dict[str, Any]) -> np.ndarray:
    return np.load(io.BytesIO(zlib.decompress(base64.b64decode(value["$binary"]["base64"]))), allow_pickle=False)


def test_fiftyone(given: list[Sample], tmp_path: Path) -> None:
    folder = run(given, "fiftyone", tmp_path / "f", HALVES)
    meta = json.loads((folder / "metadata.json").read_text())
    assert "version" not in meta and meta["info"]["mask_targets"] == {"1": "sky", "2": "dog", "3": "grass"}
    rows = json.loads((folder / "samples.json").read_text())["samples"]
    for s, row in zip(given, rows, strict=True):
        h, w = s.size
        assert np.array_equal(np.asarray(Image.open(folder / row["filepath"])), s.image)
        assert row["tags"] == [row["filepath"].split("/")[1]] and row["tags"][0] in ("train", "val")
        assert np.array_equal(unpacked(row["semantic"]["mask"]), s.semantic.ids + 1)
        assert np.array_equal(unpacked(row["depth"]["map"]), s.depth.depth)
        (found,) = row["objects"]["detections"]
        x, y, bw, bh = np.rint(np.array(found["bounding_box"]) * (w, h, w, h)).astype(int)
        mask = np.zeros(s.size, bool)
        mask[y : y + bh, x : x + bw] = unpacked(found["mask"])
        assert found["label"] == "dog" and np.array_equal(mask, s.instances.masks[0])
        (points,) = row["keypoints"]["keypoints"]
        assert np.allclose(np.array(points["points"][0]) * (w, h), s.keypoints.xy[0, 0])
        assert points["points"][1] == [{"$numberDouble": "NaN"}] * 2 and points["visibility"] == [2, 0]


# ---------------------------------------------------------------------- Label Studio
def decode_brush(data: list[int]) -> np.ndarray:
    """thi.ng's rle-pack, as its documentation describes it."""
    bits = "".join(f"{b:08b}" for b in data)
    place = 0

    def take(n: int) -> int:
        nonlocal place
        place += n
        return int(bits[place - n : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        run_of_one = take(1)
        count = take(sizes[take(2)]) + 1
        out += [take(word)] * count if run_of_one else [take(word) for _ in range(count)]
    assert len(out) == total and not bits[place:].strip("0") and len(bits) - place < 8
    return np.array(out)


@hypothesis.given(MASKS)
def test_brush_strokes_are_exact(mask: np.ndarray) -> None:
    h, w = mask.shape
    for size, (x, y) in ((mask.shape, (0, 0)), ((h, w + 3), (0, 0)), ((h + 1, w), (0, 1)), ((h + 3, w + 2), (2, 1))):
        image = np.zeros(size, bool)
        image[y : y + h, x : x + w] = mask
        packed = encode_brush(mask, (x, y), size)
        back = decode_brush(packed).reshape(*size, 4)
        assert np.array_equal(back, np.where(image[..., None], 255, 0).repeat(4, -1))
        assert np.array_equal(labelstudio.decode_brush(packed, size), image)


def test_brush_strokes_longer_than_a_run() -> None:
    mask = np.ones((200, 200), bool)
    mask[0, 0] = False
    assert np.array_equal(decode_brush(encode_brush(mask, (0, 0), (200, 200))).reshape(200, 200, 4)[..., 3] > 0, mask)


def test_label_studio(given: list[Sample], tmp_path: Path) -> None:
    boxed = replace(given[0].instances, boxed=True)
    boxes = Sample("boxes", given[0].image, given[0].labels, given[0].prompt, instances=boxed)
    folder = run([*given, boxes], "label-studio", tmp_path / "l")
    tasks = json.loads((folder / "tasks.json").read_text())
    config = ElementTree.fromstring((folder / "config.xml").read_text())
    controls = {n.get("name"): (n.tag.lower(), {c.get("value") for c in n}) for n in config if n.get("toName")}
    for s, task in zip([*given, boxes], tasks, strict=True):
        place = unquote(parse_qs(urlsplit(task["data"]["image"]).query)["d"][0])
        assert np.array_equal(np.asarray(Image.open(folder / place)), s.image) and task["data"]["key"] == s.key
        results = task["predictions"][0]["result"]
        for r in results:  # what Label Studio checks at import: the control is there, of this type, and knows the label
            kind, labels = controls[r["from_name"]]
            assert kind == r["type"] and set(r["value"][kind]) <= labels and r["to_name"] == "image"
            assert (r["original_height"], r["original_width"]) == s.size
        if s is boxes:
            box = [results[0]["value"][k] for k in ("x", "y", "width", "height")]
            h, w = s.size
            assert np.allclose(np.array(box) * (w, h, w, h) / 100, boxed.boxes[0])
            continue
        brush, point = results
        stroke = decode_brush(brush["value"]["rle"]).reshape(*s.size, 4)[..., 3] > 0
        assert np.array_equal(stroke, s.instances.masks[0]) and point["parentID"] == brush["id"]
        place = np.array([point["value"]["x"], point["value"]["y"]]) * s.size[::-1] / 100
        assert np.allclose(place, s.keypoints.xy[0, 0]) and point["value"]["keypointlabels"] == ["dog: nose"]


# ---------------------------------------------------------------------- CVAT
def cvat_mask(node: ElementTree.Element, size: tuple[int, int]) -> np.ndarray:
    """A polygon or a mask of CVAT's XML as pixels."""
    if node.tag == "polygon":
        flat = [float(v) for p in node.attrib["points"].split(";") for v in p.split(",")]
        return decode_runs(polygon_runs([flat], size), size)
    left, top, w, h = (int(node.attrib[k]) for k in ("left", "top", "width", "height"))
    values = [i % 2 for i, n in enumerate(node.attrib["rle"].split(",")) for _ in range(int(n))]
    mask = np.zeros(size, bool)
    mask[top : top + h, left : left + w] = np.array(values, bool).reshape(h, w)
    return mask


def test_cvat(given: list[Sample], tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((1, 20, 30)) < 0.4
    mask[0, 5:9] = True
    holes = Sample("zz", np.zeros((20, 30, 3), np.uint8), POSED, instances=Instances.from_masks(mask, np.array([2])))
    boxed = replace(holes, key="box", instances=replace(holes.instances, boxed=True))
    folder = run([*given, holes, boxed], "cvat", tmp_path / "c", HALVES)
    root = ElementTree.parse(folder / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1" and root.findtext("meta/project/size") == "8"
    kinds = {str(n.findtext("name")): (n.findtext("type"), n.findtext("parent")) for n in root.iter("label")}
    assert kinds["dog"] == ("any", None) and kinds["nose"] == ("points", "dog points")
    images = root.findall("image")
    assert [i.get("id") for i in images] == [str(n) for n in range(8)]
    for s, image in zip([*given, holes, boxed], images, strict=True):
        assert (int(image.attrib["height"]), int(image.attrib["width"])) == s.size
        assert image.attrib["name"].startswith(image.attrib["subset"] + "/")
        assert np.array_equal(np.asarray(Image.open(folder / "images" / image.attrib["name"])), s.image)
        assert all(n.get("label") in kinds for n in image)
        if s is boxed:
            x, y, w, h = s.instances.boxes[0].tolist()
            edges = [float(image[0].attrib[k]) for k in ("xtl", "ytl", "xbr", "ybr")]
            assert image[0].tag == "box" and edges == [x, y, x + w, y + h]
            continue
        assert image[0].tag == ("mask" if s is holes else "polygon")
        assert np.array_equal(cvat_mask(image[0], s.size), s.instances.masks[0])
        if s is not holes:
            nose, tail = image[1]
            assert image[1].tag == "skeleton" and tail.attrib["outside"] == "1" and nose.attrib["outside"] == "0"
            place = [float(v) for v in nose.attrib["points"].split(",")]
            assert np.allclose(place, s.keypoints.xy[0, 0], atol=0.005)


@hypothesis.given(MASKS)
def test_row_runs_are_exact(mask: np.ndarray) -> None:
    values = [bool(i % 2) for i, n in enumerate(row_runs(mask)) for _ in range(n)]
    assert values == mask.ravel().tolist()
    assert np.array_equal(decode_row_runs(row_runs(mask), mask.shape), mask)


# ---------------------------------------------------------------------- extras
def test_a_missing_extra_is_named(given: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(ConfigError, match="OpenEXR is not installed") as caught:
        run(given, "depth-exr", tmp_path / "x")
    assert "datasetdm[exr]" in str(caught.value) and not list(tmp_path.iterdir())
