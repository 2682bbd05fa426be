"""No folder of this machine is named in what leaves it: stores and decoders that are pushed, data sets that are exported."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from datasetdm.decoder.config import read_config
from datasetdm.decoder.model import PDecoder, own_backbone
from datasetdm.errors import DecoderError
from datasetdm.exporters import EXPORTERS
from datasetdm.readers import read
from datasetdm.recipe.outputs import export
from datasetdm.recipe.push import push
from datasetdm.recipe.schema import AnnotateStage, ExportStage
from datasetdm.recipe.stages import annotate
from hub_server import Hub
from labelled import coco_folder, masks_folder, noise_image, yolo_folder
from sources import save_decoder

PRIVATE = "the-home-of-somebody"
"""A folder above all that is read and written here."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / PRIVATE).mkdir()
    return tmp_path / PRIVATE


@pytest.fixture
def decoder(home: Path, tiny_folder: Path) -> Path:
    """A decoder that was fitted on a folder's backbone."""
    return save_decoder(home / "decoder", shutil.copytree(tiny_folder, home / "backbone"))


@pytest.fixture
def store(home: Path, decoder: Path) -> Path:
    """Images of a folder, annotated, and compared with others."""
    for n in range(3):
        noise_image(home / "images" / f"{n}.png")
    copies = {"name": "filter-copies", "data": f"masks:{masks_folder(home / 'others')}"}
    stage = AnnotateStage(
        data=f"images:{home / 'images'}", decoder=str(decoder), device="cpu", transforms=(copies,), min_contrast=0.001
    )
    annotate(stage, home / "store", lambda _: None)
    return home / "store"


def pushed(hub: Hub, folder: Path) -> Path:
    """The files of every repository, in a folder."""
    for name, held in hub.repositories.items():
        for path, data in held.files.items():
            place = folder / name.replace("/", "-") / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    return folder


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, all that can be read of it) of every file; tables and archives are opened."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield str(path.relative_to(folder)), path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path.name, f"{table.schema.metadata} {table.to_pylist()}"
        elif path.suffix == ".tar":
            with tarfile.open(path) as archive:
                yield path.name, " ".join(archive.getnames())


def naming(found: Iterator[tuple[str, str]]) -> list[str]:
    """The files that name the private folder."""
    return [name for name, text in found if PRIVATE in name or PRIVATE in text]


def test_what_is_pushed(store: Path, decoder: Path, hub: Hub, tmp_path: Path) -> None:
    assert PRIVATE in read_config(decoder).backbone
    push(decoder, "hf://me/some-decoder")
    push(store, "hf://datasets/me/some-data")
    sent = pushed(hub, tmp_path / "sent")
    assert {"config.json", "dataset.json", "shard-000000.parquet"} < {Path(name).name for name, _ in texts(sent)}
    assert naming(texts(sent)) == []
    card = (sent / "datasets-me-some-data" / "README.md").read_text()
    assert "masks:others" in card and "| backbone.name | backbone |" in card


def test_what_is_exported(store: Path, tmp_path: Path) -> None:
    for format in sorted({*EXPORTERS} - {"yolo-pose"}):  # these samples have no points
        export(ExportStage(data=str(store), format=format), tmp_path / format, lambda _: None)
        assert any(name == "provenance.json" for name, _ in texts(tmp_path / format))
        assert naming(texts(tmp_path / format)) == [], format


def sources(home: Path) -> Mapping[str, str]:
    """Data in formats whose samples name files."""
    same = yolo_folder(home / "yolo", "0 0.5 0.5 0.5 0.5")
    noise_image(home / "yolo" / "images" / "train" / "below" / "a.png")
    return {
        "coco": f"coco:{coco_folder(home / 'coco')}",
        "masks": f"masks:{masks_folder(home / 'm')}",
        "yolo": f"yolo:{same}",
    }


def test_what_readers_say_of_files(home: Path) -> None:
    for name, data in sources(home).items():
        for sample in read(data):
            assert PRIVATE not in f"{sample.key} {sample.provenance.to_json()}", name


def test_a_pushed_decoder_without_its_backbone_says_what_to_do(
    decoder: Path, hub: Hub, home: Path, tmp_path: Path
) -> None:
    push(decoder, "hf://me/some-decoder")
    config = PDecoder.load("hf://me/some-decoder").config
    assert config.backbone == "backbone"
    with pytest.raises(DecoderError, match="fitted on cannot be used") as caught:
        own_backbone(config)
    assert "--backbone PATH" in str(caught.value) and config.identity[:12] in str(caught.value)
