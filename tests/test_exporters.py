from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from conftest import LABELS, make_sample
from datasetdm.errors import ConfigError, OutputError
from datasetdm.exporters import export, iter_export
from datasetdm.readers import read
from datasetdm.store import Store, write_store
from datasetdm.types import BACKGROUND, IGNORE, Labels, Sample, SemanticMap


def without_instances(sample: Sample) -> Sample:
    kept = {k: v for k, v in sample.annotations.items() if k in ("semantic", "depth")}
    return Sample(sample.key, sample.image, sample.labels, sample.prompt, kept)


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
        assert np.array_equal(ids, sample.annotations["semantic"].ids)
        pixels = np.asarray(Image.open(tmp_path / "coco" / "images" / image["file_name"]))
        assert np.array_equal(pixels, sample.image)


def test_depth_keeps_16_bits(regions: Store, tmp_path: Path) -> None:
    export(regions, "coco", tmp_path / "coco")
    for sample in regions:
        steps = np.asarray(Image.open(tmp_path / "coco" / "depth" / f"{sample.key}.png"))
        assert steps.dtype == np.uint16
        assert np.allclose(steps / 256, sample.annotations["depth"].depth)


def test_instances_come_back_as_they_were(samples: list[Sample], tmp_path: Path) -> None:
    for _ in iter_export(samples, LABELS, "coco", tmp_path / "coco"):
        pass
    again = list(read(f"coco:{tmp_path / 'coco' / 'annotations' / 'instances.json'}"))
    for given, back in zip(samples, again, strict=True):
        assert back.key == given.key and np.array_equal(back.image, given.image)
        assert np.array_equal(back.annotations["instance"].masks, given.annotations["instance"].masks)
        assert back.prompt is not None and given.prompt is not None and back.prompt.text == given.prompt.text


def test_background_and_ignored_pixels_are_no_category(tmp_path: Path) -> None:
    labels = Labels((BACKGROUND, "dog"))
    ids = np.array([[0, 1], [IGNORE, 0]], np.uint16)
    sample = Sample("k", np.zeros((2, 2, 3), np.uint8), labels, annotations={"semantic": SemanticMap(ids)})
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
