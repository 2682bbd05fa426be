"""What every reader promises, and what is the same for all of them."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasetdm.cli import main
from datasetdm.errors import ConfigError, DataError, StoreError
from datasetdm.io.codecs import decode_png, encode_png
from datasetdm.readers import READERS, read
from datasetdm.readers.formats.mini import CLASSES, PACKAGED
from datasetdm.readers.overview import summarise
from datasetdm.readers.source import UNFORESEEN, Source, ValidatingReader, as_data_error
from datasetdm.records import IGNORE, Sample
from datasetdm.store import write_store
from datasetdm.transforms.choose import Choose
from factory import LABELS, make_sample
from labelled import MAKERS, coco_folder, masks_folder, noise_image, yolo_folder


def test_mini_matches_its_files() -> None:
    rows = pq.read_table(PACKAGED / "train-000000.parquet").to_pylist()
    samples = list(read("mini:train"))
    assert len(samples) == len(rows) == 100
    by_name = {v: k for k, v in CLASSES.items()}
    for row, sample in zip(rows[:20], samples, strict=False):
        truth = decode_png(row["classes"], np.uint8)
        ids = sample.semantic.ids
        known = ids != IGNORE
        back = np.array([by_name[n] for n in sample.labels.names])[np.where(known, ids, 0)]
        assert np.array_equal(back[known], truth[known])
        assert not np.isin(truth[~known], list(CLASSES)).any()
        depth = decode_png(row["depth"], np.uint16)
        assert np.allclose(sample.depth.depth, depth / 256)
        assert len(sample.instances) == len(np.unique(decode_png(row["instances"], np.uint8))) - 1
        assert sample.prompt is not None and sample.prompt.text == row["caption"]


def test_the_two_packaged_sets_differ() -> None:
    keys = [{s.key for s in read(f"mini:{n}")} for n in ("train", "test")]
    assert not keys[0] & keys[1]


def test_foreign_parquet_is_no_mini_world(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples[:1], tmp_path / "s", LABELS)
    with pytest.raises(DataError, match="no labelled renders"):
        read(f"mini:{tmp_path / 's' / 'data' / 'shard'}")


BAD_RENDERS: dict[str, Any] = {
    "no PNG": {"classes": b"x"},
    "cut": {"image": b"\x89PNG\r\n\x1a\n"},
    "text for a PNG": {"depth": "x"},
    "no caption": {"caption": None},
    "no image": {"image": None},
    "a truth value": {"keypoints": "true"},
    "nothing": {"keypoints": ""},
    "uneven points": {"keypoints": '{"1": {"nose": [1, 2]}}'},
    "a list of points": {"keypoints": '{"1": [[1, 2, 2]]}'},
    "an endless point": {"keypoints": '{"1": {"nose": [1, NaN, 2]}}'},
    "deep": {"keypoints": "[" * 100_000},
    "another size": {"instances": encode_png(np.zeros((5, 5), np.uint8))},
    "a large class": {"classes": encode_png(np.full((128, 128), 999, np.uint16))},
    "colours": {"classes": encode_png(np.zeros((128, 128, 3), np.uint8))},
}


@pytest.mark.parametrize("case", BAD_RENDERS)
def test_a_bad_render_is_skipped_alone(case: str, tmp_path: Path) -> None:
    table = pq.read_table(PACKAGED / "test-000000.parquet").slice(0, 2)
    for name, value in BAD_RENDERS[case].items():
        place = table.schema.get_field_index(name)
        kind = pa.string() if isinstance(value, str) else table.schema.field(name).type
        second = table[name][1].as_py() if not isinstance(value, str) or name == "keypoints" else "y"
        table = table.set_column(place, name, pa.array([value, second], kind))
    pq.write_table(table, tmp_path / "x-0.parquet")
    with pytest.raises(DataError) as caught:
        list(read(f"mini:{tmp_path / 'x'}"))
    assert "x-0.parquet" in str(caught.value) and "\n" not in caught.value.what
    if case != "text for a PNG":
        assert [s.key for s in read(f"mini:{tmp_path / 'x'}", on_error="skip")] == [table["key"][1].as_py()]


def test_text_of_a_parquet_file_that_is_not_utf8(tmp_path: Path) -> None:
    table = pq.read_table(PACKAGED / "test-000000.parquet").slice(0, 1)
    bad = pa.array([b"caf\xe9"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(table.set_column(table.schema.get_field_index("caption"), "caption", bad), tmp_path / "x-0.parquet")
    with pytest.raises(DataError, match="UTF8"):
        list(read(f"mini:{tmp_path / 'x'}"))


class Broken(Source):
    """A format of somebody else that meets what it did not expect."""

    labels = LABELS

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return make_sample("s") if index else self.no_such_thing  # ty: ignore[missing-attribute]


def test_no_exception_but_our_own_leaves_a_reader() -> None:
    with pytest.raises(DataError, match="AttributeError: 'Broken' object has no attribute") as caught:
        list(ValidatingReader(Broken()))
    assert "sample 0" in str(caught.value) and isinstance(caught.value.__cause__, AttributeError)
    reader = ValidatingReader(Broken(), "skip")
    assert [s.key for s in reader] == ["s"] and len(reader.skipped) == 1


def test_formats_are_named() -> None:
    assert {*READERS} == {*MAKERS}
    with pytest.raises(ConfigError, match="names no format"):
        read("annotations.json")
    with pytest.raises(ConfigError, match="did you mean 'coco'"):
        read("cocoo:x.json")
    with pytest.raises(DataError, match="no mini-world files"):
        read("mini:nowhere/x")


# ---------------------------------------------------------------------- overview
def test_a_summary_tells_what_is_missing(tmp_path: Path) -> None:
    """Crowds, ignored pixels, images without labels, where captions come from, depth with its unit, mirrored points."""
    found = summarise(reader := read(f"coco:{coco_folder(tmp_path / 'coco')}"), reader.labels)
    assert (found.crowds, found.ignored, found.pixels) == (1, 40, 1200) and found.objects == {"dog": 1, "cat": 1}
    notes = "\n".join(found.notes())
    assert "ignored pixels: 3.3%" in notes and "crowd regions: 1" in notes and "2 composed of the labels" in notes
    path = yolo_folder(tmp_path / "yolo", "0 0.5 0.5 0.5 0.5 0 0 0 0 0 0 0 0", kpt_shape=[4, 2], kpt_names=list("abcd"))
    path.write_text(path.read_text().replace("- a\n- b", "- earL\n- earR"))
    found = summarise(reader := read(f"yolo:{path}"), reader.labels)
    assert "images without labels: 1 of 2" in found.notes()
    assert found.mirrored["dog"] == [("earL", "earR")]
    found = summarise(reader := read("mini:test"), reader.labels)
    low, high = found.depth["metre"]
    assert 0 < low < high and f"depth: {low:.3g} to {high:.3g} m" in found.notes() and not found.unlabelled


@pytest.mark.slow
def test_a_balanced_part_holds_rare_labels() -> None:
    reader = read("mini:train")
    small = Choose(limit=20, balance=True, seed=3).select(reader)
    assert [s.key for s in small] == [s.key for s in Choose(limit=20, balance=True, seed=3).select(reader)]
    assert [s.key for s in small] != [s.key for s in Choose(limit=20, balance=True, seed=4).select(reader)]
    found = [summarise(p, p.labels).images for p in (small, Choose(limit=20, seed=3).select(reader))]
    least = [min(images[n] for n in reader.labels.names) for images in found]
    assert least[0] >= 1 > least[1]


def test_captions_beside_images(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path).parent / "images" / "train"
    (folder / "a.txt").write_text("a dark room\n")
    first, second = read(f"images:{folder}")
    assert first.prompt is not None and first.prompt.text == "a dark room" and second.prompt is None
    assert (first.key, second.key) == ("a.png", "b b.png")
    with pytest.raises(DataError, match="no images"):
        read(f"images:{tmp_path / 'labels'}")


# ---------------------------------------------------------------------- wrong data: stop, or skip and count
def two_images(folder: Path, **wrong: Any) -> Path:
    """COCO's two images; the second's annotation has these entries."""
    return coco_folder(folder, lambda c: c["annotations"][2].update(wrong))


def test_skipping_counts_the_images_and_keeps_the_others(tmp_path: Path) -> None:
    path = two_images(tmp_path, iscrowd="no")
    with pytest.raises(DataError, match="iscrowd is 'no'"):
        read(f"coco:{path}")
    reader = read(f"coco:{path}", on_error="skip")
    assert [s.key for s in reader] == ["a"] and len(reader) == 1
    assert [e.what for e in reader.skipped] == ["iscrowd is 'no'"] and "annotation 3" in str(reader.skipped[0].where)


def test_an_annotation_of_no_images_is_counted_and_spoils_none(tmp_path: Path) -> None:
    reader = read(f"coco:{two_images(tmp_path, image_id=77)}", on_error="skip")
    assert len(list(reader)) == 2 and len(reader.skipped) == 1 and "names image 77" in reader.skipped[0].what


def test_what_only_decoding_shows_is_skipped_while_reading(tmp_path: Path) -> None:
    """A truncated image has a good header, so it is met later; parts of the data share the account."""
    folder = tmp_path / "p"
    for name in "abc":
        noise_image(folder / f"{name}.png", (64, 64))
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:900])
    with pytest.raises(DataError, match="cannot be read"):
        list(read(f"images:{folder}"))
    reader = read(f"images:{folder}", on_error="skip")
    assert (len(reader), len(reader.skipped)) == (3, 0)
    few = Choose(limit=3).select(reader)
    assert [s.key for s in few] == [s.key for s in few] == ["a.png", "c.png"]
    assert len(few) == len(reader) == 2 and len(reader.skipped) == 1


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    (yolo_folder(tmp_path, "9 0 0 1 1").parent / "images" / "train" / "b b.png").unlink()
    with pytest.raises(DataError, match="all 1 samples were skipped"):
        read(f"yolo:{tmp_path / 'data.yaml'}", on_error="skip")


@pytest.mark.slow
def test_commands_say_what_they_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`inspect` and `fit` stop with code 2, or go on and tell."""
    path = two_images(tmp_path, segmentation=[[4, 4, 9, 4, 14, 4]])
    fit = ("fit", "--data", f"coco:{path}", "--out", str(tmp_path / "d"), "--steps", "1", "--variants", "1")
    for words in (("inspect", f"coco:{path}"), fit):
        for extra, code in ((), 2), (("--on-error", "skip"), 0):
            with pytest.raises(SystemExit) as end:
                main([*words, *extra])
            told = capsys.readouterr().err
            assert end.value.code == code and "cover no pixel" in told
        assert "skipped because of errors in the data: 1" in told
    assert json.loads((tmp_path / "d" / "config.json").read_text())["fitted"]["images"] == 1


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "LA", "P", "1"])
def test_images_of_any_mode_keep_their_labels(mode: str, tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    array = np.full((20, 30), 40_000, np.uint16)
    image = Image.fromarray(array) if mode == "I;16" else Image.new("L", (30, 20), 156).convert(mode)
    (folder / "images" / "a.jpg").unlink()
    image.save(folder / "images" / "a.tif")
    first, second = read(f"masks:{folder}")
    assert first.image.shape == (20, 30, 3)
    assert np.array_equal(first.semantic.ids, second.semantic.ids)


def test_a_rotation_that_the_labels_lack_is_an_error(tmp_path: Path) -> None:
    """EXIF 6 turns the image by 90 degrees; its mask was drawn on the unturned one."""
    path = masks_folder(tmp_path) / "images" / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    with pytest.raises(DataError, match="30x20") as caught:
        read(f"masks:{tmp_path}")
    assert "EXIF" in str(caught.value)


def test_a_decompression_bomb_is_met_before_work_starts(tmp_path: Path) -> None:
    """30,000 x 30,000 pixels in a few bytes."""
    folder = masks_folder(tmp_path)
    chunks = (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))
    parts = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in (*chunks, (b"IEND", b""))
    ]
    (folder / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    (folder / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match="pixels"):
        read(f"masks:{folder}")
    assert len(read(f"masks:{folder}", on_error="skip")) == 1


def test_what_a_reader_did_not_foresee_is_an_error_of_the_data() -> None:
    found = as_data_error(RuntimeError("an odd\nbyte"), Path("a.json"), 3)
    assert isinstance(found, DataError) and found.what == f"{UNFORESEEN} RuntimeError: an odd byte"
    assert "a.json, sample 3" in str(found.where) and isinstance(found.__cause__, RuntimeError)
    assert as_data_error(MemoryError(), Path("a.json")).what == "there is not enough memory to read the data"
    own = StoreError("damaged")
    assert as_data_error(own, Path("a.json")) is own
    with pytest.raises(ConfigError):
        as_data_error(ConfigError("not installed"), Path("a.json"))
