from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from datasetdm.cli import main
from datasetdm.errors import ConfigError
from datasetdm.exporters import iter_export
from datasetdm.exporters.options import Options, parse_remap, parse_splits, prepare, remapped
from datasetdm.exporters.target import Target
from datasetdm.io.codecs import encode_png
from datasetdm.records import (
    BACKGROUND,
    IGNORE,
    DepthMap,
    Instances,
    Keypoints,
    Labels,
    Sample,
    SemanticMap,
    Skeleton,
)
from datasetdm.store import write_store
from datasetdm.store.rows import IMAGE_LEVEL
from factory import LABELS, make_sample

SHARES = (("train", 0.8), ("val", 0.1), ("test", 0.1))


def bare(key: str) -> Sample:
    return Sample(key, np.zeros((1, 1, 3), np.uint8), LABELS)


def prepared(sample: Sample, **options: object) -> Sample:
    stream, labels = prepare([sample], sample.labels, Options(**options))  # type: ignore[arg-type]
    (result,) = stream
    assert result.labels == labels
    return result


# ---------------------------------------------------------------------- splits
def test_splits_follow_the_key_alone() -> None:
    target = Target(Path(), LABELS, SHARES)
    parts = {f"{i:05d}": target.part(bare(f"{i:05d}")) for i in range(4000)}
    counts = Counter(parts.values())
    assert abs(counts["train"] / 4000 - 0.8) < 0.02 and abs(counts["val"] / 4000 - 0.1) < 0.02
    again = Target(Path("elsewhere"), Labels(("other",)), SHARES)
    assert all(again.part(bare(k)) == p for k, p in reversed(parts.items()))
    larger = Target(Path(), LABELS, (("train", 0.9), ("val", 0.1)))
    assert all(larger.part(bare(k)) == "train" for k, p in parts.items() if p == "train"), (
        "a larger part keeps its samples"
    )


@hypothesis.given(st.text(), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_every_key_has_a_part(key: str, weights: list[int]) -> None:
    hypothesis.assume(not any("\ud800" <= c <= "\udfff" for c in key))
    splits = tuple((f"p{i}", w / sum(weights)) for i, w in enumerate(weights))
    assert Target(Path(), LABELS, Options(splits=splits).splits).part(bare(key)) in dict(splits)


def test_coco_splits(tmp_path: Path) -> None:
    samples = [make_sample(f"s{i}", seed=i) for i in range(20)]
    for _ in iter_export(samples, LABELS, "coco", tmp_path / "c", Options(splits=(("train", 0.5), ("val", 0.5)))):
        pass
    seen: list[str] = []
    for part in ("train", "val"):
        content = json.loads((tmp_path / "c" / "annotations" / f"instances_{part}.json").read_text())
        names = {i["file_name"] for i in content["images"]}
        assert names == {p.name for p in (tmp_path / "c" / "images" / part).iterdir()} and names
        assert {a["image_id"] for a in content["annotations"]} == {i["id"] for i in content["images"]}
        seen += names
    assert sorted(seen) == sorted(f"s{i}.png" for i in range(20))


@pytest.mark.parametrize(
    "text", ["train", "train=x", "train=0.5,val=0.6", "a=0.5,a=0.5", "../x=1", "a=0,b=1", "=1", "a=nan"]
)
def test_bad_splits(text: str) -> None:
    with pytest.raises(ConfigError):
        Options(splits=parse_splits(text))


# ---------------------------------------------------------------------- other labels
ZOO = Labels(
    ("cat", "sky", "dog"), (("kitten",), (), ()), ("sky",), {"dog": Skeleton(("nose",)), "cat": Skeleton(("nose",))}
)


def zoo() -> Sample:
    ids = np.array([[0, 1, 2, IGNORE]], np.uint16)
    masks = np.eye(4, dtype=bool)[:3, None]
    points = Keypoints(np.array([[[0, 1]], [[2, 0]], [[4, 1]]]), np.array([[2], [0], [1]]), (("nose",), (), ("nose",)))
    return Sample(
        "z",
        np.zeros((1, 4, 3), np.uint8),
        ZOO,
        semantic=SemanticMap(ids, np.array([[0.9, 0.2, 0.8, 0.1]])),
        instances=Instances.from_masks(masks, np.array([0, 1, 2]), np.array([0.3, 0.6, 0.9])),
        keypoints=points,
    )


def test_labels_merge_and_drop() -> None:
    sample = prepared(zoo(), remap=parse_remap("cat=animal, dog=animal,sky="))
    assert sample.labels.names == ("animal",) and sample.labels.synonyms == (("cat", "kitten", "dog"),)
    assert sample.labels.skeletons == {"animal": Skeleton(("nose",))} and sample.labels.stuff == ()
    assert sample.semantic.ids.tolist() == [[0, IGNORE, 0, IGNORE]]
    objects, points = sample.instances, sample.keypoints
    assert objects.label_ids.tolist() == [0, 0] and np.allclose(objects.scores, [0.3, 0.9])
    assert objects.masks.dense().argmax(-1).ravel().tolist() == [0, 2] and points.xy[:, 0].tolist() == [[0, 1], [4, 1]]


def test_dropped_pixels_become_background_where_there_is_one() -> None:
    labels, ids = remapped(Labels((BACKGROUND, "cat", "dog")), {"dog": None})
    assert labels.names == (BACKGROUND, "cat") and ids == [0, 1, 0]


def test_bad_remaps() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cat'"):
        prepare([], ZOO, Options(remap={"catt": "x"}))
    with pytest.raises(ConfigError, match="all labels are dropped"):
        prepare([], ZOO, Options(remap=dict.fromkeys(ZOO.names)))
    with pytest.raises(ConfigError, match="different points"):
        bones = {"cat": Skeleton(("nose",)), "dog": Skeleton(("tail",))}
        remapped(Labels(("cat", "dog"), skeletons=bones), {"cat": "x", "dog": "x"})
    with pytest.raises(ConfigError, match="--remap 'cat'"):
        parse_remap("cat")


@hypothesis.given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3, max_size=3))
def test_remapping_is_renaming_pixel_by_pixel(new: list[str | None]) -> None:
    hypothesis.assume(any(new))
    labels = Labels(("x", "y", "z"))
    remap = dict(zip(labels.names, new, strict=True))
    sample = Sample("k", np.zeros((1, 3, 3), np.uint8), labels, semantic=SemanticMap(np.array([[0, 1, 2]])))
    result = prepared(sample, remap=remap)
    found = [None if i == IGNORE else result.labels.names[i] for i in result.semantic.ids[0]]
    assert found == new


# ---------------------------------------------------------------------- certain enough
def test_minimum_score() -> None:
    sample = prepared(zoo(), min_score=0.5)
    objects = sample.instances
    assert objects.label_ids.tolist() == [1, 2] and len(sample.keypoints.names) == 2
    ids = sample.semantic.ids.tolist()
    assert ids == [[IGNORE, IGNORE, 2, IGNORE]], "the cat's object and the sky's region are too uncertain"
    untouched = prepared(zoo())
    assert untouched.digest() == zoo().digest()
    with pytest.raises(ConfigError, match="minimum score"):
        Options(min_score=2.0)


def test_minimum_confidence() -> None:
    sample = make_sample()
    semantic, depth = sample.semantic, sample.depth
    left = prepared(sample, min_confidence=0.5).annotations
    assert np.array_equal(left.semantic.ids == IGNORE, semantic.confidence < 0.5)
    assert np.array_equal(left.depth.valid, depth.valid & (depth.confidence >= 0.5))
    assert 0.3 < left.depth.valid.sum() / depth.valid.sum() < 0.7
    certain = replace(sample, semantic=SemanticMap(semantic.ids), depth=DepthMap(depth.depth, depth.valid))
    assert prepared(certain, min_confidence=0.5).digest() == certain.digest(), "people's labels have no confidence"
    with pytest.raises(ConfigError, match="minimum confidence"):
        Options(min_confidence=-1.0)


# ---------------------------------------------------------------------- pictures
@pytest.mark.parametrize("link", [False, True])
def test_picture_files_are_copied_or_linked(link: bool, tmp_path: Path) -> None:
    sample = make_sample()
    jpeg, rotated, grey = (tmp_path / n for n in ("p.jpg", "r.jpg", "g.png"))
    Image.fromarray(sample.image).save(jpeg)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(sample.image).save(rotated, exif=exif)
    Image.fromarray(sample.image[..., 0]).save(grey)
    named = [replace(sample, key=f.stem, encoded=f) for f in (jpeg, rotated, grey)]
    for _ in iter_export(named, LABELS, "yolo-detect", tmp_path / "y", Options(link=link)):
        pass
    images = tmp_path / "y" / "images" / "train"
    assert sorted(p.name for p in images.iterdir()) == ["g.png", "p.jpg", "r.png"], (
        "what is no plain RGB is encoded anew"
    )
    assert (images / "p.jpg").read_bytes() == jpeg.read_bytes()
    assert (images / "p.jpg").samefile(jpeg) == link
    assert np.array_equal(np.asarray(Image.open(images / "r.png")), sample.image)


def test_bytes_of_a_store_are_copied(tmp_path: Path) -> None:
    samples = [make_sample(f"s{i}", seed=i) for i in range(3)]
    write_store(samples, tmp_path / "store", LABELS)
    main_exits(["export", str(tmp_path / "store"), "--format", "yolo-detect", "--out", str(tmp_path / "y")], 0)
    for sample in samples:
        assert (tmp_path / "y/images/train" / f"{sample.key}.png").read_bytes() == encode_png(sample.image, IMAGE_LEVEL)


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
        (["--min-score", "7"], "minimum score"),
        (["--min-confidence", "7"], "minimum confidence"),
    ):
        main_exits(["export", store, "--out", str(tmp_path / "x"), *extra], 2)
        assert message in capsys.readouterr().err and not (tmp_path / "x").exists()
