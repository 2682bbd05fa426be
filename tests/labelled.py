"""Small labelled folders in every format, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from datasetdm.readers.formats.cityscapes import CLASSES as CITY
from datasetdm.store import write_store
from factory import LABELS, make_sample


def save(path: Path, array: np.ndarray, palette: np.ndarray | None = None) -> Path:
    """Any array as an image; with a palette (u8[n 3]) as indices into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(path)
    return path


def noise_image(path: Path, size: tuple[int, int] = (20, 30)) -> Path:
    """An image of noise."""
    return save(path, np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))


def write(path: Path, content: Any) -> Path:
    """Text as it stands, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco_folder(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    """Two images, a dog on a cat, a crowd; `change` edits the annotations before they are written."""
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
    """Two images, the first with these lines, the second without a label file."""
    for name in ("a.png", "b b.png"):
        (folder / "images" / "train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(folder / "images" / "train" / name)
    (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "labels" / "train" / "a.txt").write_text("\n".join(lines))
    content = {"train": "images/train", "names": {0: "dog", 1: "hot dog"}} | settings
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder / "data.yaml"


def panoptic_folder(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    """Sky over grass with two dogs, one of them a crowd, and a row that is unlabelled."""
    segments = np.full((20, 30), 1000)
    segments[10:] = 70000
    segments[2:6, 2:8], segments[12:16, 20:26], segments[19] = 5, 256, 0
    colours = np.stack([segments % 256, segments // 256 % 256, segments // 65536], -1).astype(np.uint8)
    save(folder / "panoptic" / "a.png", colours)
    noise_image(folder / "images" / "a.jpg")
    info = [dict(id=1000, category_id=2), dict(id=70000, category_id=4), dict(id=5, category_id=1)]
    info.append(dict(id=256, category_id=1, iscrowd=1))
    content = dict(
        images=[dict(id=5, file_name="a.jpg", width=30, height=20)],
        annotations=[dict(image_id=5, file_name="a.png", segments_info=info)],
        categories=[dict(id=1, name="dog", isthing=1), dict(id=2, name="sky", isthing=0)],
    )
    content["categories"].append(dict(id=4, name="grass-merged", isthing=0))
    change(content)
    return write(folder / "panoptic.json", content)


def lvis_folder(folder: Path) -> Path:
    """An image named by its address, with a rare and a frequent category; it surely lacks a third."""
    noise_image(folder / "val2017" / "7.png")
    box = [[4, 4, 10, 4, 10, 10, 4, 10]]
    names = [("car_(automobile)", "f"), ("aerosol_can", "r"), ("acorn", "c")]
    content: dict[str, Any] = dict(
        images=[dict(id=7, coco_url="http://x/val2017/7.png", width=30, height=20, neg_category_ids=[3])],
        annotations=[dict(id=n, image_id=7, category_id=n, segmentation=box) for n in (1, 2)],
        categories=[dict(id=n, name=w, frequency=f, synonyms=[w]) for n, (w, f) in enumerate(names, 1)],
    )
    content["annotations"][1]["segmentation"] = [[15, 4, 20, 4, 20, 10, 15, 10]]
    content["images"][0]["not_exhaustive_category_ids"] = [1]
    return write(folder / "lvis.json", content)


VOC_XML = """<annotation><size><width>30</width><height>20</height></size>
<object><name>dog</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>10</ymax></bndbox></object></annotation>"""


def voc_folder(folder: Path) -> Path:
    """`train`: an image with masks (a dog, a sheep, a void edge); `boxes`: one with an XML file."""
    for name in ("a", "b"):
        noise_image(folder / "JPEGImages" / f"{name}.jpg")
    classes, objects = np.zeros((2, 20, 30), np.uint8)
    classes[2:8, 2:8], classes[10:18, 10:20], classes[2, 2:8] = 12, 17, 255
    objects[2:8, 2:8], objects[10:18, 10:20] = 1, 2
    save(folder / "SegmentationClass" / "a.png", classes)
    save(folder / "SegmentationObject" / "a.png", objects)
    write(folder / "Annotations" / "b.xml", VOC_XML)
    write(folder / "ImageSets" / "Segmentation" / "train.txt", "a\n")
    write(folder / "ImageSets" / "Main" / "boxes.txt", "a -1\nb 1\n")
    return folder


def masks_folder(folder: Path, classes: Any = None) -> Path:
    """Two images with grey masks of the values 0, 1 and 255."""
    for name in ("a.jpg", "sub/b b.png"):
        noise_image(folder / "images" / name)
        ids = np.zeros((20, 30), np.uint8)
        ids[:5], ids[5:9] = 1, 255
        save((folder / "masks" / name).with_suffix(".png"), ids)
    write(folder / "classes.json", ["wall", "tree"] if classes is None else classes)
    return folder


def cityscapes_folder(folder: Path) -> Path:
    """A road with parking and two cars, one of which nobody told apart."""
    labels, numbers = np.full((20, 30), 7, np.uint8), np.full((20, 30), 7, np.uint16)
    labels[:4], numbers[:4] = 9, 9
    labels[8:12], numbers[8:12] = 26, 26
    numbers[8:12, :10] = 26001
    labels[19], numbers[19] = 1, 1
    base = folder / "gtFine" / "train" / "x" / "x_000001_000002_gtFine"
    save(base.with_name(base.name + "_labelIds.png"), labels)
    save(base.with_name(base.name + "_instanceIds.png"), numbers)
    train = np.full(256, 255, np.uint8)
    train[list(CITY)] = range(19)
    save(base.with_name(base.name + "_labelTrainIds.png"), train[labels])
    noise_image(folder / "leftImg8bit" / "train" / "x" / "x_000001_000002_leftImg8bit.png")
    return folder


def depth_folder(folder: Path, image: str, depth: str, value: int = 1500) -> Path:
    """An image with 16-bit depth, whose first row is unknown."""
    steps = np.full((20, 30), value, np.uint16)
    steps[0] = 0
    save(folder / depth, steps)
    noise_image(folder / image)
    return folder


def vkitti_folder(folder: Path) -> Path:
    """Sky over a road with a car."""
    frames = folder / "Scene01" / "clone" / "frames"
    classes = np.zeros((20, 30, 3), np.uint8)
    classes[:8], classes[8:], classes[10:14, 5:15] = (90, 200, 255), (100, 60, 100), (255, 127, 80)
    depth, objects = np.full((20, 30), 1234, np.uint16), np.zeros((20, 30), np.uint8)
    depth[:8], objects[10:14, 5:15] = 65535, 3
    save(frames / "depth" / "Camera_0" / "depth_00001.png", depth)
    save(frames / "classSegmentation" / "Camera_0" / "classgt_00001.png", classes)
    save(frames / "instanceSegmentation" / "Camera_0" / "instancegt_00001.png", objects, np.eye(3)[[0, 1, 2, 0]] * 200)
    noise_image(frames / "rgb" / "Camera_0" / "rgb_00001.jpg")
    return folder


def deepfashion_folder(folder: Path, points: Mapping[str, str] | None = None) -> Path:
    """A person with a top and hair, and a picture of a part of a body, which has no parsing."""
    ids = np.zeros((20, 30), np.uint8)
    ids[5:15, 10:20], ids[2:5, 12:18] = 1, 13
    save(folder / "segm" / "MEN-a_segm.png", ids)
    for name in ("MEN-a", "MEN-part"):
        noise_image(folder / "images" / f"{name}.jpg")
    told = {"loc": "MEN-a.jpg " + "7 9 " * 19 + "-1 -1 3 4", "vis": "MEN-a.jpg " + "0 " * 18 + "1 2 2"}
    for kind, line in (told | dict(points or {})).items():
        write(folder / "keypoints" / f"keypoints_{kind}.txt", line + "\n")
    write(folder / "captions.json", {"MEN-a.jpg": "a man in a top"})
    return folder


def hf_folder(folder: Path) -> Path:
    """A dataset of two images with masks, saved to disk."""
    import datasets

    masks_folder(folder / "raw")
    names = ("a.jpg", "sub/b b.png")
    columns = {
        "image": [{"bytes": (folder / "raw" / "images" / n).read_bytes(), "path": None} for n in names],
        "mask": [
            {"bytes": (folder / "raw" / "masks" / n).with_suffix(".png").read_bytes(), "path": None} for n in names
        ],
        "text": ["a tree at a wall", None],
    }
    features = {"image": datasets.Image(), "mask": datasets.Image(), "text": datasets.Value("string")}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    datasets.disable_progress_bars()
    data.save_to_disk(str(folder / "saved"))
    write(folder / "saved" / "id2label.json", {"0": "wall", "1": "tree"})
    return folder / "saved"


def _store(folder: Path) -> str:
    write_store([make_sample(f"s{i}", (24, 32 + i), i) for i in range(3)], folder / "s", LABELS)
    return str(folder / "s")


MAKERS: dict[str, Callable[[Path], object]] = {
    "cityscapes": cityscapes_folder,
    "coco": coco_folder,
    "coco-panoptic": panoptic_folder,
    "deepfashion": deepfashion_folder,
    "hf": hf_folder,
    "images": lambda folder: yolo_folder(folder).parent,
    "kitti": lambda folder: depth_folder(folder, "image/1.png", "depth/1.png"),
    "lvis": lvis_folder,
    "masks": masks_folder,
    "mini": lambda _: "test",
    "nyu": lambda folder: depth_folder(folder, "rgb_1.jpg", "sync_depth_1.png"),
    "store": _store,
    "vkitti": vkitti_folder,
    "voc": voc_folder,
    "yolo": lambda folder: yolo_folder(folder, "0 0.25 0.5 0.5 1", "1 0.75 0.5 0.25 0.5"),
}
"""Format -> what makes data of it in a folder and gives their path."""
