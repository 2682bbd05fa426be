"""Existing images, annotated into a store that goes on by key."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasetdm.backbones import Backbone
from datasetdm.decoder.model import PDecoder
from datasetdm.engines.local import write
from datasetdm.errors import StoreError
from datasetdm.pipelines.annotate import Annotator
from datasetdm.pipelines.stream import Data, Source, Stream
from datasetdm.readers import read
from datasetdm.store.store import Store
from datasetdm.transforms.threshold import MaskByConfidence
from factory import LABELS, known


@pytest.fixture(scope="module")
def decoder(tiny: Backbone) -> PDecoder:
    import torch

    torch.manual_seed(0)
    return PDecoder.for_backbone(tiny, LABELS, ("semantic", "depth"), width=32).eval()


def folder_of_images(folder: Path, *names: str, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        rng = np.random.default_rng((seed, *name.encode()))
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return folder_of_images(tmp_path / "images", "b.png", "c.png", "d.png")


def annotator(folder: Path, decoder: PDecoder, tiny: Backbone) -> Annotator:
    return Annotator(Data(read(f"images:{folder}"), "images"), decoder=decoder, backbone=tiny)


def test_images_are_annotated_at_their_own_size(
    images: Path, decoder: PDecoder, tiny: Backbone, tmp_path: Path
) -> None:
    source = annotator(images, decoder, tiny)
    assert isinstance(source, Source) and write(source, tmp_path / "s") == 3
    sample = Store(tmp_path / "s")[0]
    assert sample.key == "b.png" and sample.size == (30, 40) and known(sample) == ["semantic", "depth"]
    assert sample.provenance.file == "b.png" and sample.provenance.decoder == decoder.fingerprint()[:12]
    assert "images" not in str(Store(tmp_path / "s").stream["data"].get("path", "")), "no path of this machine"


def test_a_file_that_sorts_first_is_annotated_and_none_twice(
    images: Path, decoder: PDecoder, tiny: Backbone, tmp_path: Path
) -> None:
    write(annotator(images, decoder, tiny), tmp_path / "s")
    first = [s.digest() for s in Store(tmp_path / "s")]
    folder_of_images(images, "a.png")
    assert write(annotator(images, decoder, tiny), tmp_path / "s") == 4
    store = Store(tmp_path / "s")
    assert list(store.keys()) == ["b.png", "c.png", "d.png", "a.png"]
    assert [s.digest() for s in store][:3] == first


def test_the_same_images_elsewhere_go_on(images: Path, decoder: PDecoder, tiny: Backbone, tmp_path: Path) -> None:
    write(annotator(images, decoder, tiny), tmp_path / "s", 2)
    moved = shutil.copytree(images, tmp_path / "moved")
    assert write(annotator(moved, decoder, tiny), tmp_path / "s") == 3


@pytest.mark.parametrize(
    ("names", "seed", "message"),
    [
        (("b.png", "c.png", "d.png"), 1, "'b.png' is another one"),
        (("x.png", "y.png"), 0, "'b.png', which these data lack"),
    ],
)
def test_another_folder_is_refused(
    names: tuple[str, ...], seed: int, message: str, images: Path, decoder: PDecoder, tiny: Backbone, tmp_path: Path
) -> None:
    write(annotator(images, decoder, tiny), tmp_path / "s")
    other = folder_of_images(tmp_path / "other", *names, seed=seed)
    with pytest.raises(StoreError, match=message):
        write(annotator(other, decoder, tiny), tmp_path / "s")
    assert len(Store(tmp_path / "s")) == 3


def test_another_decoder_or_transform_is_refused(
    images: Path, decoder: PDecoder, tiny: Backbone, tmp_path: Path
) -> None:
    write(annotator(images, decoder, tiny), tmp_path / "s")
    other = PDecoder.for_backbone(tiny, LABELS, ("semantic", "depth"), width=32)
    with pytest.raises(StoreError, match="decoder differs"):
        write(annotator(images, other, tiny), tmp_path / "s")
    with pytest.raises(StoreError, match="transforms differs"):
        write(Stream(annotator(images, decoder, tiny), [MaskByConfidence(minimum=0.5)]), tmp_path / "s")
