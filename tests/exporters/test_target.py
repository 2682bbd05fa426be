"""Where files go: parts, names, copies and links; and the export command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasetdm.cli import main
from datasetdm.errors import DataError, OutputError
from datasetdm.exporters import iter_export
from datasetdm.io.codecs import encode_png
from datasetdm.records.edits import reject
from datasetdm.store import write_store
from datasetdm.transforms.split import Split
from factory import LABELS, make_sample


# ---------------------------------------------------------------------- parts
def test_coco_splits(tmp_path: Path) -> None:
    samples = [make_sample(f"s{i}", seed=i) for i in range(20)]
    for _ in iter_export(samples, LABELS, "coco", tmp_path / "c", [Split(parts={"train": 0.5, "val": 0.5})]):
        pass
    seen: list[str] = []
    for part in ("train", "val"):
        content = json.loads((tmp_path / "c" / "annotations" / f"instances_{part}.json").read_text())
        names = {i["file_name"] for i in content["images"]}
        assert names == {p.name for p in (tmp_path / "c" / "images" / part).iterdir()} and names
        assert {a["image_id"] for a in content["annotations"]} == {i["id"] for i in content["images"]}
        seen += names
    assert sorted(seen) == sorted(f"s{i}.png" for i in range(20))


def test_the_parts_of_the_data_stay(tmp_path: Path) -> None:
    """Without a split in the transforms, samples keep the part that they come with."""
    samples = [replace(make_sample(f"s{i}"), split=part) for i, part in enumerate(["train", "val", "train"])]
    for _ in iter_export(samples, LABELS, "coco", tmp_path / "c"):
        pass
    assert sorted(p.name for p in (tmp_path / "c/annotations").glob("instances*")) == [
        "instances_train.json", "instances_val.json",
    ]  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "c/images/train").iterdir()) == ["s0.png", "s2.png"]
    with pytest.raises(DataError, match="'../x' is no file name"):
        list(iter_export([replace(samples[0], split="../x")], LABELS, "coco", tmp_path / "d"))


def test_rejected_samples_are_left_out(tmp_path: Path) -> None:
    samples = [make_sample("a"), reject(make_sample("b"), "blurred"), make_sample("c")]
    assert sum(1 for _ in iter_export(samples, LABELS, "masks", tmp_path / "m")) == 2
    assert sorted(p.name for p in (tmp_path / "m/images").iterdir()) == ["a.png", "c.png"]


# ---------------------------------------------------------------------- names
def test_stems_stay_where_they_are_unique(tmp_path: Path) -> None:
    keys = ["p0.jpg", "p1.PNG", "p1.jpg", "p2", "p2.png", "x.y", ".png"]
    for _ in iter_export([make_sample(k) for k in keys], LABELS, "masks", tmp_path / "m"):
        pass
    names = {kind: sorted(p.name for p in (tmp_path / "m" / kind).iterdir()) for kind in ("images", "masks")}
    assert names["images"] == names["masks"] and len(names["images"]) == len(keys)
    assert {"p0.png", "p1.png", "p1.jpg.png", "p2.png", "p2.png.png", "x.y.png"} < set(names["images"])


# ---------------------------------------------------------------------- images
@pytest.mark.parametrize("link", [False, True])
def test_image_files_are_copied_or_linked(link: bool, tmp_path: Path) -> None:
    sample = make_sample()
    jpeg, rotated, grey = (tmp_path / n for n in ("p.jpg", "r.jpg", "g.png"))
    Image.fromarray(sample.image).save(jpeg)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(sample.image).save(rotated, exif=exif)
    Image.fromarray(sample.image[..., 0]).save(grey)
    named = [replace(sample, key=f.stem, encoded=f) for f in (jpeg, rotated, grey)]
    for _ in iter_export(named, LABELS, "yolo-detect", tmp_path / "y", link=link):
        pass
    images = tmp_path / "y" / "images" / "train"
    assert sorted(p.name for p in images.iterdir()) == ["g.png", "p.jpg", "r.png"], (
        "what is no plain RGB is encoded anew"
    )
    assert (images / "p.jpg").read_bytes() == jpeg.read_bytes()
    assert (images / "p.jpg").samefile(jpeg) == link
    assert np.array_equal(np.asarray(Image.open(images / "r.png")), sample.image)


def test_images_of_a_store_are_compressed(tmp_path: Path) -> None:
    samples = [make_sample(f"s{i}", seed=i) for i in range(3)]
    write_store(samples, tmp_path / "store", LABELS)
    main_exits(["export", str(tmp_path / "store"), "--format", "yolo-detect", "--out", str(tmp_path / "y")], 0)
    for sample in samples:
        assert (tmp_path / "y/images/train" / f"{sample.key}.png").read_bytes() == encode_png(sample.image, 1)


# ---------------------------------------------------------------------- by command
def main_exits(arguments: list[str], code: int) -> None:
    try:
        main(arguments)
        found = 0
    except SystemExit as e:
        found = int(e.code or 0)
    assert found == code


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store([make_sample(f"s{i}", seed=i) for i in range(8)], tmp_path / "store", LABELS)
    common = ["--split", "train=0.5,val=0.5", "--remap", "sky=,grass=lawn", "--min-score", "0.5"]
    store = str(tmp_path / "store")
    main_exits(["export", store, "--out", str(tmp_path / "c"), *common], 0)
    content = json.loads((tmp_path / "c/annotations/instances_val.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["dog", "lawn"]
    main_exits(["export", f"coco:{tmp_path / 'c/annotations/instances_train.json'}", "--out", str(tmp_path / "v"),
                "--format", "voc"], 0)  # fmt: skip
    assert (tmp_path / "v/labelmap.txt").is_file()
    capsys.readouterr()
    for extra, message in (
        (["--split", "train=2"], "split train"),
        (["--remap", "cow=x"], "unknown label 'cow'"),
        (["--push", "a/b"], "--format hf"),
        (["--min-score", "7"], "--min-score 7"),
        (["--min-confidence", "7"], "--min-confidence 7"),
    ):
        main_exits(["export", store, "--out", str(tmp_path / "x"), *extra], 2)
        assert message in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_the_next_export_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    for name in (".c.x1.tmp", ".c.d.x2.tmp"):
        (tmp_path / name / "images").mkdir(parents=True)
    run = iter_export([make_sample("a"), make_sample("b")], LABELS, "masks", tmp_path / "c")
    next(run)
    with pytest.raises(OutputError, match="written by another process"):
        next(iter_export([make_sample("a")], LABELS, "masks", tmp_path / "c"))
    assert len([*run]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".c.d.x2.tmp", "c"], "another folder's stays"
